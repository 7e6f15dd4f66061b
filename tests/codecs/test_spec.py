"""The grammar of codecs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gingham.codecs.spec import parse_codec
from gingham.errors import InvalidArgument


@pytest.mark.parametrize(
    "spec", ["F32", "F16", "BF16", "SQ8", "LVQ4", "LVQ8", "LVQ4x8", "LVQ8x4", "RaBitQ1", "RaBitQ7"]
)
def test_a_spec_is_that_of_the_codec_it_makes(spec: str) -> None:
    codec = parse_codec(spec.lower(), 100, "dot")
    assert codec.spec == spec
    assert codec.dim == 100


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "found ''"), (None, "found None"), (8, "found 8"), ("LVQ", "found 'LVQ'"), ("LVQ5", "did you mean 'LVQ"),
        ("RaBitQ9", "found 'RaBitQ9'"), ("Rotate", "a codec has to follow it"),
        ("LVQ8,LVQ8", "the codec stands last"), ("Rotate,", "found ''"), (",LVQ8", "expects a transform"),
        ("F٣2", "found"),
    ],
)  # fmt: skip
def test_what_is_no_spec_is_refused_in_one_sentence(spec: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_codec(spec, 16, "l2")


@given(st.text(st.sampled_from("LVQRaBitPF8416x,0 -é"), max_size=12))
def test_any_text_is_a_codec_or_a_clear_error(text: str) -> None:
    try:
        assert parse_codec(text, 32, "cosine").dim == 32
    except InvalidArgument as error:
        assert "expects" in str(error)
