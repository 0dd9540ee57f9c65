"""Gives back its inputs, one of each datatype."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        return pb_utils.InferenceResponse([self._echo(tensor) for tensor in request.inputs()])

    def _echo(self, tensor):
        name = tensor.name().replace("INPUT", "OUTPUT")
        if tensor.name() == "INPUT_BF16":  # numpy has no bfloat16
            return pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())
        return pb_utils.Tensor(name, tensor.as_numpy())
