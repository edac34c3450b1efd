"""Bearer tokens come from files, not from command lines, which every user of a machine can read: `read_token`."""

__all__ = ["read_token"]

from pathlib import Path

from vlac_gym.errors import ConfigError


def read_token(path: str | Path) -> str:
    """The bearer token in a file, without the white space around it.

    Raises:
        ConfigError: The file can't be read, or does not hold one word of printable ASCII.
    """
    try:
        token = Path(path).expanduser().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"Can't read a token from {str(path)!r}: {type(e).__name__}: {e}") from e
    if not token.isprintable() or len(token.split()) != 1:
        raise ConfigError(
            f"Expected one word of printable ASCII in {str(path)!r}; `openssl rand -hex 32` makes a token."
        )
    return token
