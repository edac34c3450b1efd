"""Lists of ids as text: `parse_ids`."""

__all__ = ["parse_ids"]

from vlac_gym.errors import ConfigError


def parse_ids(text: str, count: int | None, what: str) -> list[int]:
    """Parses `all`, `0-4` or `0,3,5-7` into ids below `count`, sorted and without repeats; without `all` and a limit
    where `count` is None.

    Raises:
        ConfigError: Not of that form, or an id that does not exist.
    """
    if count is not None and text.strip() == "all":
        return list(range(count))
    forms = "'0-4' or '0,3,5-7'" if count is None else "'all', '0-4' or '0,3,5-7'"
    ids: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"Expected {what} as {forms}, got {text!r}.")
        if not int(first) <= int(last or first) or (count is not None and int(last or first) >= count):
            limit = "" if count is None else f" and below {count}"
            raise ConfigError(f"Expected {what} in rising order{limit}, got {text!r}.")
        ids.update(range(int(first), int(last or first) + 1))
    return sorted(ids)
