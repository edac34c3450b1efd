"""Calibration files: what a card recommends is what a wrapper gets, and nothing is guessed."""

import json
from pathlib import Path

import pytest

from vlac_gym.errors import ConfigError
from vlac_gym.rule.calibration import Calibration, load_calibration
from vlac_gym.rule.reward import training_rule

MEASURED = Calibration(
    critic="nano", critic_fingerprint="0123456789abcdef", done_threshold=0.85, done_patience=2, done_interval=4,
    min_steps=30, false_stop_budget=0.03, false_positive_rate=0.02, miss_rate=0.1, episodes=80,
    task_suites=("libero_spatial",),
)  # fmt: skip


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "card.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: {"critic": {"name": "nano"}, "calibration": c}])
def test_a_calibration_reads_back_from_a_card_or_alone(tmp_path: Path, wrap: object) -> None:
    assert load_calibration(write(tmp_path, wrap(MEASURED.as_json()))) == MEASURED  # type: ignore[operator]


def test_its_options_make_a_training_rule() -> None:
    rule = training_rule("vlac", **MEASURED.rule_options())
    assert (rule.done_threshold, rule.done_patience, rule.done_interval, rule.min_steps) == (0.85, 2, 4, 30)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read"),
        ([1], "JSON object .* got list"),
        ({"calibration": None, "calibration_reason": "there are no failed episodes"}, "no failed episodes"),
        ({"metrics": {}}, "holds no calibration"),
        ({**MEASURED.as_json(), "version": 1}, "version 2 in .* got 1"),
        ({**MEASURED.as_json(), "critic_fingerprint": None}, "measured critic's fingerprint .* got None"),
        ({**MEASURED.as_json(), "done_treshold": 0.5}, r"unknown calibration fields \['done_treshold'\]"),
        ({**MEASURED.as_json(), "done_threshold": 90}, r"done_threshold in \[0, 1\], got 90"),
        ({**MEASURED.as_json(), "done_threshold": None}, r"done_threshold in \[0, 1\], got None"),
        ({**MEASURED.as_json(), "done_patience": 0}, "done_patience as an int >= 1, got 0"),
        ({**MEASURED.as_json(), "min_steps": 1.5}, "min_steps as an int >= 0, got 1.5"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_calibration(write(tmp_path, content))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vlac-gym report-card"):
        load_calibration(tmp_path / "card.json")
