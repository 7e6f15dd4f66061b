"""Which tokens of a query met which tokens of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

SHADES = " ░▒▓█"
MOST_SHOWN = 100
"""Tokens of a row that a line shows."""


@dataclass(frozen=True, eq=False)
class TokenMatches:
    """Products of the tokens of a query with those of a row; prints as a heat map, a line for each token of the query.

    Attributes
    ----------
    products : float32 (query tokens, tokens of the row), as stored: pooled ones are several tokens of the text; a row
        without tokens has none
    """

    products: Array

    @property
    def best(self) -> Array:
        """The token of the row that each token of the query met, int64 (query tokens,), -1 where the row has none."""
        best: Array = self.products.argmax(axis=1) if self.products.size else np.full(len(self.products), -1)
        return best

    @property
    def scores(self) -> Array:
        """What each token of the query adds to the score, float32 (query tokens,)."""
        scores: Array = self.products.max(axis=1) if self.products.size else np.zeros(len(self.products), np.float32)
        return scores

    def __str__(self) -> str:
        shown = self.products[:, :MOST_SHOWN]
        if not shown.size:
            return "no tokens"
        low, high = float(shown.min()), float(shown.max())
        steps = ((shown - low) / ((high - low) or 1.0) * (len(SHADES) - 1)).round().astype(int)
        lines = (
            f"{number:>4} {score:7.3f} {''.join(SHADES[step] for step in line)}"
            for number, (score, line) in enumerate(zip(self.scores, steps, strict=True))
        )
        return "\n".join(lines)
