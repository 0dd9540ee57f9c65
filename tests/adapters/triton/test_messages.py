"""tritonclient's messages come without its client, and are the client's own where that is imported, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MESSAGES = """
from model_analyzer.adapters.triton.messages import model_config_pb2, service_pb2
service, config = service_pb2(), model_config_pb2()
"""
CLIENT = "import tritonclient.grpc as client\n"
SAME = """
assert client.service_pb2 is service and client.model_config_pb2 is config
assert isinstance(client.InferInput("A", [1], "FP32")._get_tensor(), service.ModelInferRequest.InferInputTensor)
with client.InferenceServerClient("127.0.0.1:1"):
    pass
from tritonclient.grpc import service_pb2
assert service_pb2 is service
print("the same")
"""


def printed(code: str) -> str:
    """What a new interpreter prints."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_messages_come_without_the_client() -> None:
    modules = printed(MESSAGES + "import sys; print(*sys.modules)").split()
    assert "tritonclient.grpc.service_pb2" in modules
    absent = ("tritonclient.grpc", "tritonclient.grpc._client", "grpc", "asyncio")
    assert [name for name in absent if name in modules] == []


@pytest.mark.parametrize("order", [MESSAGES + CLIENT, CLIENT + MESSAGES], ids=["messages first", "client first"])
def test_messages_and_client_are_of_one_package_whichever_comes_first(order: str) -> None:
    assert printed(order + SAME) == "the same"


def test_a_client_that_is_asked_for_here_is_the_real_one() -> None:
    asked = "from model_analyzer.adapters.triton.messages import grpc_client\nclient = grpc_client()\n"
    assert printed(MESSAGES + asked + SAME) == "the same"


def test_a_tritonclient_of_another_layout_is_imported_as_a_whole(tmp_path: Path) -> None:
    package = tmp_path / "tritonclient" / "grpc"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("class service_pb2:\n    whole = True\nmodel_config_pb2 = service_pb2\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{MESSAGES}print(service.whole, config.whole)"
    assert printed(code) == "True True"
