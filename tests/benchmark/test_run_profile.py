"""What a run spends beside its load, by library."""

from __future__ import annotations

import pytest

from bench.run_profile import imports

WROTE = """import time: self [us] | cumulative | imported package
import time:       300 |        300 |   numpy.core
import time:      1200 |       1500 | numpy
10:00:00 loading add_sub
import time:       800 |        800 | yaml
"""


def test_modules_of_a_library_count_together_and_other_lines_not() -> None:
    assert imports(WROTE) == [("numpy", pytest.approx(0.0015)), ("yaml", pytest.approx(0.0008))]
