"""Chunks of a page from where its boxes stand and from what they say."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.kmeans import assign, train_kmeans
from gingham.errors import InvalidArgument
from gingham.parallel import one_blas_thread
from gingham.text.chunk import Chunk, Units, check_sizes
from gingham.text.topics import unit_vectors
from gingham.types import finite, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gingham.text.chunk import Tokenize
    from gingham.types import UserId

    Array = np.ndarray[Any, Any]

SEPARATOR = "\n"
"""Stands between the texts of boxes, and belongs to the box before it."""
GROUP_BOXES = 1000
"""Consecutive boxes that are clustered at once: eigenvectors take time in proportion to the cube of their number."""
RESTARTS = 10
MOST_PAGES = 1 << 53


@dataclass(frozen=True)
class Box:
    """A text and where it stands on a page.

    Attributes
    ----------
    text : what stands in the box; it may be empty
    left, top, right, bottom : edges, in the unit of the page's size; downwards or upwards alike
    page : its number, consecutive ones for pages that follow each other
    width, height : of the page, above 0
    """

    text: str
    left: float
    top: float
    right: float
    bottom: float
    page: int = 0
    width: float = 1.0
    height: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InvalidArgument(f"a box expects a text, found {type(self.text).__name__}; decode bytes first")
        for name in ("left", "top", "right", "bottom", "width", "height"):
            object.__setattr__(self, name, finite(f"Box({name}=)", getattr(self, name)))
        object.__setattr__(self, "page", whole("Box(page=)", self.page, 0, MOST_PAGES))
        if self.width <= 0 or self.height <= 0:
            raise InvalidArgument(f"a box expects a page larger than 0, found {self.width:g} by {self.height:g}")
        if not all(map(math.isfinite, self.center)):
            raise InvalidArgument(
                f"a box expects edges in the unit of its page, found {self.left:g} to {self.right:g} and {self.top:g} "
                f"to {self.bottom:g} on {self.width:g} by {self.height:g}"
            )

    @property
    def center(self) -> tuple[float, float]:
        """Its middle, in widths and heights of the page."""
        return (self.left / 2 + self.right / 2) / self.width, (self.top / 2 + self.bottom / 2) / self.height


def chunk_layout(
    boxes: Sequence[Box],
    *,
    embed: Callable[[list[str]], Array],
    size: int = 256,
    tokenize: Tokenize | None = None,
    parent: UserId | None = None,
    seed: int = 0,
) -> list[Chunk]:
    """Join the boxes of a document that stand together and say similar things.

    Parameters
    ----------
    boxes : in reading order
    embed : makes an array (n, dim) of the texts of n boxes, which have no whitespace around them; not called where all
        of them fit in one chunk, or for one box
    size, tokenize, parent : as in :func:`gingham.text.chunk.chunk_tokens`
    seed : of k-means

    Returns
    -------
    list of Chunk : in order, with spans of the text that the boxes joined by line breaks are; joined the chunks are
        that text. None has more tokens than ``size``, but for tokens that cannot be parted

    Raises
    ------
    InvalidArgument : as in :func:`gingham.text.chunk.chunk_tokens`, or something else than boxes
    EmbedderFailed : ``embed`` made something else than n finite vectors

    Notes
    -----
    After S2 chunking (Verma 2025, arXiv:2501.05485): boxes are clustered spectrally by weights that are half
    ``1 / (1 + distance)`` and half the cosine of their vectors, a negative one counting 0. Distances are those of
    centres in page widths and heights, and a page further one more; there are as many clusters as the tokens need. A
    cluster that others interrupt in reading order becomes several chunks, since a chunk is one span; one above ``size``
    is cut between boxes, and a box between sentences. Each 1,000 consecutive boxes are clustered by themselves.
    """
    check_sizes(size, 0)
    seed = whole("chunk_layout(seed=)", seed, 0)
    if not isinstance(boxes, Iterable):
        raise InvalidArgument(f"chunk_layout() expects a list of boxes, found {type(boxes).__name__}")
    boxes = list(boxes)
    for place, box in enumerate(boxes):
        if not isinstance(box, Box):
            raise InvalidArgument(f"chunk_layout() expects a list of boxes, found {type(box).__name__} as box {place}")
    units = Units(SEPARATOR.join(box.text for box in boxes), tokenize)
    starts = accumulate((len(box.text) + len(SEPARATOR) for box in boxes), initial=0)
    # A box without a token has no unit of its own; the last of those that begin in a unit is the one with tokens.
    begins = {units.at(start): box for start, box in zip(starts, boxes, strict=False)} if units.n else {}
    begins.pop(units.n, None)
    edges = sorted({0, *begins, units.n})
    cuts: list[int] = []
    if units.totals[-1] > size and len(edges) > 2:
        vectors = unit_vectors([units.text_of(*pair).strip() for pair in pairwise(edges)], embed, "boxes")
        held = [begins.get(edge, boxes[0]) for edge in edges[:-1]]
        for start in range(0, len(held), GROUP_BOXES):
            stop = min(start + GROUP_BOXES, len(held))
            n_clusters = math.ceil((units.totals[edges[stop]] - units.totals[edges[start]]) / size)
            labels = _clusters(_weights(held[start:stop], vectors[start:stop]), n_clusters, seed)
            cuts += [edges[start], *(edges[start + 1 + at] for at in np.flatnonzero(np.diff(labels)))]
    return units.chunks(units.topics(_with_sentences(units, edges, size), cuts, size), parent)


def _with_sentences(units: Units, edges: list[int], size: int) -> list[int]:
    """Edges of boxes, and of the sentences of those that have more than ``size`` tokens."""
    large = [(a, b) for a, b in pairwise(edges) if units.totals[b] - units.totals[a] > size]
    sentences = units.sentences() if large else []
    inner = [edge for a, b in large for edge in sentences[bisect(sentences, a) : bisect(sentences, b)]]
    return sorted({*edges, *inner})


def _weights(boxes: Sequence[Box], vectors: Array) -> Array:
    """How much each two boxes belong together, float64 (n, n), from 0 to 1; 0 for a box and itself."""
    places = np.array([box.center for box in boxes])
    pages = np.array([box.page for box in boxes], np.float64)
    with np.errstate(over="ignore"):
        distances = np.hypot(*np.moveaxis(places[:, None] - places[None], 2, 0)) + np.abs(pages[:, None] - pages[None])
    with one_blas_thread():
        cosines = np.clip(vectors @ vectors.T, 0, 1)
    weights: Array = (1 / (1 + distances) + cosines) / 2
    np.fill_diagonal(weights, 0)
    return weights


def _clusters(weights: Array, k: int, seed: int) -> Array:
    """Labels int32 (n,) of k clusters by normalised spectral clustering.

    Notes
    -----
    Ng, Jordan and Weiss 2001, NIPS, "On spectral clustering: analysis and an algorithm": the rows of the k eigenvectors
    of ``D^-1/2 W D^-1/2`` with the greatest values, of length one, by k-means; the best of 10 starts.
    """
    n = len(weights)
    if k >= n or k < 2:
        return np.arange(n, dtype=np.int32) if k >= n else np.zeros(n, np.int32)
    degrees = weights.sum(axis=1)
    scale = np.divide(1, np.sqrt(degrees), out=np.zeros(n), where=degrees > 0)
    with one_blas_thread():
        _, vectors = np.linalg.eigh(weights * scale[:, None] * scale[None])
    rows = vectors[:, -k:]
    rows = np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12), np.float32)
    best, labels = np.inf, np.zeros(n, np.int32)
    for start in range(RESTARTS):
        centroids = train_kmeans(rows, k, seed=seed + start)
        found = assign(rows, centroids)
        error = float(np.square(rows - centroids[found]).sum())
        if error < best:
            best, labels = error, found
    return labels
