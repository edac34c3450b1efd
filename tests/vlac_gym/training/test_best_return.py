"""`BestReturnTracker`: the numbers, restarts, and what crashes and kills leave behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.training.best_return import BestPolicy, BestReturnTracker
from vlac_gym.types import CriticInfo


def tracker(folder: Path, text: str = "weights", **options) -> BestReturnTracker:
    return BestReturnTracker(
        folder, lambda path: path.write_text(text), **{"exp_id": "run", "alpha": 0.5} | options
    )


def test_average_is_corrected_for_its_start(tmp_path):
    one = tracker(tmp_path)
    assert one.ema_return is None
    one.update([1.0], training_step=0)
    assert one.ema_return == 1.0
    one.update([0.0, 1.0], training_step=1)
    # m: 0.5, 0.25, 0.625; corrected by 1 - 1/8.
    assert one.ema_return == 0.625 / 0.875


def test_default_weight_of_the_past_is_99_percent(tmp_path):
    one = BestReturnTracker(tmp_path, lambda path: path.touch(), exp_id="run")
    one.update([1.0, 0.0], training_step=0)
    assert one.ema_return == pytest.approx(0.0099 / (1 - 0.9801), rel=1e-12)


def test_metadata_tells_the_best_and_not_the_last(tmp_path):
    critic = CriticInfo("nano", fingerprint="0123456789abcdef")
    one = tracker(tmp_path, critic=critic)
    assert one.update([0.5, 1.0], training_step=3, global_step=320)
    assert not one.update([0.0], training_step=4, global_step=400)
    said = json.loads((tmp_path / "best_return/metadata.json").read_text())
    assert said.pop("timestamp").endswith("+00:00")
    assert {name: said[name] for name in said if name not in ("state", "version", "alpha")} == {
        "policy_path": "policy-00000003",
        "ema_return": 0.625 / 0.75,
        "current_return": 0.75,
        "training_step": 3,
        "global_step": 320,
        "exp_id": "run",
        "critic": "nano",
        "critic_fingerprint": "0123456789abcdef",
    }
    best = BestPolicy.read(tmp_path)
    assert best == one.best
    assert best.policy_path.read_text() == "weights"


def test_min_delta_and_min_episodes_hold_a_best_back(tmp_path):
    one = tracker(tmp_path, min_delta=0.1, min_episodes=2)
    assert not one.update([1.0], training_step=0)
    assert one.update([0.0], training_step=1)  # (0.5 * 0.5) / 0.75 = 1/3
    assert not one.update([0.5], training_step=2)  # 0.375 / 0.875 = 0.4286, less than 0.4333
    assert one.update([1.0], training_step=3)


def test_patience_counts_updates_since_the_best(tmp_path):
    one = tracker(tmp_path, patience=2)
    one.update([1.0], training_step=0)
    one.update([0.5], training_step=1)
    assert not one.should_stop
    one.update([0.5], training_step=2)
    assert one.should_stop
    assert tracker(tmp_path, patience=2).should_stop
    one.update([9.0], training_step=3)
    assert not one.should_stop


def test_restarted_tracker_continues_to_the_same_numbers(tmp_path):
    returns = [0.1, 0.3, 0.2, 0.7, 0.4, 0.9, 0.3]
    whole = tracker(tmp_path / "whole", alpha=0.9)
    expected = [(whole.update([r], training_step=i), whole.ema_return) for i, r in enumerate(returns)]
    got = []
    for i, value in enumerate(returns):
        part = tracker(tmp_path / "parts", alpha=0.9)  # anew for each
        got.append((part.update([value], training_step=i), part.ema_return))
    assert got == expected


def test_steps_counted_before_a_restart_are_passed_over(tmp_path):
    tracker(tmp_path).update([1.0], training_step=5)
    again = tracker(tmp_path)
    assert not again.update([7.0], training_step=5)
    assert again.ema_return == 1.0
    assert again.update([2.0], training_step=6)
    with pytest.raises(ConfigError, match="training_step above 6, the last, got 6"):
        again.update([2.0], training_step=6)


def test_crash_in_save_leaves_the_old_best_and_counts_nothing(tmp_path):
    tracker(tmp_path, "old").update([1.0], training_step=0)

    def crash(path: Path) -> None:
        path.mkdir()
        (path / "half").write_text("ha")
        raise OSError("disk full")

    one = BestReturnTracker(tmp_path, crash, exp_id="run", alpha=0.5)
    with pytest.raises(OSError, match="disk full"):
        one.update([2.0], training_step=1)
    assert one.ema_return == 1.0
    assert sorted(file.name for file in (tmp_path / "best_return").iterdir()) == [
        "metadata.json",
        "policy-00000000",
    ]
    assert BestPolicy.read(tmp_path).policy_path.read_text() == "old"
    assert tracker(tmp_path, "new").update([2.0], training_step=1)
    assert BestPolicy.read(tmp_path).policy_path.read_text() == "new"


def test_best_before_stays_until_the_next(tmp_path):
    one = tracker(tmp_path)
    for step in range(3):
        one.update([float(step)], training_step=step)
    names = sorted(path.name for path in (tmp_path / "best_return").glob("policy-*"))
    assert names == ["policy-00000001", "policy-00000002"]


KILLED = """
import os, signal, sys
from pathlib import Path
from vlac_gym.training import best_return
from vlac_gym.training.best_return import BestReturnTracker

folder, when = Path(sys.argv[1]), sys.argv[2]

def save(path):
    path.mkdir()
    (path / "a").write_text("new")
    if when == "in save":
        os.kill(os.getpid(), signal.SIGKILL)
    (path / "b").write_text("new")

write = best_return.write_json
def write_and_die(path, content):
    if when == "before metadata" and path.name == "metadata.json":
        os.kill(os.getpid(), signal.SIGKILL)
    if when == "before state" and path.name == "best_return_state.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
best_return.write_json = write_and_die
BestReturnTracker(folder, save, exp_id="run", alpha=0.5).update([2.0], training_step=1)
"""


@pytest.mark.parametrize("when", ["in save", "before metadata", "before state"])
def test_kill_leaves_a_whole_best_and_a_restart_gives_the_same_numbers(tmp_path, when):
    tracker(tmp_path, "old").update([1.0], training_step=0)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), when], check=False, timeout=60)
    assert ended.returncode == -9
    best = BestPolicy.read(tmp_path)
    if when == "before state":
        assert [(best.policy_path / name).read_text() for name in "ab"] == ["new", "new"]
    else:
        assert best.policy_path.read_text() == "old"

    again = tracker(tmp_path, "again")
    assert again.update([2.0], training_step=1) is (when != "before state")
    assert again.ema_return == again.best.ema_return == 1.25 / 0.75
    names = {path.name for path in (tmp_path / "best_return").iterdir()}
    assert "metadata.json" in names
    assert not [name for name in names if name.startswith(".partial")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, r"alpha in \[0, 1\), got 1.0"),
        ({"min_delta": -0.1}, "min_delta >= 0, got -0.1"),
        ({"patience": 0}, "patience and min_episodes >= 1, got 0 and 1"),
    ],
)
def test_bad_arguments_are_refused_before_a_folder_is_made(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        tracker(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_returns_of_another_critic_are_not_compared(tmp_path):
    tracker(tmp_path, critic=CriticInfo("nano")).update([1.0], training_step=0)
    with pytest.raises(ConfigError, match="can't be compared"):
        tracker(tmp_path, critic=CriticInfo("oracle"))


def test_bad_returns_and_a_save_that_writes_nothing_are_refused(tmp_path):
    one = BestReturnTracker(tmp_path, lambda path: None, exp_id="run")
    with pytest.raises(ConfigError, match=r"finite returns at training step 0, got \[nan\]"):
        one.update([float("nan")], training_step=0)
    with pytest.raises(ConfigError, match="save_policy to write to"):
        one.update([1.0], training_step=0)
    assert not one.update([], training_step=0)
