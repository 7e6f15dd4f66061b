"""The modules of the folder above, for every script of this one."""

from __future__ import annotations

import sys
from pathlib import Path

# Before installed packages, one of which is called "datasets" too.
sys.path.insert(1, str(Path(__file__).parents[1]))

import datasets
import measure

__all__ = ["datasets", "measure"]
