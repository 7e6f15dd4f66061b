"""What tests of this folder are given."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def faiss() -> Any:
    module = pytest.importorskip("faiss")
    module.omp_set_num_threads(1)  # of other threads it waits for more than it gains
    return module
