"""Fills device memory over and over for the seconds of its parameter; needs the NVIDIA driver and no CUDA package."""

import ctypes
import json
import time

import triton_python_backend_utils as pb_utils

DEVICE = 0
FILLS = 8  # queued at a time, so that the device does not wait for us between them


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self._seconds = float(parameters["seconds"]["string_value"])
        self._bytes = int(parameters["bytes"]["string_value"])
        self._cuda = ctypes.CDLL("libcuda.so.1")
        device, self._context, self._memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(DEVICE))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._call("cuCtxSetCurrent", self._context)
        self._call("cuMemAlloc_v2", ctypes.byref(self._memory), ctypes.c_size_t(self._bytes))

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def finalize(self):
        self._call("cuMemFree_v2", self._memory)

    def _answer(self, request):
        self._call("cuCtxSetCurrent", self._context)  # it belongs to a thread
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            for _ in range(FILLS):
                self._call(
                    "cuMemsetD8Async", self._memory, ctypes.c_ubyte(1), ctypes.c_size_t(self._bytes), ctypes.c_void_p()
                )
            self._call("cuCtxSynchronize")
        tensor = pb_utils.get_input_tensor_by_name(request, "INPUT")
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", tensor.as_numpy())])

    def _call(self, name, *arguments):
        status = getattr(self._cuda, name)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorName(ctypes.c_int(status), ctypes.byref(text))
            raise pb_utils.TritonModelException(f"{name}: {(text.value or b'error').decode()} ({status})")
