"""What the tests of TLS share."""

from __future__ import annotations

import shutil

import pytest
from certificates import Certificates, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make certificates with; scripts/system-deps.sh --docker installs it")
    return make_certificates(tmp_path_factory.mktemp("certificates"))
