"""Every second request: two responses, then an error. The others: two responses and the end."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self._seen = 0

    def execute(self, requests):
        for request in requests:
            self._seen += 1
            self._answer(request, self._seen % 2 == 0)

    def _answer(self, request, breaks):
        sender = request.get_response_sender()
        values = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
        for _ in range(2):
            time.sleep(0.005)
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", values)]))
        if breaks:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("broke in mid-stream")))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
