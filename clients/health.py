"""Whether a server is well, by the standard health service, which asks for no key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gingham.clients.channel import Channel
from gingham.errors import Unavailable

if TYPE_CHECKING:
    from gingham.clients.credentials import Credentials


def check_health(url: str, *, credentials: Credentials | None = None, timeout: float = 5.0) -> None:
    """Return where a server takes calls.

    Parameters
    ----------
    url : ``grpc://HOST:PORT`` or ``grpcs://HOST:PORT``
    credentials : authorities that its certificate may be signed by, and the certificate of the client
    timeout : seconds that the answer may take

    Raises
    ------
    Unavailable : it does not answer, or it drains
    DeadlineExceeded : the time is over
    """
    channel = Channel(url, credentials)
    try:
        stub = health_pb2_grpc.HealthStub(channel._grpc)
        found = channel.call(stub.Check, health_pb2.HealthCheckRequest(), timeout).status
    finally:
        channel.close()
    if found != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(found)
        raise Unavailable(f"the server at {channel.address} was expected to be SERVING, found {name}; wait for it")
