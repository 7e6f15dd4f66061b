"""What a client shows a server, and what it expects of it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    import os

PLAIN, ENCRYPTED = "grpc://", "grpcs://"


@dataclass(frozen=True)
class Credentials:
    """How a connection is secured.

    Attributes
    ----------
    token : key that ``gingham keys create`` showed, or None
    ca : PEM file of authorities, one of which must have signed the server's certificate; None takes those of gRPC
    cert, key : PEM files of the client's own certificate and private key, where the server asks for them
    """

    token: str | None = field(default=None, repr=False)
    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What travels with each call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def check(self, scheme: str, host: str) -> None:
        """Raise InvalidArgument where they do not fit an address: a token is never sent where others can read it."""
        if self.token is not None and not (
            isinstance(self.token, str) and self.token.isascii() and self.token.isprintable()
        ):
            raise InvalidArgument("open(token=) expects what `gingham keys create` showed, found something else")
        if (self.cert is None) != (self.key is None):
            raise InvalidArgument("open(tls_cert=, tls_key=) expects both or neither, found one of them")
        if scheme == ENCRYPTED:
            return
        if self.ca is not None or self.cert is not None:
            raise InvalidArgument(
                "open(tls_ca=, tls_cert=, tls_key=) expects an address grpcs://HOST:PORT, found grpc://"
            )
        if self.token is not None and not on_this_machine(host):
            raise InvalidArgument(
                f"open(token=) expects TLS to another machine, found grpc://{host:.60}; open grpcs://HOST:PORT, since "
                "a key that travels unencrypted is anyone's"
            )

    def channel(self, scheme: str, address: str, options: list[tuple[str, Any]]) -> grpc.Channel:
        """A connection; raises InvalidArgument where they do not fit the address, or a file cannot be read."""
        host = address.rpartition(":")[0]
        self.check(scheme, host)
        if scheme == PLAIN:
            if on_this_machine(host):
                options = [*options, ("grpc.enable_http_proxy", 0)]  # what is not encrypted stays on this machine
            return grpc.insecure_channel(address, options=options)
        try:
            ca, key, cert = (
                None if path is None else Path(path).read_bytes() for path in (self.ca, self.key, self.cert)
            )
        except OSError as error:
            raise InvalidArgument(
                f"open(tls_ca=, tls_cert=, tls_key=) expects PEM files, found {error.strerror} at {error.filename}"
            ) from None
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), options=options)


def tls_advice(url: str, details: str) -> str:
    """What to do where a connection ended in its handshake; empty where it did not."""
    if url.startswith(PLAIN):
        return ""
    if "CERTIFICATE_VERIFY_FAILED" in details or "ostname" in details:
        return f"{details}; name the file of its authority with tls_ca=, and the server as its certificate does"
    if any(word in details for word in ("SSL", "Ssl", "ssl", "handshak", "Handshak")):
        return f"{details}; is it served with --tls-cert, and does it expect a certificate (tls_cert=, tls_key=)?"
    return ""


def on_this_machine(host: str) -> bool:
    """Whether an address is a loopback one."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
