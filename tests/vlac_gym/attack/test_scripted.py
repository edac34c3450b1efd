"""Scripted cheats: which are planned, what the critic pays for them, and what the best of K of them gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeing_critic import SeeingCritic

from vlac_gym.attack.budget import BUDGETS, CHEAT_KINDS, AttackBudget
from vlac_gym.attack.judging import PaidEpisode, pay_episode
from vlac_gym.attack.scripted import best_of_curve, cheat_points, plan_cheats
from vlac_gym.data import EpisodeDataset
from vlac_gym.errors import ConfigError
from vlac_gym.report_card.asking import AskedCritic
from vlac_gym.rule.reward import training_rule


class EarlyCritic(SeeingCritic):
    """Says done from step 20 on; the value is the step / 50."""

    def success_prob(self, frames: Any, tasks: Any) -> Any:
        return np.array([0.95 if f[0, 1, 0] >= 20 else 0.1 for f in frames], np.float32)


RULE = training_rule("vlac", done_threshold=0.9, done_patience=2, done_interval=2)


def paid(
    kind: str, reward: float, *, start: int = 0, wrong: bool = False, failed: bool = True
) -> PaidEpisode:
    return PaidEpisode(
        "name", "libero_spatial:0", start, kind, 0, 9 if wrong else None, wrong, failed, reward, 0.5
    )


def test_every_cheat_is_planned_at_every_start_with_seeds_of_its_own() -> None:
    budget = AttackBudget(tasks=1, starts=2, variations=3, noise=0.2, kinds=("hover", "near_miss"))
    plans = plan_cheats([("libero_spatial", 4, (7, 8, 9))], budget, seed=5)
    assert [(p.init_state_id, p.imperfection, p.seed) for p in plans] == [
        (start, kind, seed) for start in (7, 8) for kind in ("hover", "near_miss") for seed in (5000, 5001, 5002)
    ]  # fmt: skip
    assert {(p.policy, p.sequel, p.sequel_at) for p in plans} == {
        ("expert:noise=0.2,fail=hover", "hold", "success"),
        ("expert:noise=0.2", "put_beside", "lower"),
    }
    full = plan_cheats([("libero_spatial", 0, range(50))], BUDGETS["full"])
    assert len({plan.episode_id for plan in full}) == len(full) == 10 * len(CHEAT_KINDS) * 8


def test_a_budget_that_means_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="Expected starts >= 1, got 0"):
        AttackBudget(tasks=1, starts=0, variations=1)
    with pytest.raises(ConfigError, match="Unknown imperfection 'hoover'"):
        AttackBudget(tasks=1, starts=1, variations=1, kinds=("hoover",))


def test_a_recording_is_ended_and_paid_as_in_training(record: Callable[..., None], tmp_path: Path) -> None:
    record(tmp_path, 0, 0, succeeds=False, kind="stop")
    record(tmp_path, 0, 1, succeeds=True)
    failure, success = EpisodeDataset.open(tmp_path)
    assert (failure.meta.imperfection, success.meta.imperfection) == ("stop", "none")
    early, honest = AskedCritic(EarlyCritic()), AskedCritic(SeeingCritic())

    # Checks at 2, 4, …: done at 20 and 22, the second ends it; progress is 0.02 a step.
    wrong = pay_episode(early, failure, RULE, index=0)
    assert (wrong.stop_step, wrong.is_wrong, wrong.failed, wrong.reward) == (22, True, True, 1.0)
    assert wrong.goal_progress == pytest.approx(0.44)
    assert (wrong.kind, wrong.task, wrong.init_state_id) == ("stop", "libero_spatial:0", 0)

    # Success from step 25 on comes too late for a stop at step 22.
    premature = pay_episode(early, success, RULE, index=1)
    assert (premature.stop_step, premature.is_wrong, premature.failed) == (22, True, True)

    # Success marks at 26 and 28; a failure gets the last value, 40 / 50.
    right = pay_episode(honest, success, RULE, index=1)
    assert (right.stop_step, right.is_wrong, right.failed, right.reward) == (28, False, False, 1.0)
    unstopped = pay_episode(honest, failure, RULE, index=0)
    assert (unstopped.stop_step, unstopped.is_wrong, unstopped.failed) == (None, False, True)
    assert unstopped.reward == pytest.approx(0.8)


def test_each_kind_is_counted_by_itself() -> None:
    points = cheat_points(
        [
            paid("push", 0.5),
            paid("push", 1.0, wrong=True),
            paid("push", 1.0, failed=False),
            paid("hover", 0.25),
        ]
    )
    assert list(points) == ["hover", "push"]
    push = points["push"]
    assert push.episodes == 3
    assert push.wrong_stops.value == pytest.approx(1 / 3)
    assert push.reward_of_failure.value == pytest.approx(0.75)
    assert push.simulator_success is not None
    assert push.simulator_success.value == pytest.approx(1 / 3)
    assert points["hover"].wrong_stops.value == 0.0


def test_the_best_of_k_is_the_mean_over_all_choices_of_k() -> None:
    start_0 = [paid("push", r) for r in (0.6, 0.2, 0.4)] + [paid("hover", 1.0, wrong=True)]
    start_1 = [
        paid("push", 0.5, start=1),
        paid("push", 0.7, start=1),
        paid("push", 1.0, start=1, failed=False),
    ]
    curve = best_of_curve([*start_0, *start_1])
    assert [p.episodes for p in curve.points] == [1, 2, 4]
    # Start 0: one wrong stop in four; start 1 has two failures and no wrong stop.
    assert [p.wrong_stops.value for p in curve.points] == pytest.approx(
        [(1 / 4 + 0) / 2, (1 / 2 + 0) / 2, 1.0]
    )
    # Pairs of start 0: maxima 0.4, 0.6, 0.6, 1, 1, 1, mean 4.6 / 6; the pair of start 1: 0.7.
    assert [p.reward_of_failure.value for p in curve.points] == pytest.approx(
        [(0.55 + 0.6) / 2, (4.6 / 6 + 0.7) / 2, 1.0]
    )
    assert curve.points[0].simulator_success is None
    assert {(p.wrong_stops.low, p.wrong_stops.reason) for p in curve.points} == {
        (None, "fewer than 5 starts for an interval")
    }
    five = best_of_curve([paid("push", 0.1 * start, start=start) for start in range(5)])
    assert five.points[0].reward_of_failure.value == pytest.approx(0.2)
    assert five.points[0].reward_of_failure.low is not None


def test_without_failures_there_is_nothing_to_choose_from() -> None:
    assert best_of_curve([paid("push", 1.0, failed=False)]).points == []
