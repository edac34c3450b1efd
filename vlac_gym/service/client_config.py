"""How a client asks a critic server: `ClientConfig`, and where: `base_urls`, `read_url_spec`. Loads no client."""

__all__ = ["ENCODINGS", "ClientConfig", "Encoding", "base_urls", "check_http", "check_https", "read_url_spec"]

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.service.token_file import read_token
from vlac_gym.specs.options import option_types, read_argument

Encoding = Literal["raw", "png", "jpeg"]
"""How a frame travels."""

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)


@dataclass(frozen=True)
class ClientConfig:
    """How a client asks.

    Attributes:
        token: Bearer token, or None.
        token_file: File with the token. Without either, the file named by the environment variable
            `VLAC_GYM_TOKEN_FILE`, if set.
        timeout_s: Deadline of one attempt; the server gives up at the same time.
        deadline_s: Deadline of one question with all its attempts and pauses.
        max_attempts: Attempts of one question, over all servers.
        encoding: `raw`; `png` sends fewer bytes for more time; `jpeg` changes pixels, hence answers.
        jpeg_quality: 1..100, for `jpeg`.
        ca_file: Certificates to trust for https, besides the system's.
    """

    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    timeout_s: float = 30.0
    deadline_s: float = 180.0
    max_attempts: int = 10
    encoding: Encoding = "raw"
    jpeg_quality: int = 95
    ca_file: str | None = None

    def __post_init__(self) -> None:
        for name in ("timeout_s", "deadline_s", "max_attempts"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected {name} above 0, got {getattr(self, name)!r}.")
        if self.encoding not in ENCODINGS:
            raise unknown_name("frame encoding", self.encoding, ENCODINGS)
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"Expected jpeg_quality in [1, 100], got {self.jpeg_quality!r}.")
        if self.token is not None and self.token_file is not None:
            raise ConfigError("Expected token or token_file, got both.")

    def with_token(self) -> Self:
        """The same with the token itself in the place of its file, for processes that don't have the file.

        Raises:
            ConfigError: The file can't be read, or holds no token.
        """
        path = self.token_file or os.environ.get("VLAC_GYM_TOKEN_FILE")
        if self.token is not None or path is None:
            return self
        return replace(self, token=read_token(path), token_file=None)


_SPEC_OPTIONS = option_types(ClientConfig, without=("token",))
"""What may follow the `?` of a spec; a token must not: specs end up in logs and configs."""


def read_url_spec(spec: str, given: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """The URLs, with commas between them, and the options of `http://one:8400,http://two:8400?timeout_s=5`.

    Args:
        spec: The spec as a whole.
        given: Options given beside it, which are added.

    Raises:
        ConfigError: An option is unknown, does not parse, or is given twice.
    """
    return read_argument(spec.strip(), _SPEC_OPTIONS, "http://HOST:PORT", given=given)


def check_http(argument: str) -> None:
    """Raises `ConfigError` for addresses or options after `http:` that do not fit; reads no token, asks no server."""
    _check_url_spec(f"http:{argument}")


def check_https(argument: str) -> None:
    """The same after `https:`."""
    _check_url_spec(f"https:{argument}")


def _check_url_spec(spec: str) -> None:
    urls, options = read_url_spec(spec)
    base_urls(urls)
    ClientConfig(**options)


def base_urls(urls: str | Sequence[str]) -> tuple[str, ...]:
    """The servers' addresses without a slash at the end, from one text with commas or several.

    Raises:
        ConfigError: None, one twice, or one that is no address of a server.
    """
    items = urls.split(",") if isinstance(urls, str) else list(urls)
    bases = tuple(item.strip().rstrip("/") for item in items)
    for item, base in zip(items, bases, strict=True):
        try:
            parts = urlsplit(base)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            fits = False
        if not fits or parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigError(f"Expected a critic's URL such as 'http://host:8400', got {item!r}.")
    if not bases or len(set(bases)) != len(bases):
        raise ConfigError(f"Expected one URL or several distinct ones, got {urls!r}.")
    return bases
