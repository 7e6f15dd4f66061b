"""TLS of a server: certificates that are read again when their files change."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    import os

LOG = logging.getLogger("gingham.server")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a server.

    Attributes
    ----------
    cert : its certificate, followed by those between it and its authority
    key : the private key of it, without a passphrase
    client_ca : authorities, one of which must have signed the certificate of a client; None asks clients for none
    """

    cert: str | os.PathLike[str]
    key: str | os.PathLike[str]
    client_ca: str | os.PathLike[str] | None = None


def server_credentials(files: TlsFiles) -> Any:
    """Credentials of gRPC that follow the files; raises InvalidArgument where they cannot be used."""
    certificates = _Certificates(files)
    return grpc.dynamic_ssl_server_credentials(
        certificates.current, certificates.renewed, require_client_authentication=files.client_ca is not None
    )


class _Certificates:
    """What was read of the files; those that cannot be used leave it as it was."""

    def __init__(self, files: TlsFiles) -> None:
        self._paths = [Path(path) for path in (files.cert, files.key, files.client_ca) if path is not None]
        self._lock = threading.Lock()
        try:
            self._state = self._states()
            self.current = self._read()
        except (OSError, ValueError) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            raise InvalidArgument(
                f"TLS expects PEM files of a certificate, of its key and of authorities, found {reason} in "
                f"{', '.join(map(str, self._paths))}"
            ) from None

    def renewed(self) -> Any:
        """The configuration where the files have changed, else None; called by gRPC at each handshake."""
        with self._lock:
            try:
                state = self._states()
                if state == self._state:
                    return None
                found = self._read()
                if self._states() != state:  # they are being replaced: the next handshake sees all of them
                    return None
            except (OSError, ValueError) as error:
                LOG.warning("certificates stay as they were: %s", error)
                return None
            self._state, self.current = state, found
            LOG.info("certificates were read again")
            return found

    def _states(self) -> list[tuple[int, int, int]]:
        return [(s.st_ino, s.st_mtime_ns, s.st_size) for s in (path.stat() for path in self._paths)]

    def _read(self) -> Any:
        checked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # A passphrase would be asked for on the terminal.
        checked.load_cert_chain(self._paths[0], self._paths[1], password=lambda: "")
        if len(self._paths) == 3:
            checked.load_verify_locations(self._paths[2])
        cert, key, *authorities = (path.read_bytes() for path in self._paths)
        return grpc.ssl_server_certificate_configuration([(key, cert)], authorities[0] if authorities else None)
