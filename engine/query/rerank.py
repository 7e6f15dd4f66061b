"""Scoring rows anew by a model that reads query and text together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham import deadline
from gingham.errors import EmbedderFailed, GinghamError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.query.nodes import CrossEncoder

    Array = np.ndarray[Any, Any]

PAIRS = 32
"""Pairs that a model is given at once; deadlines are checked between them."""


def cross_encoded(by: CrossEncoder, texts: Sequence[str | None]) -> Array:
    """Scores of texts, float32 (n,), -inf where there is none.

    Raises
    ------
    EmbedderFailed : the model raised, or gave something else than a finite score for each pair
    """
    scores = np.full(len(texts), -np.inf, np.float32)
    listed = [at for at, text in enumerate(texts) if text is not None]
    model = getattr(by.model, "predict", by.model)
    for start in range(0, len(listed), PAIRS):
        deadline.check()
        some = listed[start : start + PAIRS]
        try:
            found = np.asarray(model([(by.query, texts[at]) for at in some]), np.float32)
        except GinghamError:
            raise
        except Exception as error:
            raise EmbedderFailed(
                f"the model of cross_encoder() expects pairs of texts, found {type(error).__name__}: {error}"
            ) from error
        if found.shape != (len(some),) or not np.isfinite(found).all():
            raise EmbedderFailed(
                f"the model of cross_encoder() expects a finite score for each of {len(some)} pairs, found others, "
                f"of shape {found.shape}"
            )
        scores[some] = found
    return scores
