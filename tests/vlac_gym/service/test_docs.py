"""docs/service.md says what the code does."""

import re
from pathlib import Path

import numpy as np

from vlac_gym.cli.serve import Args
from vlac_gym.errors import CriticConnectionError, CriticOverloadedError, CriticTimeoutError
from vlac_gym.service.messages import pack
from vlac_gym.service.protocol import Pixels, Reply, SuccessProbRequest
from vlac_gym.service.wire_errors import ERROR_REASONS

PAGE = (Path(__file__).parents[3] / "docs" / "service.md").read_text(encoding="utf-8")
RETRIED = (CriticConnectionError, CriticOverloadedError, CriticTimeoutError)


def block(name: str) -> bytes:
    """The bytes of a listing: its hexadecimal column."""
    (listing,) = re.findall(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)
    rows = [re.match(r"[0-9a-f ]*", line).group().split("  " * 4)[0] for line in listing.splitlines()]
    return bytes.fromhex("".join(rows).replace(" ", ""))


def test_the_bytes_of_the_example_are_the_bytes_on_the_wire():
    pixel = Pixels(0, "raw", 1, 1, b"\x01\x02\x03")
    request = SuccessProbRequest(1000, (b"\xaa" * 16,), (pixel,), (0,), ("lift",))
    assert block("request") == pack(request)
    reply = Reply(np.array([0.25], "<f4").tobytes(), "i1", "c1", 1.0, 2.0, 1, 1)
    assert block("reply") == pack(reply)


def test_every_error_is_in_the_table_with_its_status_and_exception():
    errors = PAGE.partition("## Errors")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+ \| .*?) \|", errors, re.MULTILINE))
    expected = {}
    for reason, (status, kind) in ERROR_REASONS.items():
        note = " (retried)" if issubclass(kind, RETRIED) else ""
        expected[reason] = f"{status} | {kind.__name__}{note}"
    expected["missing_frames"] = "409 | (the client resends)"
    assert rows == expected


def test_the_options_of_the_table_exist():
    options = re.findall(r"^\| `--([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert len(options) == 11
    assert {option.replace("-", "_") for option in options} <= Args.__dataclass_fields__.keys()
