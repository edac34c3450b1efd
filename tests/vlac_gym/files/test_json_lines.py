"""JSON lines that only grow."""

import json
import os

import pytest

from vlac_gym.files.json_lines import append_lines, drop_cut_line, read_lines


def test_lines_are_appended_and_half_a_line_is_passed_over_and_dropped(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_lines(path, ['{"a": 1}', "2"])
    append_lines(path, ['"é"'])
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"b":')
    assert read_lines(path) == [{"a": 1}, 2, "é"]
    assert drop_cut_line(path) == path.stat().st_size == whole
    append_lines(path, ["4"])
    assert read_lines(path) == [{"a": 1}, 2, "é", 4]
    assert drop_cut_line(path) == whole + 2


def test_a_line_that_does_not_reach_the_disk_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "lines.jsonl"
    append_lines(path, ["1"])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            append_lines(path, ["2"])
    append_lines(path, ["3"])
    assert read_lines(path) == [1, 3]


def test_appending_does_not_read_what_is_there(tmp_path):
    """Linear: the file may be too large to read again for each line."""
    path = tmp_path / "lines.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that is not there
    append_lines(path, ["1"])
    assert path.stat().st_size == (1 << 40) + 2


def test_a_whole_line_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("{}\nnothing\n")
    with pytest.raises(json.JSONDecodeError):
        read_lines(path)
