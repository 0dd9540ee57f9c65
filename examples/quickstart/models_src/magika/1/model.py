"""A real network in Triton's Python backend: onnxruntime runs model.onnx, which lies beside this file."""

from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model, with a session of its own."""

    def initialize(self, args):
        """Load the network. args: what Triton tells of the model and this instance, as strings."""
        options = onnxruntime.SessionOptions()
        # One thread an instance: parallelism is chosen by the number of instances, and can be measured.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        network = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        """One response for each request: `bytes` [batch, 2048] INT32 -> `target_label` [batch, 214] FP32."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        features = pb_utils.get_input_tensor_by_name(request, "bytes").as_numpy()
        (scores,) = self._session.run(["target_label"], {"bytes": features})
        return pb_utils.InferenceResponse([pb_utils.Tensor("target_label", scores)])
