"""Cannot be loaded."""


class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("weights.bin is missing")

    def execute(self, requests):
        return []
