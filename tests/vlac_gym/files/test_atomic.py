import json
from pathlib import Path

import pytest

from vlac_gym.files.atomic import append_text, write_bytes, write_json


def test_a_failed_write_leaves_the_old_file_and_no_partial(tmp_path):
    target = tmp_path / "summary.json"
    write_json(target, {"a": 1})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(target, {"a": float("nan")})

    assert json.loads(target.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_cut_append_leaves_whole_lines(tmp_path, monkeypatch):
    target = tmp_path / "steps.jsonl"
    append_text(target, "1\n")

    def cut(self: Path, other: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            append_text(target, "2\n")

    assert target.read_text() == "1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["steps.jsonl"]
    append_text(target, "3\n")
    assert target.read_text() == "1\n3\n"


def test_write_replaces_the_whole_content(tmp_path):
    target = tmp_path / "plot.png"
    write_bytes(target, b"long content")
    write_bytes(target, b"short")
    assert target.read_bytes() == b"short"
