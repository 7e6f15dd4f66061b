"""The gRPC interface: its comments, its stubs, and messages of older ones."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import gingham as gg
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.queries import QueryTrees

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "server" / "proto"


def test_every_element_of_the_interface_has_a_comment_and_enums_begin_with_nothing() -> None:
    lines = [line.strip() for line in (PROTO / "gingham/v1/gingham.proto").read_text("utf-8").splitlines()]
    for before, line in pairwise(lines):
        if re.match(r"(message|enum|service|rpc|oneof)\b|[\w<>, .]+ \w+ = \d+;", line):
            assert before.startswith("//"), line
    for enum in pb.DESCRIPTOR.enum_types_by_name.values():
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"


def test_the_stubs_are_those_of_the_interface(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    generator = ROOT / ".venv" / "proto" / "bin" / "python"
    exact = generator.exists()
    command = [
        str(generator) if exact else sys.executable, "-m", "grpc_tools.protoc",
        f"-Igingham/server/proto={PROTO / 'gingham/v1'}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}",
        f"--pyi_out={tmp_path}", "gingham/server/proto/gingham.proto",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "gingham/server/proto").iterdir()}
    if exact:
        assert made == {path.name: path.read_text() for path in PROTO.glob("*_pb2*")}
        return
    # Another version of the generator writes other code around the same description.
    described = re.compile(r"AddSerializedFile\((b'.*')\)")
    committed = (PROTO / "gingham_pb2.py").read_text()
    assert described.findall(made["gingham_pb2.py"]) == described.findall(committed)


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("SearchRequest", "0a04646f6373120f0a080000803f0000004010021a0102200a2a2412227b226f70223a202269735f6e756c6c222c20226669656c64223a202279656172227d320564656e73654200"),
        ("SearchResponse", "0a0f0a02736112040000803f18012201771201702801321b0a0673656172636819000000000000e03f20032a060a046e656172"),
        ("UpsertRequest", "0a04646f6373120172"),
    ],
)  # fmt: skip
def test_messages_of_the_first_stubs_are_still_read(kind: str, written: str) -> None:
    read = getattr(pb, kind).FromString(bytes.fromhex(written))
    assert read.SerializeToString() == bytes.fromhex(written)
    if kind == "SearchRequest":
        assert (read.collection, read.k, list(read.vectors.shape), read.using) == ("docs", 10, [2], "dense")
        assert read.HasField("fields")
    elif kind == "SearchResponse":
        assert (read.results[0].ids, read.results[0].scores, read.explanation.steps[0].name) == (
            [b"sa"],
            b"\0\0\x80?",
            "near",
        )
    else:
        assert (read.collection, read.rows) == ("docs", b"r")


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("QueryRequest", "0a04646f63731286025a83020afc0152f9010aee014aeb010ad60142d3010ac50132c2010ab6013ab3010a5f2a5d0a1c0a1a0a0564656e7365120b0a040000803f10021a01012005320220030a0f120d0a04626f6479120372656418020a101a0e120c0a040700000012040000803f0a0f220d0a040a0273611a0564656e73651209090000000000004e401250224e0a0312016e0a342a320a090900000000000000400a2532231a21121f7b226f70223a202269735f6e756c6c222c20226669656c64223a20226e227d0a113a0f0a026f6e110000000000002240180112070a056e203e203111000000000000e03f2009120e120c0a040000803f10021a020101180712046c616e671802100418011801"),
        ("ScanRequest", "0a04646f63731a016e3809"),
        ("FacetsRequest", "0a04646f637312016e2800"),
        ("RecallRequest", "0a04646f6373100118022a0564656e7365"),
        ("ScanResponse", "0a0172"),
        ("MaintainRequest", "100119000000000000e03f"),
        ("AddFieldRequest", "0a04646f6373120180"),
        ("UpdateRequest", "0a04646f63731201721801220173"),
        ("GetRequest", "0a04646f637312040a0273612a026162"),
        ("ReindexRequest", "0a04646f6373120564656e73651a0022044c56513829000000000000e03f"),
        ("WriteBatchRequest", "0a0d0a0b0a04646f637312017218010a0e1a0c0a04646f637312040a027361"),
        ("IngestRequest", "120708031201721801"),
        ("IngestHeader", "0a04646f637312016a1801"),
        ("IngestResponse", "080310091a0408021001"),
        ("DeleteRequest", "0a04646f637312040a027361220171"),
        ("ExpandNode", "0a05120312017810021a017022016f"),
        ("ResultSet", "0a0273610a0273623a003a027361"),
    ],
)  # fmt: skip
def test_messages_of_later_stubs_are_still_read(kind: str, written: str) -> None:
    read = getattr(pb, kind).FromString(bytes.fromhex(written))
    assert read.SerializeToString(deterministic=True).hex() == written
    if kind == "QueryRequest":
        query = QueryTrees().of(read.queries[0])
        names = []
        while not isinstance(query, gg.query.nodes.Fuse):
            names.append(type(query).__name__)
            query = query.child
        assert names == ["Limited", "Grouped", "Reranked", "Diversified", "Filtered", "Boosted"]
        near, match, sparse, like = query.branches
        assert (near.field, near.k, near.query.tolist(), near.effort.nprobe) == ("dense", 5, [1.0], 3)
        assert (match.field, match.text, match.operator) == ("body", "red", "all")
        assert [one.tolist() for one in sparse.query] == [[7], [1.0]]
        assert (like.ids, like.field) == ((b"sa",), "dense")
