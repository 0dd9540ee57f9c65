"""Answers every third request with an error."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self._count = 0

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        self._count += 1
        if self._count % 3 == 0:
            return pb_utils.InferenceResponse([], error=pb_utils.TritonError("every third request fails"))
        tensor = pb_utils.get_input_tensor_by_name(request, "INPUT")
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", tensor.as_numpy())])
