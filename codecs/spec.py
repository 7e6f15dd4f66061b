"""The grammar of codecs: ``spec = { transform "," } codec``, such as ``"PCA128,LVQ8"`` or ``"Center,Rotate,SQ8"``.

Names are those of the tables below; letters may be of either case, blanks around commas are ignored. Modules of codecs
are imported when a spec names them, and their kernels when they are used, so that parsing is cheap.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.protocol import Codec, Transform
    from gingham.schema import Metric

_N = r"([1-9]\d{0,5})"
"""A number as specs write it: without leading zeros, of at most six digits."""


class _Place(NamedTuple):
    """Where a part stands: the dimensions and the metric that it meets, its match and the part that follows."""

    dim: int
    metric: Metric
    match: re.Match[str]
    after: str


@dataclass(frozen=True)
class _Name:
    """One row of a table.

    Attributes
    ----------
    name : the letters it begins with
    shown : its forms, as errors list them
    pattern : of the whole part
    module, kind : the class, in ``gingham.codecs``
    arguments : what the class takes, from where the part stands
    keeps_length : of a transform, whether vectors and queries of length one stay so
    rows : of a codec, whether :meth:`gingham.codecs.protocol.Codec.row_scores` gives something
    spans : of a codec without, whether it is a :class:`gingham.codecs.protocol.SpanCodec`
    """

    name: str
    shown: str
    pattern: str
    module: str
    kind: str
    arguments: Callable[[_Place], tuple[Any, ...]]
    keeps_length: bool = False
    rows: bool = False
    spans: bool = False

    def make(self, place: _Place) -> Any:
        return getattr(import_module(f"gingham.codecs.{self.module}"), self.kind)(*self.arguments(place))


def _plain(at: _Place) -> tuple[Any, ...]:
    return at.dim, at.metric


def _numbered(at: _Place) -> tuple[Any, ...]:
    return at.dim, at.metric, int(at.match[1])


def _kind(at: _Place) -> tuple[Any, ...]:
    return at.dim, at.metric, at.match[0].upper()


def _itq(at: _Place) -> tuple[Any, ...]:
    return at.dim, at.metric, int(at.match[1] or 0), True


def _lvq(at: _Place) -> tuple[Any, ...]:
    return at.dim, at.metric, int(at.match[1]), int(at.match[2] or 0)


def _pq(at: _Place) -> tuple[Any, ...]:
    return at.dim, at.metric, int(at.match[1]), int(at.match[2])


def _opq(at: _Place) -> tuple[Any, ...]:
    """OPQ shares the sub-spaces of the quantizer that follows."""
    quantizer = re.fullmatch(f"PQ{_N}x(4fs|(?:8|12|16)n?)", at.after, re.IGNORECASE | re.ASCII)
    if quantizer is None:
        raise InvalidArgument(f"OPQ expects a product quantizer after it, such as 'OPQ,PQ48x8', found {at.after!r:.40}")
    return at.dim, int(quantizer[1]), 16 if quantizer[2].lower() == "4fs" else 256


_CODECS = (
    _Name("F", "F32", "F32", "scalar", "Float", _kind, rows=True),
    _Name("F", "F16", "F16", "scalar", "Float", _kind, rows=True),
    _Name("BF", "BF16", "BF16", "scalar", "Float", _kind, rows=True),
    _Name("SQ", "SQ8", "SQ8", "scalar", "SQ8", _plain, rows=True),
    _Name("LVQ", "LVQ4, LVQ8, LVQ4x4, LVQ4x8, LVQ8x4, LVQ8x8", "LVQ([48])(?:x([48]))?", "lvq", "LVQ", _lvq, rows=True),
    _Name("RaBitQ", "RaBitQ1", "RaBitQ1", "rabitq_blocks", "RaBitQBlocks", _plain, spans=True),
    _Name("RaBitQ", "RaBitQ2 to RaBitQ8", "RaBitQ([2-8])", "rabitq", "RaBitQ", _numbered, rows=True),
    _Name("Binary", "Binary", "Binary", "binary", "Binary", _plain),
    _Name("ITQ", "ITQ, ITQ{bits}", f"ITQ{_N}?", "binary", "Binary", _itq),
    _Name("PQ", "PQ{M}x4fs", f"PQ{_N}x4fs", "fast_scan", "FastScan", _numbered, spans=True),
    _Name("PQ", "PQ{M}x8, PQ{M}x12, PQ{M}x16", f"PQ{_N}x(8|12|16)", "product", "ProductQuantizer", _pq),
    _Name("PQ", "PQ{M}x8n, PQ{M}x12n, PQ{M}x16n", f"PQ{_N}x(8|12|16)n", "norm_split", "NormSplit", _pq),
    _Name("RQ", "RQ{M}x8", f"RQ{_N}x8", "residual", "ResidualQuantizer", _numbered),
)
_TRANSFORMS = (
    _Name("Center", "Center", "Center", "transforms", "Center", _plain),
    _Name("PCA", "PCA{d}", f"PCA{_N}", "transforms", "PCA", _numbered),
    _Name("MRL", "MRL{d}", f"MRL{_N}", "transforms", "MRL", _numbered, keeps_length=True),
    _Name("Rotate", "Rotate", "Rotate", "rotation", "Rotate", lambda at: (at.dim,), keeps_length=True),
    _Name("Whiten", "Whiten", "Whiten", "transforms", "Whiten", lambda at: (at.dim, at.metric, at.dim)),
    _Name("OPQ", "OPQ", "OPQ", "opq", "OPQ", _opq, keeps_length=True),
    _Name("LeanVec", "LeanVec{d}", f"LeanVec{_N}", "transforms", "LeanVec", _numbered),
)


def parse_codec(spec: str, dim: int, metric: Metric) -> Codec:
    """Make an untrained codec.

    Parameters
    ----------
    spec : one line of the grammar
    dim : dimensions of the vectors it is for
    metric : what its scores are to estimate

    Raises
    ------
    InvalidArgument : the line is no spec, or does not fit the dimensions or the metric

    Notes
    -----
    Under cosine, vectors after a transform that does not keep lengths are no longer of length one; what follows is
    made for dot, which takes vectors of any length and has the same scores.
    """
    if not isinstance(spec, str) or not spec.strip():
        raise InvalidArgument(f"a codec expects a spec such as 'LVQ8' or 'PCA128,LVQ8', found {spec!r:.80}")
    parts = [part.strip() for part in spec.split(",")]
    transforms: list[Transform] = []
    inner: Metric = metric
    for number, part in enumerate(parts[:-1]):
        found, match = _found(_TRANSFORMS, part)
        if found is None or match is None:
            raise _refused(spec, number, parts)
        at = _Place(transforms[-1].out_dim if transforms else dim, inner, match, parts[number + 1])
        transforms.append(found.make(at))
        if inner == "cosine" and not found.keeps_length:
            inner = "dot"
    found, match = _found(_CODECS, parts[-1])
    if found is None or match is None:
        raise _refused(spec, len(parts) - 1, parts)
    codec: Codec = found.make(_Place(transforms[-1].out_dim if transforms else dim, inner, match, ""))
    if not transforms:
        return codec
    from gingham.codecs.pipeline import Pipeline

    return Pipeline(metric, tuple(transforms), codec)


def has_rows(spec: str) -> bool:
    """Whether the codec of a spec, which :func:`parse_codec` takes, has rows that are scored one by one.

    Notes
    -----
    A graph needs them: it comes to rows in any order.
    """
    found, _ = _found(_CODECS, spec.rpartition(",")[2].strip())
    return found is not None and found.rows


def scans_lists(spec: str) -> bool:
    """Whether the codec of a spec, which :func:`parse_codec` takes, scans spans of rows, as lists are."""
    found, _ = _found(_CODECS, spec.rpartition(",")[2].strip())
    return found is not None and (found.rows or found.spans)


def _found(names: tuple[_Name, ...], part: str) -> tuple[_Name | None, re.Match[str] | None]:
    for name in names:
        match = re.fullmatch(name.pattern, part, re.IGNORECASE | re.ASCII)
        if match:
            return name, match
    return None, None


def _refused(spec: str, number: int, parts: list[str]) -> InvalidArgument:
    """Why part ``number`` is not what should stand there."""
    part, last = parts[number], number == len(parts) - 1
    names, what = (_CODECS, "codec") if last else (_TRANSFORMS, "transform")
    start = f"codec {spec!r:.80} expects "
    shown = ", ".join(name.shown for name in names)
    if not part:
        return InvalidArgument(
            f"{start}a {what}, one of {shown}, {'at its end' if last else 'before a comma'}, found none"
        )
    if last and _found(_TRANSFORMS, part)[0]:
        return InvalidArgument(f"{start}a codec after the transform {part!r:.40}, one of {shown}, found none")
    if not last and _found(_CODECS, part)[0]:
        second = "a second codec" if _found(_CODECS, parts[number + 1])[0] else "something"
        return InvalidArgument(f"{start}one codec, and that at its end, found {second} after {part!r:.40}")
    every = _TRANSFORMS + _CODECS
    letters = (re.match("[A-Za-z]*", part) or [""])[0].lower()
    forms = [name.shown for name in every if letters == name.name.lower()]
    if forms:
        return InvalidArgument(f"{start}a {what} of the form {' or '.join(forms)}, found {part!r:.40}")
    words = {word.lower(): word for name in every for word in (name.name, *name.shown.split(", "))}
    near = difflib.get_close_matches(part.lower(), words, n=1) or difflib.get_close_matches(letters, words, n=1)
    hint = f"; did you mean {words[near[0]]!r}?" if near else ""
    return InvalidArgument(f"{start}a {what}, one of {shown}, found {part!r:.40}{hint}")
