"""A database behind gRPC, also with TLS and a key, and the certificates of a test authority, made once."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import gingham as gg
from gingham.server import keys
from gingham.server.keys import create_key
from gingham.server.main import Server
from gingham.server.tls import TlsFiles
from library import filled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """Makes certificates in a folder; its own is ``ca``."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """Certificate and key of a host."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        signer = [] if name == "ca" else ["-CA", str(self.ca), "-CAkey", str(self.folder / "ca.key")]
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={host}", "-keyout", str(key), "-out", str(cert),
                *signer,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        return cert, key


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificates of the tests")
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("ca")
    made.issue("server")
    made.issue("client")
    return made


@pytest.fixture
def both(db: gg.Database) -> Iterator[tuple[Any, Any]]:
    """An embedded database and a connection to it."""
    with Server(db, listen="127.0.0.1:0", max_workers=2) as server, gg.open(f"grpc://{server.address}") as remote:
        yield db, remote


@pytest.fixture
def secured(db: gg.Database, authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A connection to it over TLS, with a key."""
    monkeypatch.setattr(keys, "SCRYPT_N", 1 << 8)
    token, _ = create_key(tmp_path / "keys", scope="admin")
    tls = TlsFiles(authority.folder / "server.pem", authority.folder / "server.key")
    with (
        Server(db, listen="127.0.0.1:0", max_workers=2, tls=tls, keys=tmp_path / "keys") as server,
        gg.open(server.url, token=token, tls_ca=authority.ca) as remote,
    ):
        yield remote


@pytest.fixture(params=["embedded", "grpc", "grpcs"])
def either(request: pytest.FixtureRequest, db: gg.Database) -> Any:
    """One of the three: a test that takes it runs with each."""
    if request.param == "embedded":
        return db
    return request.getfixturevalue("secured") if request.param == "grpcs" else request.getfixturevalue("both")[1]


@pytest.fixture
def docs(either: Any) -> Any:
    return filled(either)
