"""Kills the server with the request whose number is its parameter."""

import json
import os
import signal

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self._left = int(json.loads(args["model_config"])["parameters"]["at_request"]["string_value"])

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getppid(), signal.SIGKILL)  # the parent of a model's process is tritonserver
        tensor = pb_utils.get_input_tensor_by_name(request, "INPUT")
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", tensor.as_numpy())])
