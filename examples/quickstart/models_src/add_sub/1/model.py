"""OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1, with numpy."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model; Triton calls `execute` with whatever requests it has batched."""

    def execute(self, requests):
        """One response for each request; tensors are [batch, 16] FP32."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        a = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
        b = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", a + b), pb_utils.Tensor("OUTPUT1", a - b)])
