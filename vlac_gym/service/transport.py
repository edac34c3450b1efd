"""Between an exchange and httpx: bodies in pieces, and every transport error as one of ours.

`httpx` itself is exported too: imported here once, with the advice that its absence deserves.
"""

__all__ = ["body_chunks", "check_deadline", "httpx", "mapped_error", "no_reply"]

import time
from collections.abc import Iterator

from vlac_gym.errors import (
    CriticConnectionError,
    CriticError,
    CriticProtocolError,
    CriticTimeoutError,
)
from vlac_gym.extras import needs
from vlac_gym.service.exchange import HttpCall

with needs("A critic server's client", "client"):
    import httpx

_CHUNK_BYTES = 2**18
"""Between two chunks of a body the deadline is checked."""


def body_chunks(body: bytes, deadline: float, url: str) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(body), _CHUNK_BYTES):
        check_deadline(deadline, url)
        yield bytes(view[start : start + _CHUNK_BYTES])


def check_deadline(deadline: float, url: str) -> None:
    if time.monotonic() > deadline:
        raise no_reply(url)


def no_reply(url: str) -> CriticTimeoutError:
    return CriticTimeoutError(f"No complete reply from the critic at {url} in time")


def mapped_error(error: httpx.HTTPError, call: HttpCall) -> CriticError:
    """Every error of the transport as one of ours."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return CriticTimeoutError(
            f"No reply from the critic at {call.url} in {call.timeout_s:.1f} s ({text})"
        )
    if isinstance(error, httpx.DecodingError | httpx.TooManyRedirects):
        return CriticProtocolError(f"{call.url} answered what is no critic server's ({text})")
    return CriticConnectionError(f"No connection to the critic at {call.url} ({text})")
