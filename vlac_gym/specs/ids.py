"""Lists of ids as text: `parse_ids`."""

__all__ = ["parse_ids"]

from vlac_gym.errors import ConfigError


def parse_ids(text: str, count: int, what: str) -> list[int]:
    """Parses `all`, `0-4` or `0,3,5-7` into ids below `count`, sorted and without repeats.

    Raises:
        ConfigError: Not of that form, or an id that does not exist.
    """
    if text.strip() == "all":
        return list(range(count))
    ids: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"Expected {what} as 'all', '0-4' or '0,3,5-7', got {text!r}.")
        if not int(first) <= int(last or first) < count:
            raise ConfigError(f"Expected {what} in rising order and below {count}, got {text!r}.")
        ids.update(range(int(first), int(last or first) + 1))
    return sorted(ids)
