"""The engine's fake world."""

from __future__ import annotations

import pytest
from fakes import World


@pytest.fixture
def world() -> World:
    """A server, a load and a clock that obey the test."""
    return World()
