"""`cached_folder`: made once, whole or absent."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from vlac_gym.errors import ConfigError
from vlac_gym.files.cached_folder import cached_folder


def write(folder: Path) -> None:
    folder.mkdir()
    (folder / "a").write_text("whole")


def test_folder_is_made_once(tmp_path):
    goal = tmp_path / "cache" / "goal"
    calls: list[Path] = []
    for _ in range(2):
        assert cached_folder(goal, lambda folder: (calls.append(folder), write(folder))) == goal
    assert [path.parent for path in calls] == [goal.parent]
    assert calls[0] != goal
    assert [path.name for path in goal.iterdir()] == ["a"]


def test_failure_leaves_no_folder_and_the_next_call_makes_it(tmp_path):
    goal = tmp_path / "goal"

    def fail(folder: Path) -> None:
        write(folder)
        (folder / "half").write_text("")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        cached_folder(goal, fail)
    assert not goal.exists()
    # What a process that was killed left behind is not in the way either, nor in the result.
    cached_folder(goal, write)
    assert [path.name for path in goal.iterdir()] == ["a"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]


def test_all_who_come_while_it_is_made_wait_for_the_one_that_makes_it(tmp_path):
    goal = tmp_path / "goal"
    calls: list[Path] = []
    are_all_here = threading.Barrier(4)

    def make(folder: Path) -> None:
        calls.append(folder)
        write(folder)

    def use(_: int) -> str:
        are_all_here.wait()
        return (cached_folder(goal, make) / "a").read_text()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(4))) == ["whole"] * 4
    assert len(calls) == 1


def test_wait_has_an_end_and_a_cache_that_takes_no_files_is_told(tmp_path):
    goal = tmp_path / "goal"
    with FileLock(tmp_path / ".goal.lock"), pytest.raises(ConfigError, match=r"making .*goal for 0 s"):
        cached_folder(goal, write, timeout_s=0.01)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"Can't write to the cache .*file: File exists"):
        cached_folder(tmp_path / "file" / "goal", write)
    assert not goal.exists()
