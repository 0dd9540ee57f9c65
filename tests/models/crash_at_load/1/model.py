"""Kills the server while it is loaded."""

import os
import signal


class TritonPythonModel:
    def initialize(self, args):
        os.kill(os.getppid(), signal.SIGKILL)  # the parent of a model's process is tritonserver

    def execute(self, requests):
        return []
