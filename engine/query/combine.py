"""Queries of several vectors and texts: weighted ensembles, analogies, and directions taken out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import DimensionMismatch, InvalidArgument
from gingham.types import finite

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

NOTHING = 1e-6
"""Share of the lengths of the parts below which what is left of them is rounding."""


@dataclass(frozen=True, eq=False)
class Combined:
    """A query of several parts; see :func:`combine`.

    Attributes
    ----------
    parts : texts or float64 (dim,)
    weights : one for each part
    away : texts or float64 (dim,)
    normalize : whether every part has length one before it is weighted
    """

    parts: tuple[str | Array, ...]
    weights: tuple[float, ...]
    away: tuple[str | Array, ...]
    normalize: bool

    def vector(self, vectors_of: Callable[[list[str]], Array]) -> Array:
        """The query, float32 (1, dim).

        Parameters
        ----------
        vectors_of : from texts to their vectors (n, dim); not called where there are none

        Raises
        ------
        DimensionMismatch : parts of several widths
        InvalidArgument : nothing is left of the query, or more than float32 holds
        """
        given = [*self.parts, *self.away]
        texts = [part for part in given if isinstance(part, str)]
        made = iter(vectors_of(texts) if texts else ())
        vectors = [np.asarray(next(made) if isinstance(part, str) else part, np.float64) for part in given]
        widths = sorted({len(vector) for vector in vectors})
        if len(widths) > 1:
            raise DimensionMismatch(f"combine() expects parts of one width, found {widths} dimensions")
        matrix = np.array(vectors)
        lengths = np.linalg.norm(matrix, axis=1)
        units = matrix / np.where(lengths > 0, lengths, 1)[:, None]
        if self.normalize:
            matrix, lengths = units, (lengths > 0).astype(np.float64)
        n, weights = len(self.parts), np.array(self.weights)
        with np.errstate(over="ignore", invalid="ignore"):
            query = weights @ matrix[:n]
            if self.away:
                _, values, axes = np.linalg.svd(units[n:], full_matrices=False)
                axes = axes[values > NOTHING * values[0]] if values[0] > 0 else axes[:0]
                query -= axes.T @ (axes @ query)
            out: Array = query.astype(np.float32)[None]
            least = NOTHING * (np.abs(weights) @ lengths[:n])
        if not np.isfinite(out).all():
            raise InvalidArgument("combine() expects a sum within float32, found a greater one; lower the weights")
        if not (np.linalg.norm(query) > least and out.any()):
            raise InvalidArgument(
                "combine() expects parts that add up to something, found nothing left; change weights or away="
            )
        return out


def combine(
    parts: Mapping[str, float] | Iterable[tuple[Any, float]], *, away: Any = (), normalize: bool = True
) -> Combined:
    """One query of several vectors and texts, for ``near`` and ``search``: the sum of weight times part.

    Parameters
    ----------
    parts : texts with their weights, as in ``{"king": 1, "man": -1, "woman": 1}``, or pairs of a text or a vector of
        shape (dim,) and a weight, as in ``[(image, 1), ("at night", 0.5)]``; texts are embedded as queries
    away : texts and vectors whose directions are taken out of the sum, which is then orthogonal to each of them
    normalize : make every part one of length one first, so that weights alone say how much each counts

    Returns
    -------
    Combined : a value that ``near(field, ...)`` and ``search(...)`` take in place of a vector

    Raises
    ------
    InvalidArgument : no parts, one that is neither text nor numbers of shape (dim,) that are finite in float32, or a
        weight that is not finite

    Notes
    -----
    Inner products are linear, so the score of the sum is the weighted sum of the scores of the parts, all of them of
    length one where ``normalize`` is on (under cosine up to a factor that is the same for all rows). Of
    ``{b: 1, a: -1, c: 1}`` it finds what is to c as b is to a: 3CosAdd of Mikolov, Yih and Zweig 2013, NAACL,
    "Linguistic regularities in continuous space word representations", section 4. Stored rows are combined by ``like``.
    """
    if isinstance(parts, str | bytes) or not isinstance(parts, Mapping | Iterable):
        raise InvalidArgument(f"combine() expects a dict or pairs of parts and weights, found {parts!r:.60}")
    pairs = list(parts.items() if isinstance(parts, Mapping) else parts)
    if not pairs or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise InvalidArgument(f"combine() expects pairs of a part and its weight, at least one, found {pairs!r:.60}")
    weights = tuple(finite("combine()", weight, "weight") for _, weight in pairs)
    if not isinstance(normalize, bool):
        raise InvalidArgument(f"combine(normalize=) expects True or False, found {normalize!r:.60}")
    if not isinstance(away, Iterable) or isinstance(away, bytes | Mapping) or getattr(away, "ndim", 1) == 0:
        raise InvalidArgument(f"combine(away=) expects a list of texts and vectors, found {away!r:.60}")
    listed = [away] if isinstance(away, str) or getattr(away, "ndim", 0) == 1 else list(away)
    return Combined(tuple(_part(part) for part, _ in pairs), weights, tuple(_part(part) for part in listed), normalize)


def _part(part: Any) -> str | Array:
    if isinstance(part, str):
        return part
    try:
        array = np.asarray(part)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    fit = array.dtype.kind in "fiu" and array.ndim == 1 and len(array) > 0
    with np.errstate(over="ignore"):
        fit = fit and bool(np.isfinite(array.astype(np.float32)).all())
    if not fit:
        raise InvalidArgument(
            f"combine() expects texts and vectors of finite numbers of shape (dim,), found {type(part).__name__} "
            f"{part!r:.60}"
        )
    return array.astype(np.float64)
