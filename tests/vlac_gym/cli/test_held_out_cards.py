"""Cards before and after a training: of a critic that learned nothing, nothing falls."""

import json
from pathlib import Path

import pytest
from recorded_bank import record

pytest.importorskip("torch")

from vlac_gym.cli.held_out_cards import check_held_out, compare_on_held_out
from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint
from vlac_gym.errors import ConfigError


def test_two_cards_and_their_comparison_are_written(tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    record(bank, 0, 0, succeeds=True)
    record(bank, 0, 1, succeeds=False)
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny")
    out = tmp_path / "run"
    out.mkdir()
    changes = compare_on_held_out(bank, out, checkpoint, str(checkpoint), "cpu")
    assert all(change.before == change.after for change in changes)
    assert {change.verdict for change in changes} <= {"within its interval", "not comparable"}
    cards = [json.loads((out / name / "card.json").read_text()) for name in ("card_before", "card")]
    assert cards[0]["headline"] == cards[1]["headline"]
    assert cards[1]["dataset"]["episodes"] == 2
    assert json.loads((out / "comparison.json").read_text())["critics"]["after"].startswith(
        f"transformers:{checkpoint}?"
    )
    assert (out / "comparison.html").is_file()

    alone = tmp_path / "alone"
    alone.mkdir()
    assert compare_on_held_out(bank, alone, checkpoint, None, "cpu") == []
    assert sorted(path.name for path in alone.iterdir()) == ["card"]


def test_held_out_episodes_are_checked_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No folder of episodes"):
        check_held_out(tmp_path / "absent")
