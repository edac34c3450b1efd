"""Filtered imitation: what the critic ends as done is imitated, right or wrong; rounds go on where they were cut."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeing_critic import SeeingCritic

torch = pytest.importorskip("torch")

from tensor_worlds import point_envs  # noqa: E402

from vlac_gym.attack.budget import SearchBudget  # noqa: E402
from vlac_gym.attack.imitation import ImitationSearch, SearchSettings  # noqa: E402
from vlac_gym.attack.search_envs import SearchEnvs, libero_envs, scene_envs  # noqa: E402
from vlac_gym.attack.training_runs import read_training_run, read_wrong_stops  # noqa: E402
from vlac_gym.clone.policy import ClonePolicy, load_policy, save_policy  # noqa: E402
from vlac_gym.critic.ensemble import EnsembleCritic  # noqa: E402
from vlac_gym.critic.oracle import OracleCritic  # noqa: E402
from vlac_gym.data.dataset import EpisodeDataset  # noqa: E402
from vlac_gym.envs.reach import ReachEnv  # noqa: E402
from vlac_gym.errors import ConfigError  # noqa: E402
from vlac_gym.rollout import EpisodeStart  # noqa: E402
from vlac_gym.rule.reward import training_rule  # noqa: E402
from vlac_gym.train_nano.labels import FrameTable  # noqa: E402


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


def search(out: Path, policy: Path, critic: Any, rounds: int, **options: Any) -> ImitationSearch:
    budget = SearchBudget(rounds=rounds, episodes_per_round=4, steps_per_round=3, batch_size=4, step_limit=6)
    starts = [
        EpisodeStart(0, {"init_state_id": state}) for state in (0, 1, 3)
    ]  # the hand hangs low, low, high
    envs = SearchEnvs(fns=[partial(ReachEnv, max_episode_steps=50)], mode="sync", starts=starts)
    return ImitationSearch(out, policy, envs, critic, SearchSettings(rule=RULE, budget=budget, **options))


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
    worst = read_wrong_stops(tmp_path / "run", 5)
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
    assert read_wrong_stops(tmp_path / "run", 5) == []


def test_without_a_done_nothing_is_imitated_and_failures_get_the_last_value(
    tmp_path: Path, policy: Path
) -> None:
    run = search(tmp_path / "run", policy, NeverDone(), rounds=1)
    run.run()
    (row,) = lines(tmp_path / "run")
    assert (row["critic/wrong_stops"], row["critic/right_failures"], row["train/loss"]) == (0.0, 4.0, None)
    assert row["critic/reward_of_failure"] == 0.75
    assert read_wrong_stops(tmp_path / "run", 5) == []
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


def test_a_round_that_was_cut_leaves_no_episodes_of_its_first_try(tmp_path: Path, policy: Path) -> None:
    search(tmp_path, policy, AlwaysDone(), rounds=2, keeps_episodes=True).run()
    (tmp_path / "round-001.pt").unlink()
    kept = tmp_path / "kept" / "episodes"
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(before) == 8
    search(
        tmp_path, policy, NeverDone(), rounds=2, keeps_episodes=True
    ).run()  # as if it played otherwise now
    left = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert sorted(int(path.stem.rpartition("-s")[2]) for path in left) == [0, 1, 2, 3]
    assert left.items() <= before.items()
    assert [stop.text for stop in read_wrong_stops(tmp_path, 5)] == [
        "ended as done at step 4, in round 1 of imitation"
    ]


class FarAlong(SeeingCritic):
    """Says done to points from 0.35 on, which is short of their goal at 0.5."""

    def success_prob(self, frames: Any, tasks: Any) -> Any:
        return np.array([float(np.asarray(frame)[0, 0, 0] >= 35) for frame in frames], np.float32)


def drifting(folder: Path) -> Path:
    """A policy that moves a point by 0.105 each step."""
    policy = ClonePolicy(["points:7"], chunk_size=2, image_size=16, cameras=("agentview",))
    policy.mean.weight.data.zero_()
    policy.mean.bias.data.view(2, 7)[:, 0] = 0.42
    save_policy(policy, folder)
    return folder


@pytest.mark.parametrize("device", [None, "cpu"])
def test_worlds_whose_pictures_are_arrays_or_tensors_leave_wrong_stops_and_successes_as_episodes(
    tmp_path: Path, device: str | None
) -> None:
    fns, mode = point_envs(device, ("points",) * 3)
    starts = [EpisodeStart(0, {"init_state_id": state}) for state in (0, 1, 2)]  # at 0, 0.1 and 0.2
    envs = SearchEnvs(fns=fns, mode=mode, starts=starts, in_lockstep=True)
    budget = SearchBudget(
        rounds=1, episodes_per_round=3, steps_per_round=1, batch_size=4, step_limit=6, noise=0.0
    )
    rule = training_rule("vlac", done_interval=2)
    how = SearchSettings(rule=rule, budget=budget, keeps_episodes=True)
    run = ImitationSearch(tmp_path, drifting(tmp_path / "policy"), envs, FarAlong(), how)
    run.run()
    # Done at step 4 (0.42), at step 4 (0.52, rightly) and at step 2 (0.41).
    (row,) = lines(tmp_path)
    assert (row["critic/wrong_stops"], row["critic/right_stops"], row["rollout/episodes"]) == (2.0, 1.0, 3.0)
    # Imitated in the order of their numbers, though the last was over first.
    chosen = torch.load(tmp_path / "round-000.pt", weights_only=True)["chosen"]
    for demos, places in zip(chosen, ([0.0, 0.21], [0.1, 0.31], [0.2]), strict=True):
        np.testing.assert_allclose(demos["states"][:, 0], places, atol=1e-5)
    assert [int(demos["pictures"]["agentview"][-1, 0, 0, 0]) for demos in chosen] == [21, 31, 20]
    (worst,) = read_wrong_stops(tmp_path, 5)
    assert worst.episode_id == "round 1, episode 1"

    kept = EpisodeDataset.open(tmp_path / "kept")
    assert [entry.meta.episode_id for entry in kept.entries] == [
        "points-t07-i00-filtered-imitation-none-s0",
        "points-t07-i01-filtered-imitation-none-s1",
        "points-t07-i02-filtered-imitation-none-s2",
    ]
    slow, right, quick = kept
    assert right.success.tolist() == [False, False, False, False, True]
    assert right.frame_steps.tolist() == [0, 2, 4]
    assert slow.frame_steps.tolist() == [0, 2, 4]
    assert slow.actions.shape == (4, 7)
    np.testing.assert_allclose(slow.actions[:, 0], 0.42, atol=1e-5)
    np.testing.assert_allclose(slow.states[:, 0], [0.0, 0.0, 0.21, 0.21, 0.42], atol=1e-5)
    assert not slow.success.any()
    assert [int(slow.view("agentview")[i].mean().round()) for i in range(3)] == [0, 21, 42]
    assert (quick.frame_steps.tolist(), quick.meta.task) == ([0, 2], "push the point")
    # Worlds tell no goal progress: these episodes teach "done" alone.
    assert not FrameTable.build(list(kept)).has_progress.any()


def test_a_missed_success_is_kept_and_is_done_only_where_the_goal_holds(tmp_path: Path) -> None:
    policy = ClonePolicy(["points:7"], chunk_size=3, image_size=16, cameras=("agentview",))
    policy.mean.weight.data.zero_()
    policy.mean.bias.data.view(3, 7)[:, 0] = torch.tensor([1.0, 1.0, -1.0])
    save_policy(policy, tmp_path / "policy")
    fns, mode = point_envs(None, ("points",) * 2)
    starts = [EpisodeStart(0, {"init_state_id": state}) for state in (2, 0)]  # at 0.2 and 0
    envs = SearchEnvs(fns=fns, mode=mode, starts=starts, in_lockstep=True)
    budget = SearchBudget(
        rounds=1, episodes_per_round=2, steps_per_round=1, batch_size=4, step_limit=6, noise=0.0
    )
    how = SearchSettings(rule=training_rule("vlac", done_interval=3), budget=budget, keeps_episodes=True)
    ImitationSearch(tmp_path, tmp_path / "policy", envs, NeverDone(), how).run()
    (row,) = lines(tmp_path)
    assert (row["critic/missed_successes"], row["critic/wrong_stops"]) == (2.0, 0.0)
    far, near = EpisodeDataset.open(tmp_path / "kept")
    # At the goal, 0.5, after 2 steps and at 0.25 when the policy looks again: the success is over. At 0.5 in the end.
    assert far.frame_steps.tolist() == [0, 3, 6]
    assert far.success[far.frame_steps].tolist() == [False, False, True]
    assert np.flatnonzero(far.success).tolist() == [2, 6]
    assert far.first_success_step == 2
    # At 0.7 after 2 steps, at 0.45 when it looks again, and at 0.7 in the end.
    assert near.success[near.frame_steps].tolist() == [False, False, True]
    assert far.goal_progress.tolist() == far.success.tolist()


def test_episodes_of_an_env_that_tells_its_progress_keep_it(tmp_path: Path, policy: Path) -> None:
    towards_the_ball = load_policy(policy)
    towards_the_ball.mean.bias.data.view(2, 7)[:, :2] = 0.5
    save_policy(towards_the_ball, policy)
    search(tmp_path / "run", policy, AlwaysDone(), rounds=1, keeps_episodes=True, seed=1).run()
    kept = EpisodeDataset.open(tmp_path / "run" / "kept")
    # Their names are not those of another seed's.
    assert sorted(entry.meta.seed for entry in kept.entries) == [1_000_003 + i for i in range(4)]
    assert FrameTable.build(list(kept)).has_progress.all()
    progress = np.stack([episode.goal_progress for episode in kept])
    assert not progress[:, :2].any()  # nobody looked at step 1
    assert progress[:, 2].any()
    assert (progress[:, 2] == progress[:, 3]).all()


def test_envs_of_libero_play_the_tasks_of_their_suite_in_turn() -> None:
    tasks = [("libero_spatial", 0, (3, 5)), ("libero_object", 2, (1,)), ("libero_spatial", 4, (6,))]
    options = {"cameras": ("agentview",), "image_size": 64, "step_limit": 10}
    envs = libero_envs(tasks, 3, **options)
    assert [(s.options, tuple(s.envs or ())) for s in envs.starts] == [
        ({"init_state_id": 3, "task_id": 0}, (0, 2)),
        ({"init_state_id": 1, "task_id": 2}, (1,)),
        ({"init_state_id": 6, "task_id": 4}, (0, 2)),
        ({"init_state_id": 5, "task_id": 0}, (0, 2)),
    ]
    assert [fn.args for fn in envs.fns] == [
        ("libero_spatial", 0),
        ("libero_object", 2),
        ("libero_spatial", 0),
    ]
    with pytest.raises(
        ConfigError, match="num_envs of 2 or more, one for each of libero_spatial, libero_object, got 1"
    ):
        libero_envs(tasks, 1, **options)


def test_worlds_are_shared_out_evenly_over_the_tasks(tmp_path: Path) -> None:
    tasks = [("libero_spatial", 0, (0,)), ("libero_spatial", 3, (0,))]
    options = {"cameras": ("agentview",), "image_size": 64, "step_limit": 10, "device": "cpu"}
    for num_envs in (1, 5):
        with pytest.raises(ConfigError, match=f"num_envs as a multiple of 2, .* got {num_envs}"):
            scene_envs(tmp_path, tasks, num_envs, **options)
