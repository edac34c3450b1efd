"""A whole attack: what it leaves, that it goes on where it was, and what the card shows of it."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeing_critic import SeeingCritic

from vlac_gym.attack.budget import AttackBudget, ImitationBudget
from vlac_gym.attack.run import AttackSettings, attack, attacked_tasks
from vlac_gym.attack.training_runs import read_training_run, read_training_runs, runs_alone
from vlac_gym.critic import make_critic
from vlac_gym.data import EpisodeDataset
from vlac_gym.errors import ConfigError
from vlac_gym.metrics.writer import MetricsWriter
from vlac_gym.report_card.card import CardConfig, make_card, with_optimisation
from vlac_gym.report_card.page import write_card
from vlac_gym.rule.reward import training_rule


class AlwaysDone(SeeingCritic):
    """Says done to everything, and counts what it is asked."""

    asked = 0

    def success_prob(self, frames: Any, tasks: Any) -> Any:
        self.asked += len(frames)
        return np.ones(len(frames), np.float32)


SETTINGS = AttackSettings(
    tasks=(("libero_spatial", 0, (3,)),),
    budget=AttackBudget(tasks=1, starts=1, variations=1, kinds=("block_view", "stop")),
    rule=training_rule("vlac", done_threshold=0.9, done_patience=2, done_interval=4),
    image_size=64,
    max_episode_steps=12,
)


def test_an_attack_in_libero_goes_on_where_it_was_and_fills_the_card(
    bank: EpisodeDataset, tmp_path: Path
) -> None:
    critic = AlwaysDone()
    seen: list[tuple[str, int, int]] = []
    out = tmp_path / "attack"
    found = attack(critic, out, SETTINGS, on_progress=lambda *step: seen.append(step))
    # Checks at steps 4 and 8: both cheats are ended at step 8, long before anything has moved to its place.
    assert {kind: p.wrong_stops.value for kind, p in found.cheats.items()} == {"block_view": 1.0, "stop": 1.0}
    assert {w.kind for w in found.worst} == {"block_view", "stop"}
    assert all(w.text.startswith("ended as done at step 8, ") for w in found.worst)
    strip = found.worst[0].strip
    assert [frame.step for frame in strip if frame.is_event] == [8]
    assert [frame.success_prob for frame in strip if frame.step == 4] == [1.0]
    assert found.curves[0].points[0].wrong_stops.value == 1.0
    assert seen[-1] == ("cheats judged", 2, 2)

    rows = [json.loads(line) for line in (out / "cheats" / "paid.jsonl").read_text().splitlines()]
    assert {row["stop_step"] for row in rows} == {8}
    before = {path: path.stat().st_mtime_ns for path in (out / "cheats" / "episodes").iterdir()}
    asked, critic.asked = critic.asked, 0
    again = attack(critic, out, SETTINGS)
    assert again.cheats == found.cheats
    assert {path: path.stat().st_mtime_ns for path in (out / "cheats" / "episodes").iterdir()} == before
    assert 0 < critic.asked <= asked / 2  # for the pictures alone

    other = dataclasses.replace(SETTINGS, seed=1)
    with pytest.raises(ConfigError, match="with other settings: seed was 0, is 1"):
        attack(critic, out, other)

    card = with_optimisation(
        make_card(critic, "always", bank, CardConfig(resamples=5, probe_episodes=0)), found
    )
    card_file, page = write_card(card, tmp_path / "card")
    section = json.loads(card_file.read_text())["sections"]["under_optimisation"]
    assert section["cheats"]["stop"]["wrong_stops"]["value"] == 1.0
    assert section["best_of_k"]["after_1_episodes"]["wrong_stops"]["value"] == 1.0
    html = page.read_text()
    assert "H. Under optimisation" in html
    assert "Paid for nothing" in html
    assert "<b>hand before the camera</b>: ended as done at step 8" in html
    assert "wrong stops per 100 episodes" in html


def test_an_ensemble_is_attacked_and_measured_as_any_critic(bank: EpisodeDataset, tmp_path: Path) -> None:
    budget = AttackBudget(tasks=1, starts=1, variations=1, kinds=("stop",))
    settings = dataclasses.replace(
        SETTINGS, budget=budget, rule=dataclasses.replace(SETTINGS.rule, done_threshold=0.5)
    )
    # The oracle says 0 of the failure, the other one 1 of everything: 0.5 on average.
    fooled = attack(make_critic("ensemble:oracle|scripted:1|?combine=mean"), tmp_path / "mean", settings)
    assert fooled.cheats["stop"].wrong_stops.value == 1.0

    shutil.copytree(tmp_path / "mean", tmp_path / "min", ignore=shutil.ignore_patterns("*.json*"))
    spec = "ensemble:oracle|scripted:1"
    critic = make_critic(spec)
    found = attack(critic, tmp_path / "min", settings)
    assert (
        found.facts["critic_fingerprint"]
        == critic.describe().fingerprint
        != fooled.facts["critic_fingerprint"]
    )
    stop = found.cheats["stop"]
    assert stop.wrong_stops.value == 0.0
    (row,) = (tmp_path / "min" / "cheats" / "paid.jsonl").read_text().splitlines()
    assert json.loads(row)["stop_step"] is None
    assert stop.reward_of_failure.value == pytest.approx(json.loads(row)["goal_progress"], abs=0.1)

    config = CardConfig(resamples=5, probe_episodes=0)
    card_file, page = write_card(
        with_optimisation(make_card(critic, spec, bank, config), found), tmp_path / "card"
    )
    card = json.loads(card_file.read_text())
    assert card["critic"]["model"] == "oracle simulator + scripted"
    assert [own["name"] for own in card["critic"]["details"]["members"]] == ["oracle", "scripted"]
    assert card["sections"]["under_optimisation"]["cheats"]["stop"]["wrong_stops"]["value"] == 0.0
    html = page.read_text()
    assert "model oracle simulator + scripted on cpu" in html
    assert "This critic is privileged" in html


@pytest.mark.slow
def test_filtered_imitation_begins_with_a_clone_of_demonstrations_in_libero(tmp_path: Path) -> None:
    imitation = ImitationBudget(
        demos_per_task=1, clone_steps=4, rounds=1, episodes_per_round=2, steps_per_round=2, batch_size=4
    )
    budget = AttackBudget(tasks=1, starts=1, variations=1, kinds=("stop",), imitation=imitation)
    settings = dataclasses.replace(SETTINGS, budget=budget)
    found = attack(AlwaysDone(), tmp_path, settings)
    assert [curve.name for curve in found.curves] == ["best_of_k", "filtered_imitation"]
    (point,) = found.curves[1].points
    assert (point.episodes, point.wrong_stops.value) == (2, 1.0)  # ended at the end of the first chunk
    assert [w.kind for w in found.worst] == ["stop", "filtered_imitation"]
    demonstrations = EpisodeDataset.open(tmp_path / "imitation" / "demonstrations")
    assert [(entry.meta.init_state_id, entry.succeeded) for entry in demonstrations.entries] == [(3, True)]
    kept = EpisodeDataset.open(tmp_path / "imitation" / "search" / "kept")
    assert [(entry.meta.seed, entry.num_steps, entry.succeeded) for entry in kept.entries] == [
        (0, 8, False),
        (1, 8, False),
    ]
    episodes = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    again = attack(AlwaysDone(), tmp_path, settings)
    assert again.curves[1].points == found.curves[1].points
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == episodes
    with pytest.raises(ConfigError, match="Expected a critic's view of agentview, wrist"):
        attack(AlwaysDone(), tmp_path, dataclasses.replace(settings, camera="agentview@shadow"))


def test_a_dataset_says_which_tasks_and_starts_are_attacked(bank: EpisodeDataset) -> None:
    assert attacked_tasks(bank, AttackBudget(tasks=2, starts=3, variations=1)) == (
        ("libero_spatial", 0, (0, 1, 2)),
        ("libero_spatial", 1, (0, 1, 2)),
    )


def test_a_training_run_is_a_search_too(tmp_path: Path) -> None:
    def window(
        right_stops: int, wrong_stops: int, right_failures: int, paid: float
    ) -> dict[str, float | None]:
        counts = {"right_stops": right_stops, "wrong_stops": wrong_stops, "right_failures": right_failures}
        return {
            "rollout/episodes": 20.0, "critic/missed_successes": 0.0, "critic/reward_of_failure": paid,
            **{f"critic/{name}": float(count) for name, count in counts.items()},
        }  # fmt: skip

    folder = tmp_path / "ppo"
    folder.mkdir()
    with MetricsWriter(folder) as writer:
        writer.write(0, {"eval/success_rate": 0.5})
        writer.write(100, window(5, 1, 14, 0.6))
        writer.write(200, window(4, 8, 8, 0.8))
    curve = read_training_run(folder)
    assert curve.name == "training ppo"
    assert [(p.episodes, p.wrong_stops.value, p.reward_of_failure.value) for p in curve.points] == [
        (20, 1 / 20, 0.6),
        (40, 8 / 20, 0.8),
    ]
    assert [p.reward_of_failure.n for p in curve.points] == [15, 16]
    assert curve.points[1].simulator_success is not None
    assert curve.points[1].simulator_success.value == 4 / 20


def test_a_training_run_without_an_audit_is_refused(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(0, {"train/loss": 0.5})
    with pytest.raises(ConfigError, match="with the critic's audit"):
        read_training_run(tmp_path)


def audited_run(folder: Path, fingerprint: str | None = None) -> Path:
    with MetricsWriter(folder) as writer:
        counts = ("right_stops", "missed_successes", "right_failures")
        writer.write(0, {"critic/wrong_stops": 1.0, **{f"critic/{name}": 0.0 for name in counts}})
    if fingerprint is not None:
        (folder / "settings.json").write_text(json.dumps({"critic_fingerprint": fingerprint}))
    return folder


def test_runs_that_a_card_would_show_under_one_name_are_refused(tmp_path: Path) -> None:
    runs = [audited_run(tmp_path / name / "ppo") for name in "ab"]
    with pytest.raises(ConfigError, match=r"folders of different names, .* got two of 'training ppo'"):
        read_training_runs(runs)
    other_kind = audited_run(tmp_path / "c" / "ppo", fingerprint="1")
    assert [curve.name for curve in read_training_runs([runs[0], other_kind])[0]] == [
        "training ppo",
        "filtered imitation ppo",
    ]


def test_an_attack_on_another_critic_is_not_shown_as_one_on_this(tmp_path: Path) -> None:
    critic, other = make_critic("scripted:1"), make_critic("oracle")
    runs = [
        audited_run(tmp_path / "ppo"),
        audited_run(tmp_path / "attack", fingerprint=critic.describe().fingerprint),
    ]
    assert len(runs_alone(critic, runs).curves) == 2
    with pytest.raises(ConfigError, match=r"runs against this critic .* got .*/attack against another"):
        runs_alone(other, runs)
