"""TOKENS responses, each after a pause of DELAY_MS, then the end of the stream."""

import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model; Triton calls `execute` with whatever requests it has batched."""

    def initialize(self, args):
        """No stream is under way."""
        self._streams = set()

    def execute(self, requests):
        """Begin a stream for each request; a decoupled model answers by its senders, when it likes."""
        self._streams = {stream for stream in self._streams if stream.is_alive()}
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "TOKENS").as_numpy()
            delays_ms = pb_utils.get_input_tensor_by_name(request, "DELAY_MS").as_numpy()
            # A batch is streamed together, as long and as slowly as its longest and slowest row.
            arguments = (request.get_response_sender(), len(rows), max(int(rows.max()), 1), float(delays_ms.max()))
            stream = threading.Thread(target=self._stream, args=arguments)
            self._streams.add(stream)
            stream.start()

    def _stream(self, sender, batch, tokens, delay_ms):
        for number in range(tokens):
            time.sleep(delay_ms / 1000)
            texts = np.full((batch, 1), f"token {number}".encode(), np.object_)
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("TOKEN", texts)]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        """Let the streams end before the model is unloaded."""
        for stream in self._streams:
            stream.join()
