"""Late chunking: vectors of chunks from those of the tokens of the whole text.

Günther, Mohr, Williams, Wang and Xiao, "Late chunking: contextual chunk embeddings using long-context embedding
models" (2024), arXiv:2409.04701: the whole text is encoded first, so that every token vector knows its context, and
each chunk becomes the mean of its tokens. It is meant for models that pool by the mean. With stored token vectors a
text is chunked anew without encoding it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gingham.text.chunk import Chunk

    Array = np.ndarray[Any, Any]


def late_chunks(token_vectors: Array, token_spans: Array | Sequence[tuple[int, int]], chunks: Sequence[Chunk]) -> Array:
    """Mean of the token vectors of each chunk, scaled to length one.

    Parameters
    ----------
    token_vectors : (n, dim), finite, of the tokens of the text that was chunked
    token_spans : (n, 2), characters where each token starts and stops; ascending, and they may share characters.
        Tokens with empty spans, such as [CLS], belong to no chunk
    chunks : of the same text, in any order; they may overlap

    Returns
    -------
    ndarray : float32 (n_chunks, dim): of each chunk the mean of the tokens whose spans overlap its own, also of those
        that only begin or end in it, summed in float64. Zeros for a chunk without tokens, and where the mean is zero

    Raises
    ------
    InvalidArgument : another shape, NaN or infinity in a token, or spans that are not whole numbers or out of order
    """
    vectors = _checked_vectors(token_vectors)
    starts, stops, kept = _checked_spans(token_spans, len(vectors))
    vectors = vectors[kept]
    out = np.zeros((len(chunks), vectors.shape[1]), np.float32)
    firsts = np.searchsorted(stops, [chunk.start for chunk in chunks], "right")
    lasts = np.searchsorted(starts, [chunk.stop for chunk in chunks], "left")
    for row, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        if first < last and chunks[row].text:
            mean = vectors[first:last].mean(axis=0, dtype=np.float64)
            length = np.sqrt(mean @ mean)
            if length > 0:
                out[row] = mean / length
    return out


def long_late_windows(n_tokens: int, *, window: int, overlap: int) -> list[tuple[int, int]]:
    """Windows in which a text too long for a model is encoded, as spans of tokens.

    Parameters
    ----------
    n_tokens : of the text, without special tokens
    window : tokens encoded at once, at least one
    overlap : tokens that a window repeats of the one before, fewer than ``window``: the context of its first new token

    Returns
    -------
    list of (start, stop) : they cover every token; all but the last have ``window`` tokens, and the last has more than
        ``overlap``, or is the only one

    Raises
    ------
    InvalidArgument : a negative number of tokens, a window of none, or an overlap as large as the window
    """
    n_tokens = _whole("n_tokens", n_tokens, 0, None)
    window = _whole("window", window, 1, None)
    step = window - _whole("overlap", overlap, 0, window - 1)
    n_windows = 1 + max(0, -(-(n_tokens - window) // step)) if n_tokens else 0
    return [(at * step, min(at * step + window, n_tokens)) for at in range(n_windows)]


def join_windows(window_vectors: Sequence[Array], windows: Sequence[tuple[int, int]]) -> Array:
    """Token vectors of a text from those of its windows: where two overlap, the earlier one's are taken.

    Parameters
    ----------
    window_vectors : of each window (stop - start, dim), finite, without the special tokens around it
    windows : what :func:`long_late_windows` gave

    Returns
    -------
    ndarray : float32 (n_tokens, dim), what :func:`late_chunks` takes; (0, 0) for no windows

    Raises
    ------
    InvalidArgument : vectors of another number or shape, NaN or infinity, or windows that leave out tokens

    Notes
    -----
    Of a token in two windows the earlier vector stays, as in the paper: it knows all that the window has before it,
    where the later one, near the beginning of its window, would know what comes after.
    """
    if len(window_vectors) != len(windows):
        raise InvalidArgument(
            f"join_windows expects vectors of {len(windows)} windows, found those of {len(window_vectors)}; encode "
            "every window once"
        )
    parts: list[Array] = []
    done = 0
    for number, (made, (start, stop)) in enumerate(zip(window_vectors, windows, strict=True)):
        vectors = _checked_vectors(made)
        dim = parts[0].shape[1] if parts else vectors.shape[1]
        if vectors.shape != (stop - start, dim):
            raise InvalidArgument(
                f"window {number} expects vectors of shape {(stop - start, dim)}, found {vectors.shape}; leave out "
                "those of special tokens"
            )
        if not 0 <= start <= done < stop:
            raise InvalidArgument(
                f"window {number} expects to begin at token {done} or before and to end after it, found {start} to "
                f"{stop}; pass what long_late_windows gave"
            )
        parts.append(vectors[done - start :])
        done = stop
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _checked_vectors(vectors: Array) -> Array:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity
        try:
            out = np.asarray(vectors, np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"late chunking expects token vectors of shape (n, dim), found {type(vectors).__name__}; pass one array"
            ) from error
    if out.ndim != 2:
        raise InvalidArgument(
            f"late chunking expects token vectors of shape (n, dim), found shape {out.shape}; pass those of one text"
        )
    bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if len(bad):
        raise InvalidArgument(
            f"late chunking expects finite float32 tokens, found NaN or infinity in token {bad[0]}; leave it out with "
            "its span"
        )
    return out


def _checked_spans(spans: Array | Sequence[tuple[int, int]], n: int) -> tuple[Array, Array, Array]:
    """Starts and stops of the spans that are not empty, and which tokens they are of."""
    try:
        out = np.asarray(spans)
    except ValueError:  # pairs among other things
        out = np.empty(0)
    if n == 0 and out.size == 0:
        out = np.empty((0, 2), np.int64)
    if out.shape != (n, 2) or out.dtype.kind not in "iu":
        raise InvalidArgument(
            f"token_spans= expects a whole start and stop of each of {n} tokens, found shape {out.shape} of "
            f"{out.dtype}; return offsets with the tokens"
        )
    kept = np.flatnonzero(out[:, 0] != out[:, 1])
    starts, stops = out[kept].astype(np.int64).T
    wrong = np.flatnonzero((starts > stops) | (np.diff(starts, prepend=0) < 0) | (np.diff(stops, prepend=0) < 0))
    if len(wrong):
        raise InvalidArgument(
            f"token_spans= expects ascending spans (start, stop), found {tuple(out[kept[wrong[0]]].tolist())} as span "
            f"{kept[wrong[0]]}; pass the tokens in the order of the text"
        )
    return starts, stops, kept


def _whole(name: str, value: int, low: int, high: int | None) -> int:
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not fits or value < low or (high is not None and value > high):
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise InvalidArgument(f"{name}= expects a whole number of tokens {span}, found {value!r:.40}; use {low}")
    return int(value)
