"""What the tests of TLS share, and how those by hypothesis run."""

from __future__ import annotations

import shutil

import pytest
from certificates import Certificates, make_certificates
from hypothesis import settings

# How long an example takes says nothing on a machine that others use, too.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make certificates with; scripts/system-deps.sh --docker installs it")
    return make_certificates(tmp_path_factory.mktemp("certificates"))
