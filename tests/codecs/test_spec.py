"""The grammar of codecs."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gingham.codecs.spec import parse_codec
from gingham.errors import InvalidArgument

CODECS = ["F32", "F16", "BF16", "SQ8", "LVQ4", "LVQ8", "LVQ4x4", "LVQ4x8", "LVQ8x4", "LVQ8x8", "Binary", "ITQ", "ITQ40"]
CODECS += [f"RaBitQ{bits}" for bits in range(1, 9)]
CODECS += ["PQ20x4fs", "PQ25x8", "PQ20x12", "PQ10x16", "RQ4x8"]
TRANSFORMS = ["Center", "PCA40", "MRL50", "Rotate", "Whiten", "LeanVec60"]


@pytest.mark.parametrize("spec", CODECS + [f"{name},LVQ8" for name in TRANSFORMS] + ["OPQ,PQ25x8"])
@pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
def test_a_spec_is_that_of_the_codec_it_makes(spec: str, metric: Any) -> None:
    if spec.startswith("Whiten") and metric == "l2":
        with pytest.raises(InvalidArgument, match="Whiten expects the metric"):
            parse_codec(spec, 100, metric)
        return
    codec = parse_codec(f" {spec.lower()} ".replace(",", " , "), 100, metric)
    assert codec.spec == spec
    assert codec.dim == 100
    assert codec.metric == metric


@given(st.lists(st.sampled_from(TRANSFORMS), max_size=4), st.sampled_from(CODECS))
def test_specs_of_many_parts_are_read_again(transforms: list[str], last: str) -> None:
    spec = ",".join([*transforms, last])
    try:
        codec = parse_codec(spec, 128, "cosine")
    except InvalidArgument as error:
        assert re.search(r"from 1 to \d+ dimensions|1 to \d+ bits|divide the \d+ dimensions", str(error))
        return
    assert codec.spec == parse_codec(codec.spec, 128, "cosine").spec == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "expects a spec such as .* found ''"), (None, "found None"), (8, "found 8"), ("  ", "found '  '"),
        ("LVQ", "a codec of the form LVQ4, .* found 'LVQ'"), ("LVQ5", "a codec of the form LVQ4, .* found 'LVQ5'"),
        ("RaBitQ9", "of the form RaBitQ1 or RaBitQ2 to RaBitQ8, found 'RaBitQ9'"),
        ("PCA,F32", r"a transform of the form PCA\{d\}, found 'PCA'"), ("PCA0,F32", "found 'PCA0'"),
        ("PCA-3,F32", "found 'PCA-3'"), ("PCA1e3,F32", "found"), ("PCA" + "9" * 9999 + ",F32", r"found 'PCA9+$"),
        ("PCA17,F32", "PCA expects from 1 to 16 dimensions, .* found 17"),
        ("PCA8,MRL9,F32", "MRL expects from 1 to 8 dimensions, .* found 9"),
        ("ITQ17", "expects 1 to 16 bits"), ("LQV8", "did you mean 'LVQ8'"), ("Centre,F32", "did you mean 'Center'"),
        ("PAC8,F32", "did you mean"), ("rabbitq4", "did you mean 'RaBitQ"), ("int8", "expects a codec, one of"),
        ("Rotate", "expects a codec after the transform 'Rotate', .* found none"),
        ("Center,PCA8", "expects a codec after the transform 'PCA8'"),
        ("LVQ8,LVQ8", "one codec, and that at its end, found a second codec after 'LVQ8'"),
        ("LVQ8,Rotate", "one codec, and that at its end, found something after 'LVQ8'"),
        ("Rotate,", "expects a codec, .* at its end, found none"), (",LVQ8", "expects a transform, .* found none"),
        ("OPQ,F32", "OPQ expects a product quantizer after it"), ("OPQ", "expects a codec after the transform 'OPQ'"),
        ("OPQ,Rotate,PQ4x8", "OPQ expects a product quantizer after it"), ("PQ8", "PQ{M}x4fs or PQ{M}x8, .* found 'PQ8'"),
        ("PQ17x8", "found 17"), ("PQ3x4fs", "found 3"), ("PQ0x8", "found 'PQ0x8'"), ("OPQ,PQ17x8", "found 17"),
        ("Rotate,,LVQ8", "before a comma, found none"), ("F٣2", "found"), ("ＬＶＱ8", "found"), ("Rotate;F32", "found"),
    ],
)  # fmt: skip
def test_what_is_no_spec_is_refused_in_one_sentence(spec: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        parse_codec(spec, 16, "dot")
    assert len(str(caught.value)) < 400


@given(
    st.text(max_size=20)
    | st.text(st.sampled_from("LVQRaBitPCAMFIT8416x,0 -é"), max_size=12)
    | st.lists(st.sampled_from([*TRANSFORMS, *CODECS, "", "PCA", "x4", "0"]), max_size=5).map(",".join)
)
def test_any_text_is_a_codec_or_a_clear_error(text: str) -> None:
    try:
        assert parse_codec(text, 64, "l2").dim == 64
    except InvalidArgument as error:
        assert "expects" in str(error)


def test_parsing_compiles_nothing() -> None:
    code = (
        "import sys; from gingham.codecs.spec import parse_codec\n"
        f"for spec in {CODECS + [f'{name},F32' for name in TRANSFORMS]}: parse_codec(spec, 100, 'dot')\n"
        "print('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
