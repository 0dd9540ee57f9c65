"""Takes longer to load than anybody waits."""

import time


class TritonPythonModel:
    def initialize(self, args):
        time.sleep(12)

    def execute(self, requests):
        return []
