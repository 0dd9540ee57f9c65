"""Adds the sum of its optional input, where there is one."""

import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        value = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
        extra = pb_utils.get_input_tensor_by_name(request, "EXTRA")
        if extra is not None:
            value = value + extra.as_numpy().sum(dtype=numpy.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", value)])
