"""The grammar of codecs: ``spec = transform "," ... codec``, such as ``"PCA128,LVQ8"`` or ``"OPQ,PQ48x8"``.

Names are those of the table below; letters may be of either case, blanks around commas are ignored.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gingham.codecs.protocol import Codec, Transform
    from gingham.schema import Metric


@dataclass(frozen=True)
class _Name:
    """One row of the table.

    Attributes
    ----------
    shown : as the documentation writes it
    pattern : of the whole part
    make : from the dimensions, the metric, the match and the part that follows to the codec or transform
    """

    shown: str
    pattern: str
    make: Callable[[int, Metric, re.Match[str], str], Any]


def _class(module: str, name: str) -> Any:
    return getattr(import_module(f"gingham.codecs.{module}"), name)


def _float(dim: int, metric: Metric, match: re.Match[str], after: str) -> Codec:
    codec: Codec = _class("scalar", "Float")(dim, metric, match[0].upper())
    return codec


def _sq(dim: int, metric: Metric, match: re.Match[str], after: str) -> Codec:
    codec: Codec = _class("scalar", "SQ8")(dim, metric)
    return codec


def _lvq(dim: int, metric: Metric, match: re.Match[str], after: str) -> Codec:
    codec: Codec = _class("lvq", "LVQ")(dim, metric, int(match[1]), int(match[2] or 0))
    return codec


def _rabitq(dim: int, metric: Metric, match: re.Match[str], after: str) -> Codec:
    codec: Codec = _class("rabitq", "RaBitQ")(dim, metric, int(match[1]))
    return codec


def _pq(dim: int, metric: Metric, match: re.Match[str], after: str) -> Codec:
    codec: Codec = _class("product", "ProductQuantizer")(dim, metric, int(match[1]), int(match[2]))
    return codec


def _table(module: str, name: str) -> Callable[[int, Metric, re.Match[str], str], Codec]:
    def make(dim: int, metric: Metric, match: re.Match[str], after: str) -> Codec:
        codec: Codec = _class(module, name)(dim, metric, int(match[1]))
        return codec

    return make


_CODECS = (
    _Name("F32", "F32", _float),
    _Name("F16", "F16", _float),
    _Name("BF16", "BF16", _float),
    _Name("SQ8", "SQ8", _sq),
    _Name("LVQ4, LVQ8, LVQ4x8", r"LVQ([48])(?:x([48]))?", _lvq),
    _Name("RaBitQ1 to RaBitQ8", r"RaBitQ([1-8])", _rabitq),
    _Name("PQ48x8, PQ{M}x{8|12|16}", r"PQ([1-9]\d{0,4})x(8|12|16)", _pq),
    _Name("FSQ48, FSQ{bytes}", r"FSQ([1-9]\d{0,4})", _table("mixed_radix", "MixedRadix")),
    _Name("RQ16x8, RQ{M}x8", r"RQ([1-9]\d{0,2})x8", _table("residual", "ResidualQuantizer")),
    _Name("GS48x8, GS{M}x8", r"GS([1-9]\d{0,4})x8", _table("gain_shape", "GainShape")),
)


def _opq(dim: int, metric: Metric, match: re.Match[str], after: str) -> Transform:
    quantizer = re.fullmatch(r"PQ(\d{1,5})x(4fs|8|12|16).*", after, re.IGNORECASE | re.ASCII)
    if quantizer is None:
        raise InvalidArgument(f"OPQ expects a product quantizer after it, such as 'OPQ,PQ48x8', found {after!r:.40}")
    transform: Transform = _class("opq", "OPQ")(dim, int(quantizer[1]), 16 if quantizer[2].lower() == "4fs" else 256)
    return transform


_TRANSFORMS: tuple[_Name, ...] = (
    _Name("Rotate", "Rotate", lambda dim, *_: _class("rotation", "Rotate")(dim)),
    _Name("OPQ", "OPQ", _opq),
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
    """
    if not isinstance(spec, str) or not spec.strip():
        raise InvalidArgument(f"a codec expects a spec such as 'LVQ8' or 'PCA128,LVQ8', found {spec!r:.80}")
    parts = [part.strip() for part in spec.split(",")]
    transforms: list[Transform] = []
    for number, part in enumerate(parts[:-1]):
        inner = transforms[-1].out_dim if transforms else dim
        transforms.append(_made(_TRANSFORMS, "transform", spec, part, inner, metric, parts[number + 1]))
    codec: Codec = _made(_CODECS, "codec", spec, parts[-1], transforms[-1].out_dim if transforms else dim, metric, "")
    if not transforms:
        return codec
    pipeline: Codec = _class("pipeline", "Pipeline")(tuple(transforms), codec)
    return pipeline


def _made(names: Sequence[_Name], what: str, spec: str, part: str, dim: int, metric: Metric, after: str) -> Any:
    for name in names:
        match = re.fullmatch(name.pattern, part, re.IGNORECASE | re.ASCII)
        if match:
            return name.make(dim, metric, match, after)
    shown = ", ".join(name.shown for name in names)
    others = _CODECS if names is _TRANSFORMS else _TRANSFORMS
    if any(re.fullmatch(name.pattern, part, re.IGNORECASE | re.ASCII) for name in others):
        order = "the codec stands last, after its transforms" if what == "transform" else "a codec has to follow it"
        raise InvalidArgument(f"codec {spec!r:.80} expects a {what} in place of {part!r:.40}: {order}")
    words = re.findall(r"[A-Za-z][\w{}]*", shown)
    near = difflib.get_close_matches(part, words, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidArgument(f"codec {spec!r:.80} expects a {what}, one of {shown}, found {part!r:.40}{hint}")
