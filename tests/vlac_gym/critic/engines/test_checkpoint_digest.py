"""A checkpoint's digest follows what determines answers, and nothing else."""

from pathlib import Path

import pytest

from vlac_gym.critic.engines import checkpoint_digest as module
from vlac_gym.critic.engines.checkpoint_digest import checkpoint_digest

FILES = {"model.safetensors": b"0123456789", "tokenizer.json": b"{}", "chat_template.jinja": b"x"}


def write(folder: Path, **changes: bytes | None) -> Path:
    folder.mkdir()
    named = {name.replace("__", "."): content for name, content in changes.items()}
    for name, content in (FILES | named).items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def test_equal_files_have_one_digest_wherever_they_lie(tmp_path):
    assert checkpoint_digest(write(tmp_path / "a")) == checkpoint_digest(write(tmp_path / "b"))


@pytest.mark.parametrize(
    "changes",
    [
        {"model__safetensors": b"0123456780"},
        {"tokenizer__json": b"[]"},
        {"chat_template__jinja": b"y"},
        {"tokenizer__json": None},
        {"more__safetensors": b""},
    ],
)
def test_another_weight_tokenizer_or_template_is_another_judge(tmp_path, changes):
    assert checkpoint_digest(write(tmp_path / "a")) != checkpoint_digest(write(tmp_path / "b", **changes))


def test_what_is_written_about_a_model_is_not_part_of_it(tmp_path):
    names = ("knowledge__json", "training__json", "conversion__json", "merge_metadata__json", "README__md")
    about = dict.fromkeys(names, b"{}")
    assert checkpoint_digest(write(tmp_path / "a")) == checkpoint_digest(write(tmp_path / "b", **about))


@pytest.mark.parametrize("size", [3, 5, 10])
def test_every_segment_of_a_large_file_counts(tmp_path, monkeypatch, size):
    monkeypatch.setattr(module, "_SEGMENT_BYTES", size)
    digests = {
        checkpoint_digest(
            write(tmp_path / str(i), model__safetensors=bytes(b"0123456789"[:i] + b"x" * (10 - i)))
        )
        for i in range(11)
    }
    assert len(digests) == 11
