"""How a client asks a critic server: `ClientConfig`."""

__all__ = ["ClientConfig"]

from dataclasses import dataclass, field

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.service.protocol import ENCODINGS, Encoding


@dataclass(frozen=True)
class ClientConfig:
    """How a client asks.

    Attributes:
        token: Bearer token, or None.
        timeout_s: Deadline of one attempt; the server gives up at the same time.
        deadline_s: Deadline of one question with all its attempts and pauses.
        max_attempts: Attempts of one question, over all servers.
        encoding: `raw`; `png` sends fewer bytes for more time; `jpeg` changes pixels, hence answers.
        jpeg_quality: 1..100, for `jpeg`.
        ca_file: Certificates to trust for https, besides the system's.
    """

    token: str | None = field(default=None, repr=False)
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
