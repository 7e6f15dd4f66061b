"""What an embedder is, how it is called, and how one is told from another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from gingham.deadline import check
from gingham.errors import Cancelled, DeadlineExceeded, EmbedderFailed, InvalidArgument, MissingExtra
from gingham.schema import MAX_DIM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]

BATCH_TEXTS = 256
"""Texts an embedder is given at once; what it makes of them is checked before the next ones."""
FINGERPRINT_DIMS = 16
FINGERPRINT_TOLERANCE = 0.01
"""Rounding to float16 moves a component by at most 0.00025; between models it moves by about 1 / sqrt(dim), which is
0.05 at 384 dimensions, and all of them have to agree."""
FINGERPRINT_TEXTS = (
    "gingham",
    "A cat sleeps on the warm stove.",
    "Which rivers flow through Vienna?",
    "def add(a, b):\n    return a + b",
    "In 1969 two people walked on the Moon; 12 had by the end of 1972.",
    "Über den Dächern läuten Glocken, und das Café öffnet früh.",
    "東京の夜は静かです。",
    "ERROR 503: upstream timed out after 30.0 s (id=7f3a-99)",
)
"""Embedded to tell models apart; other texts would change the fingerprint of every stored embedder."""

_MEMBERS = {"name": "a string", "revision": "a string", "dim": f"an integer from 1 to {MAX_DIM}"}
_METHODS = ("embed_documents", "embed_queries")
_PASSED = (EmbedderFailed, MissingExtra, DeadlineExceeded, Cancelled)
"""Errors that already say what to do; they reach the caller as they are."""


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors of texts; plain attributes do for name, revision and dim.

    One that also has ``embed_tokens(texts)``, which gives a matrix (tokens, dim) for each text or an object with such
    ``vectors``, lets texts and :func:`gingham.hyde` be searched for in token fields.
    """

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def revision(self) -> str:
        """What tells other weights of the same name apart."""
        ...

    @property
    def dim(self) -> int:
        """Width of the vectors, 1 to 65,535."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Array:
        """Vectors of texts that are stored, float32 (n, dim)."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Array:
        """Vectors of texts that are searched for, float32 (n, dim)."""
        ...


def check_embedder(obj: object) -> None:
    """Raise unless ``obj`` has what an embedder needs.

    Raises
    ------
    InvalidArgument : a member is missing or of another type, or dim is out of range
    EmbedderFailed : a member cannot be read
    """
    for member, expected in _MEMBERS.items():
        value = _read(obj, member, expected)
        if member == "dim":
            fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_DIM
        else:
            fits = isinstance(value, str)
        if not fits:
            raise InvalidArgument(
                f"the embedder {type(obj).__name__} expects {expected} as {member}, found {value!r:.80}"
            )
    for method in _METHODS:
        value = _read(obj, method, "a method")
        if not callable(value):
            raise InvalidArgument(
                f"the embedder {type(obj).__name__} expects a method {method}(texts), found {value!r:.80}"
            )


def _read(obj: object, member: str, expected: str) -> object:
    try:
        return getattr(obj, member)
    except AttributeError as error:
        raise InvalidArgument(
            f"an embedder expects {expected} as {member}, found none in {type(obj).__name__}; add it, or pass "
            "an embedder such as gingham.embed.SentenceTransformerEmbedder()"
        ) from error
    except _PASSED:
        raise
    except Exception as error:
        raise EmbedderFailed(
            f"the embedder {type(obj).__name__} expects {expected} as {member}, found {described(error)}"
        ) from error


def embed(
    embedder: Embedder,
    texts: Sequence[str],
    *,
    queries: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Embed texts; everything that embeds comes through here.

    Parameters
    ----------
    embedder : called with at most 256 texts at once, and not at all where there are none
    texts : any number of strings
    queries : whether they are searched for or stored
    progress : called after each batch with the texts done and all texts

    Returns
    -------
    ndarray : float32 (n, dim), finite, of its own memory

    Raises
    ------
    InvalidArgument : no embedder, or a text is no string
    EmbedderFailed : the embedder raised, or made something else than finite numbers of shape (n, dim)
    """
    check_embedder(embedder)
    texts = checked_texts(texts)
    out = np.empty((len(texts), embedder.dim), np.float32)
    method = embedder.embed_queries if queries else embedder.embed_documents
    for start in range(0, len(texts), BATCH_TEXTS):
        check()
        batch = texts[start : start + BATCH_TEXTS]
        stop = start + len(batch)
        expected = (
            f"the embedder {embedder.name!r} is expected to make finite vectors of shape {(len(batch), embedder.dim)} "
            f"of texts {start} to {stop - 1} of {len(texts)}"
        )
        try:
            made = method(batch)
            array = np.asarray(made)
        except _PASSED:
            raise
        except Exception as error:
            raise EmbedderFailed(f"{expected}, found {described(error)}") from error
        found = _misfit(array, (len(batch), embedder.dim))
        if found is not None:
            raise EmbedderFailed(f"{expected}, found {type(made).__name__} {found}; correct the embedder")
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity
            out[start:stop] = array
        bad = np.flatnonzero(~np.isfinite(out[start:stop]).all(axis=1))
        if len(bad):
            raise EmbedderFailed(f"{expected}, found NaN or an infinity in text {start + bad[0]}; correct the embedder")
        if progress is not None:
            progress(stop, len(texts))
    return out


def checked_texts(texts: Iterable[str]) -> list[str]:
    """Texts as a list; raises InvalidArgument for one string alone, and for anything else than strings."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise InvalidArgument(f"an embedder expects a list of texts, found {type(texts).__name__}; put it into a list")
    out = list(texts)
    for place, text in enumerate(out):
        if not isinstance(text, str):
            raise InvalidArgument(f"an embedder expects strings, found {type(text).__name__} as text {place}")
    return out


def _misfit(array: Array, shape: tuple[int, int]) -> str | None:
    """What was found where it is no array of numbers of this shape, else None."""
    if array.dtype.kind not in "fiu":
        # Text is refused although NumPy would read "1.5" as a number, and so is what NumPy does not know.
        return f"of {array.dtype} values"
    return None if array.shape == shape else f"of shape {array.shape}"


def described(error: Exception) -> str:
    """Type and message of a foreign error, in one line of at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].removesuffix(": ")


def fingerprint(embedder: Embedder) -> bytes:
    """What a model makes of fixed texts: the first 16 components of each unit vector, little-endian float16.

    Raises
    ------
    InvalidArgument, EmbedderFailed : as of :func:`embed`

    Notes
    -----
    256 bytes, fewer for an embedder of fewer than 16 dimensions.
    """
    vectors = embed(embedder, FINGERPRINT_TEXTS, queries=False).astype(np.float64)
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths != 0)
    return bytes(units[:, :FINGERPRINT_DIMS].astype("<f2").tobytes())


def same_fingerprint(a: bytes, b: bytes) -> bool:
    """Whether two fingerprints are of the same model, up to the rounding of another device or library version."""
    if len(a) != len(b) or len(a) % 2:
        return False
    one, other = (np.frombuffer(value, "<f2").astype(np.float32) for value in (a, b))
    return bool((np.abs(one - other) <= FINGERPRINT_TOLERANCE).all())
