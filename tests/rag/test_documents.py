"""Documents with metadata of any shape: stored, found, and filtered as plain Python would."""

from __future__ import annotations

import operator
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.clients.rag.documents import DocumentCollection, StoredDocument
from gingham.clients.rag.haystack_filters import haystack_filter
from gingham.clients.rag.langchain_filters import langchain_filter
from gingham.errors import InvalidArgument, SchemaMismatch

if TYPE_CHECKING:
    from pathlib import Path

ORDER = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
SIGNS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
LIMITS: list[Any] = [1, 1.0, 2.5, -3, 2**70, 0, "x", "", "2024-01-05", "2024-03-01T10:00:00Z", "y", True, False]
KEYS = ["a", "n", "a.b", "a.c.d", "other key.ü", "absent"]


def value_of(metadata: dict[str, Any], key: str) -> Any:
    if key in metadata:
        return metadata[key]
    first, _, rest = key.partition(".")
    return value_of(metadata[first], rest) if rest and isinstance(metadata.get(first), dict) else None


def instant(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def same(one: Any, other: Any) -> bool:
    return (type(one) is bool) == (type(other) is bool) and one == other


def meets(metadata: dict[str, Any], key: str, op: str, limit: Any) -> bool:
    """What a condition of LangChain's dicts says of plain metadata."""
    value = value_of(metadata, key)
    if op in ("ne", "nin"):
        return not meets(metadata, key, {"ne": "eq", "nin": "in"}[op], limit)
    if op == "eq":
        return same(value, limit)
    if op == "in":
        return any(same(value, one) for one in limit)
    if op == "exists":
        return (value is not None) == limit
    if op == "contains":
        return isinstance(value, list) and any(same(one, limit) for one in value)
    if (
        type(value) is bool
        or isinstance(value, str) != isinstance(limit, str)
        or not isinstance(value, (str, int, float))
    ):
        return False
    return bool(ORDER[op](value, limit))


def conditions() -> st.SearchStrategy[tuple[str, str, Any]]:
    limits = st.sampled_from(LIMITS)
    return st.tuples(st.sampled_from(KEYS), st.just("op"), st.just(None)).flatmap(
        lambda start: st.one_of(
            st.tuples(st.just(start[0]), st.sampled_from(["eq", "ne"]), st.one_of(limits, st.none())),
            st.tuples(st.just(start[0]), st.sampled_from(sorted(ORDER)), limits.filter(lambda x: type(x) is not bool)),
            st.tuples(st.just(start[0]), st.sampled_from(["in", "nin"]), st.lists(limits, max_size=3)),
            st.tuples(st.just(start[0]), st.just("exists"), st.booleans()),
            st.tuples(st.just(start[0]), st.just("contains"), st.sampled_from([1, "x", "y", 7])),
        )
    )


@pytest.fixture
def filled(db: gg.Database, metadatas: list[dict[str, Any]]) -> DocumentCollection:
    documents = DocumentCollection(db)
    documents.write([StoredDocument(f"{at:02}", "text", meta) for at, meta in enumerate(metadatas)])
    return documents


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=conditions(), second=conditions(), joined=st.sampled_from(["$and", "$or", "$not"]))
def test_dicts_of_langchain_select_what_plain_python_selects(
    filled: DocumentCollection, metadatas: list[dict[str, Any]], first: Any, second: Any, joined: str
) -> None:
    both = [{key: {f"${op}": limit}} for key, op, limit in (first, second)]
    join = {"$and": all, "$or": any, "$not": lambda truths: not any(truths)}[joined]
    expected = [at for at, meta in enumerate(metadatas) if join([meets(meta, *first), meets(meta, *second)])]
    assert [int(d.id) for d in filled.scan(langchain_filter({joined: both}))] == expected


@pytest.mark.parametrize("sign", [*SIGNS, "==", "!=", "in", "not in"])
def test_filters_of_haystack_select_what_plain_python_selects(
    filled: DocumentCollection, metadatas: list[dict[str, Any]], sign: str
) -> None:
    def says(metadata: dict[str, Any], key: str, limit: Any) -> bool:
        value = value_of(metadata, key)
        if sign in SIGNS:
            if isinstance(limit, str):
                found, wanted = instant(value), instant(limit)
                return found is not None and wanted is not None and bool(ORDER[SIGNS[sign]](found, wanted))
            return limit is not None and meets(metadata, key, SIGNS[sign], limit)
        limits = limit if isinstance(limit, list) else [limit]
        equal = any(
            same(value, one) or (instant(value) is not None and instant(value) == instant(one)) for one in limits
        )
        return equal == (sign in ("==", "in"))

    refused = 0
    for key in KEYS:
        for one in (*LIMITS, None):
            limit = [one, "x"] if "in" in sign else one
            try:
                node = haystack_filter({"field": f"meta.{key}", "operator": sign, "value": limit})
            except InvalidArgument:
                assert sign in SIGNS
                assert type(one) is bool or (isinstance(one, str) and instant(one) is None)
                refused += 1
                continue
            expected = [at for at, meta in enumerate(metadatas) if says(meta, key, limit)]
            assert [int(d.id) for d in filled.scan(node)] == expected, (key, limit)
    assert bool(refused) == (sign in SIGNS)


def test_documents_come_back_as_they_were_written(target: Any, metadatas: list[dict[str, Any]]) -> None:
    documents = DocumentCollection(target)
    assert (documents.get(["a"]), documents.scan(), documents.count(), documents.delete(ids=["a"])) == ([], [], 0, 0)
    assert documents.search(k=3, vector=[1.0], text="x", mode="hybrid") == []
    given = [StoredDocument(f"{at:02}", None, meta, None, {"at": at}) for at, meta in enumerate(metadatas)]
    documents.write(given)
    assert documents.scan() == given
    documents.write([StoredDocument("new", "pears", {"later": 2}, [0.0, 1.0])])  # adds a column and the vector field
    ((found, score),) = documents.search(k=5, vector=[0.0, 2.0], include_vectors=True)
    assert (found.id, found.metadata, score) == ("new", {"later": 2}, 1.0)
    assert found.vector.tolist() == [0.0, 1.0]
    assert documents.delete(ids=["new", "absent"]) == 1


def test_two_writers_may_add_the_same_keys(db: gg.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = DocumentCollection(db), DocumentCollection(db)
    one.write([StoredDocument("a", "x")])
    collection = other._existing()
    add = collection.add_field

    def late(name: str, field: gg.Int) -> None:
        add(name, field)  # somebody else was faster
        add(name, field)

    monkeypatch.setattr(collection, "add_field", late)
    other.write([StoredDocument("b", "y", {"k": 1})])
    assert [d.id for d in one.scan(langchain_filter({"k": 1}))] == ["b"]


def test_a_collection_made_otherwise_is_read_and_filtered_by_its_own_fields(docs: gg.Collection) -> None:
    X = np.eye(8, dtype=np.float32)
    docs.upsert(
        ids=["a", "b"],
        vectors={"dense": X[:2]},
        fields={"title": ["One", "Two"], "year": [2020, 2021], "tags": [["x"], None]},
    )
    documents = DocumentCollection(docs, text_field="title", vector_field="dense")
    assert documents.stored_metric() == "cosine"
    ((found, _),) = documents.search(k=2, vector=X[0], where=langchain_filter({"year": {"$lte": 2020.5}}))
    assert (found.text, found.metadata) == ("One", {"year": 2020, "tags": ["x"]})
    assert [d.id for d in documents.scan(langchain_filter({"tags": {"$contains": "x"}}))] == ["a"]
    assert [d.id for d in documents.scan(langchain_filter({"tags": {"$exists": False}}))] == ["b"]
    assert documents.count(gg.F.year > 2020) == 1
    assert docs.schema.fields.keys() == {"year", "lang", "title", "tags"}


def test_a_path_is_opened_and_closed(tmp_path: Path) -> None:
    with DocumentCollection(str(tmp_path / "db"), metric="l2") as documents:
        documents.write([StoredDocument("a", "x", {}, [1.0])])
        assert documents.stored_metric() == "l2"
    with gg.open(tmp_path / "db") as db:
        assert db["documents"].count() == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.write([StoredDocument("a", "x", {1: 2})]),
        lambda d: d.write([StoredDocument("a", "x", {"t": datetime.now(UTC)})]),
        lambda d: d.search(k=1, mode="dense"),
        lambda d: d.search(k=1, text="x", mode="both"),
        lambda d: DocumentCollection(7),
        lambda d: langchain_filter({"a": {"$regex": "x"}}),
        lambda d: langchain_filter({"a": {"b": 1}}),
        lambda d: langchain_filter({"$nor": []}),
        lambda d: langchain_filter({"a": [1]}),
        lambda d: langchain_filter({"a": {"$gt": True}}),
        lambda d: langchain_filter({"a": {"$contains": 0.5}}),
        lambda d: haystack_filter({"field": "embedding", "operator": "==", "value": 1}),
        lambda d: haystack_filter({"field": "meta.a", "operator": "~", "value": 1}),
    ],
)
def test_what_cannot_be_is_one_error(db: gg.Database, call: Any) -> None:
    documents = DocumentCollection(db)
    with pytest.raises((InvalidArgument, SchemaMismatch), match=r"expects?"):
        call(documents)


def test_frameworks_are_imported_by_their_modules_alone_and_missing_ones_are_named() -> None:
    code = """
import sys
import gingham.clients.rag, gingham.clients.rag.documents
import gingham.clients.rag.langchain_filters, gingham.clients.rag.haystack_filters, gingham.clients.rag.llama_index_filters
frameworks = {"langchain": "langchain_core", "llama_index": "llama_index", "haystack": "haystack", "dspy": "dspy", "mcp": "mcp"}
assert not set(frameworks.values()) & set(sys.modules)
sys.modules.update(dict.fromkeys(frameworks.values()))  # as if they were not installed
for module, name in frameworks.items():
    try:
        __import__(f"gingham.clients.rag.{module}")
    except ImportError as error:
        print(type(error).__name__, str(error).rpartition("run: ")[2])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    extras = ["langchain", "llama-index", "haystack", "dspy", "mcp"]
    assert out.splitlines() == [f"MissingExtra pip install 'gingham[{extra}]'" for extra in extras]
