"""Filtered imitation: what the critic ends as done is imitated, right or wrong; rounds go on where they were cut."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeing_critic import SeeingCritic

torch = pytest.importorskip("torch")

from vlac_gym.attack.budget import ImitationBudget  # noqa: E402
from vlac_gym.attack.imitation import ImitationSearch  # noqa: E402
from vlac_gym.attack.training_runs import read_training_run  # noqa: E402
from vlac_gym.clone.policy import ClonePolicy, load_policy, save_policy  # noqa: E402
from vlac_gym.critic.ensemble import EnsembleCritic  # noqa: E402
from vlac_gym.critic.oracle import OracleCritic  # noqa: E402
from vlac_gym.envs.reach import ReachEnv  # noqa: E402
from vlac_gym.rule.reward import training_rule  # noqa: E402


class HalfDone(SeeingCritic):
    """Says done to pictures in which the dark hand covers little: those of hands that hang low."""

    def success_prob(self, frames: Any, tasks: Any) -> Any:
        return np.array([0.95 if (f < 60).all(axis=-1).sum() < 14 else 0.1 for f in frames], np.float32)


class AlwaysDone(SeeingCritic):
    def success_prob(self, frames: Any, tasks: Any) -> Any:
        return np.ones(len(frames), np.float32)


class NeverDone(SeeingCritic):
    def success_prob(self, frames: Any, tasks: Any) -> Any:
        return np.zeros(len(frames), np.float32)

    def value(self, frames: Any, task: str, references: Any = None) -> Any:
        return np.linspace(0, 0.75, len(frames), dtype=np.float32)


RULE = training_rule("vlac", done_threshold=0.9, done_patience=2, done_interval=2)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_policy(ClonePolicy(["reach:0"], chunk_size=2, image_size=16), tmp_path / "policy")
    return tmp_path / "policy"


def search(out: Path, policy: Path, critic: Any, rounds: int) -> ImitationSearch:
    budget = ImitationBudget(
        demos_per_task=1, clone_steps=1, rounds=rounds, episodes_per_round=4, steps_per_round=3, batch_size=4,
        step_limit=6,
    )  # fmt: skip
    starts = [(0, state) for state in (0, 1, 3)]  # the hand hangs low, low and high
    return ImitationSearch(out, policy, partial(ReachEnv, max_episode_steps=50), critic, RULE, starts, budget)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["metrics"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_critic_that_says_done_to_all_is_fooled_in_every_episode(tmp_path: Path, policy: Path) -> None:
    run = search(tmp_path / "run", policy, AlwaysDone(), rounds=2)
    run.run()
    curve = read_training_run(tmp_path / "run")
    assert [(p.episodes, p.wrong_stops.value, p.reward_of_failure.value) for p in curve.points] == [
        (4, 1.0, 1.0),
        (8, 1.0, 1.0),
    ]
    # Two checks in a row, at steps 2 and 4, end an episode: two decisions each, eight a round.
    chosen = torch.load(tmp_path / "run" / "round-001.pt", weights_only=True)["chosen"]
    assert [len(demos["states"]) for demos in chosen] == [2, 2, 2, 2]
    worst = run.worst(5)
    assert [w.text for w in worst] == [f"ended as done at step 4, in round {i} of imitation" for i in (2, 1)]
    assert [(f.step, f.success_prob, f.is_event) for f in worst[0].strip] == [
        (0, None, False),
        (2, 1.0, False),
        (4, 1.0, True),
    ]
    moved = load_policy(tmp_path / "run" / "policy").state_dict()
    assert not torch.equal(moved["mean.bias"], load_policy(policy).state_dict()["mean.bias"])


def test_an_ensemble_with_one_that_is_right_is_not_fooled(tmp_path: Path, policy: Path) -> None:
    run = search(tmp_path / "run", policy, EnsembleCritic([AlwaysDone(), OracleCritic()]), rounds=1)
    run.run()
    (row,) = lines(tmp_path / "run")
    assert (row["critic/wrong_stops"], row["critic/right_failures"]) == (0.0, 4.0)
    assert run.worst(5) == []


def test_without_a_done_nothing_is_imitated_and_failures_get_the_last_value(
    tmp_path: Path, policy: Path
) -> None:
    run = search(tmp_path / "run", policy, NeverDone(), rounds=1)
    run.run()
    (row,) = lines(tmp_path / "run")
    assert (row["critic/wrong_stops"], row["critic/right_failures"], row["train/loss"]) == (0.0, 4.0, None)
    assert row["critic/reward_of_failure"] == 0.75
    assert run.worst(5) == []
    kept = load_policy(tmp_path / "run" / "policy").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in load_policy(policy).state_dict().items())


def test_a_search_that_was_cut_goes_on_as_if_it_had_not_been(tmp_path: Path, policy: Path) -> None:
    search(tmp_path / "whole", policy, HalfDone(), rounds=3).run()
    search(tmp_path / "cut", policy, HalfDone(), rounds=2).run()
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:  # a third round that was not finished
        file.write('{"step": 12, "metrics": {}}\n')
    search(tmp_path / "cut", policy, HalfDone(), rounds=3).run()
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    # Of starts 0, 1 and 3 in turn, the last is never called done: episodes 2, 5, 8 and 11.
    assert [row["critic/done_rate"] for row in lines(tmp_path / "cut")] == [0.75, 0.75, 0.5]
    whole, cut = (load_policy(tmp_path / name / "policy").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
