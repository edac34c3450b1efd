"""JSON files that hold an object, and those that don't."""

import re

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.files.json_objects import read_json_object


def test_an_object_is_read(tmp_path):
    path = tmp_path / "facts.json"
    path.write_text('{"task": "öffne", "steps": [1]}', encoding="utf-8")
    assert read_json_object(path) == {"task": "öffne", "steps": [1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Expected JSON in {}, but it can't be read: "),
        (b"\xff\xfe", "Expected JSON in {}, but it can't be read: "),
        (b"[1]", "Expected a JSON object in {}, got list"),
    ],
)
def test_another_file_is_named(tmp_path, content, message):
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message.format(re.escape(str(path)))):
        read_json_object(path)


def test_a_folder_is_no_such_file_and_nothing_is_left_to_the_caller(tmp_path):
    with pytest.raises(ConfigError, match="but it can't be read"):
        read_json_object(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_json_object(tmp_path / "facts.json")
