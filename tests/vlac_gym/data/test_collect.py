"""Collecting: the same plan makes the same episode, labels follow the simulator, nothing finished is redone."""

import dataclasses
import functools
import os
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlac_gym.cli import main
from vlac_gym.data import EpisodeDataset, read_episode
from vlac_gym.data import collect as collect_module
from vlac_gym.data.collect import CollectedEpisode, collect
from vlac_gym.data.collect_options import CollectOptions, run_collection
from vlac_gym.data.plans import DEFAULT_MIX, RECIPES, EpisodePlan, parse_mix, plan_episodes
from vlac_gym.data.recording import RecordSettings, record_episode
from vlac_gym.data.sequels import SEQUELS, History, make_sequel
from vlac_gym.errors import ConfigError, SimulatorError

SETTINGS = RecordSettings(frame_stride_steps=4, encoding="png", image_size=16)


class PointEnv:
    """A hand that moves by 0.02 m per unit of action; success while it is open within 0.05 m of x = 0.2."""

    def __init__(self, max_episode_steps: int = 150) -> None:
        self.max_episode_steps = max_episode_steps
        self.resets = self.renders = 0

    unwrapped = property(lambda self: self)
    metadata = {"renderer": "points 1"}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self.resets += 1
        self.options = options
        self.position = np.array([0.0, 0.0, 0.1 + 0.001 * options["init_state_id"]])
        self.gripper, self.steps = 1.0, 0
        return {}, self.current_info()

    def step_unrendered(self, action: Any) -> tuple[float, bool, bool]:
        self.position = self.position + 0.02 * np.asarray(action[:3])
        self.gripper = float(action[6])
        self.steps += 1
        success = self.current_info()["success"]
        return float(success), success, self.steps >= self.max_episode_steps

    def current_info(self) -> dict[str, Any]:
        success = bool(self.gripper < 0 and abs(self.position[0] - 0.2) < 0.05)
        return {"task": "open at 0.2", "success": success, "goal_progress": 1.0 if success else 0.25}

    def proprioception(self) -> Any:
        return np.array([*self.position, 0, 0, 0, 0, 0], np.float32)

    def render_camera(self, camera: str) -> Any:
        self.renders += 1
        return np.full((16, 16, 3), self.steps % 256, np.uint8)

    def close(self) -> None:
        pass


class CarryPolicy:
    """Carries along x for 10 steps, lowers for 3, releases and stands still."""

    def reset(self, env: Any, seed: int | None = None) -> None:
        self.step = 0

    @property
    def stage(self) -> str:
        return (
            ("carry" if self.step <= 10 else "lower" if self.step <= 13 else "stop") if self.step else "idle"
        )

    stage_index = 0

    def act(self, obs: Any, info: Any) -> Any:
        self.step += 1
        assert "success" in info
        if self.step <= 10:
            return np.array([1, 0, 0, 0, 0, 0, 1], np.float32)
        if self.step <= 13:
            return np.array([0, 0, -1, 0, 0, 0, 1], np.float32)
        return np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


def plan(**changes: Any) -> EpisodePlan:
    return EpisodePlan(
        **{"task_suite": "libero_spatial", "task_id": 2, "init_state_id": 5, "policy": "expert", **changes}
    )


def test_an_honest_episode_goes_on_after_success_and_rests() -> None:
    env = PointEnv()
    episode = record_episode(env, CarryPolicy(), plan(), SETTINGS)
    assert env.options == {"task_id": 2, "init_state_id": 5}
    assert episode.first_success_step == 14
    assert episode.ends_in_success
    assert 14 + 8 + 10 <= episode.num_steps <= 14 + 25 + 30
    assert episode.stages[1:14].tolist() == ["carry"] * 10 + ["lower"] * 3
    assert episode.stages[-1] == "rest"
    assert episode.goal_progress[13:15].tolist() == [0.25, 1.0]
    assert episode.meta.task == "open at 0.2"
    np.testing.assert_allclose(episode.states[10, :3], [0.2, 0, 0.105], atol=1e-6)


def test_frames_are_rendered_only_where_they_are_kept() -> None:
    env = PointEnv()
    episode = record_episode(env, CarryPolicy(), plan(), SETTINGS)
    expected = sorted({*range(0, episode.num_steps, 4), episode.num_steps})
    assert episode.frame_steps.tolist() == expected
    assert env.renders == len(expected)
    assert [int(frame[0, 0, 0]) for frame in episode.view()] == expected


def test_a_policy_sees_the_pictures_of_its_cameras_and_only_when_it_looks() -> None:
    class LookingPolicy(CarryPolicy):
        cameras = ("wrist",)
        seen: list[Any] = []

        def act(self, obs: Any, info: Any) -> Any:
            assert set(obs) == {"wrist_image", "state"}
            if self.step % 8 == 0:
                self.seen.append((int(obs["wrist_image"][0, 0, 0]), int(obs["wrist_image"][0, 0, 0])))
            return super().act(obs, info)

    env = PointEnv()
    episode = record_episode(env, LookingPolicy(), plan(), SETTINGS)
    assert LookingPolicy.seen[:3] == [(0, 0), (8, 8), (16, 16)]  # rendered once each, of the step in hand
    assert env.renders == len(episode.frame_steps) + len(LookingPolicy.seen)


def test_a_cloned_policys_own_episodes_are_recorded_in_libero(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from vlac_gym.clone.acting import from_spec
    from vlac_gym.clone.policy import ClonePolicy, save_policy

    torch.manual_seed(0)
    save_policy(ClonePolicy(["libero_spatial:0"], image_size=32, cameras=("agentview",)), tmp_path / "policy")
    options = CollectOptions(
        out=tmp_path / "bank", task_ids="0", init_states="3", episodes=1, image_size=32, max_episode_steps=12,
        policy=f"clone:{tmp_path / 'policy'}?chunk_steps=8", frame_stride_steps=4, action_noise=0.08,
        encoding="png",
    )  # fmt: skip
    report = run_collection(options)
    assert [(outcome.num_steps, outcome.succeeded) for outcome in report.outcomes] == [(12, False)]
    (episode,) = EpisodeDataset.open(tmp_path / "bank")
    assert episode.meta.imperfection == "none"  # the expert's kinds of failure are the expert's
    assert (list(episode.frames), episode.frame_steps.tolist()) == (["agentview"], [0, 4, 8, 12])
    assert episode.clean_actions is not None
    looks = [{"agentview_image": episode.view()[i], "state": episode.states[4 * i]} for i in (0, 2)]
    chunks = from_spec(str(tmp_path / "policy")).plan(looks, [episode.info_at(0)] * 2)
    np.testing.assert_allclose(episode.clean_actions, np.concatenate(chunks)[:12], atol=1e-6)
    assert not episode.success.any()
    assert 0 < episode.goal_progress.max() < 1


def test_an_episode_knows_how_long_it_took_without_its_further_views(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(
        "vlac_gym.data.recording.time", types.SimpleNamespace(perf_counter=lambda: next(clock))
    )
    env = PointEnv()
    real = env.render_camera

    def render(camera: str) -> Any:
        if camera == "wrist":  # a second passes, which no rollout would spend
            next(clock)
        return real(camera)

    env.render_camera = render  # type: ignore[method-assign]
    settings = RecordSettings(cameras=("agentview", "wrist"), frame_stride_steps=4, image_size=16)
    episode = record_episode(env, CarryPolicy(), plan(), settings)
    assert episode.meta.details["wall_s"] == episode.num_steps  # a second for each step and no more
    assert episode.meta.details["renderer"] == "points 1"
    assert list(episode.frames) == ["agentview", "wrist"]


def test_a_plan_makes_the_same_episode_again_and_another_seed_another() -> None:
    first, again = (
        record_episode(PointEnv(), CarryPolicy(), plan(sequel="push_away"), SETTINGS) for _ in range(2)
    )
    np.testing.assert_array_equal(first.actions, again.actions)
    other = record_episode(PointEnv(), CarryPolicy(), plan(sequel="push_away", seed=1), SETTINGS)
    assert first.actions.shape != other.actions.shape or (first.actions != other.actions).any()


def test_noise_is_executed_and_the_clean_action_kept() -> None:
    settings = dataclasses.replace(SETTINGS, action_noise=0.1)
    episode = record_episode(PointEnv(), CarryPolicy(), plan(), settings)
    assert episode.clean_actions is not None
    asked = [[1, 0, 0, 0, 0, 0, 1]] * 10 + [[0, 0, -1, 0, 0, 0, 1]] * 3 + [[0, 0, 0, 0, 0, 0, -1]]
    np.testing.assert_array_equal(episode.clean_actions[:14], asked)
    noise = episode.actions - episode.clean_actions
    assert (noise[:, 6] == 0).all()
    assert np.abs(episode.actions).max() <= 1  # what pushes beyond the bounds is cut
    free = noise[:14, [1, 3, 4, 5]]
    assert 0.05 < free.std() < 0.2
    moved = np.cumsum(episode.actions[:14, :3], axis=0) * 0.02
    np.testing.assert_allclose(episode.states[1:15, :3] - episode.states[0, :3], moved, atol=1e-5)
    rest = episode.stages[1:] == "rest"
    assert (noise[rest] == 0).all()
    assert episode.meta.details["action_noise"] == 0.1
    again = record_episode(PointEnv(), CarryPolicy(), plan(), settings)
    np.testing.assert_array_equal(episode.actions, again.actions)
    assert record_episode(PointEnv(), CarryPolicy(), plan(), SETTINGS).clean_actions is None


def test_a_hold_at_a_stage_keeps_the_gripper_as_it_was() -> None:
    episode = record_episode(PointEnv(), CarryPolicy(), plan(sequel_at="lower"), SETTINGS)
    assert episode.first_success_step is None
    assert 10 <= episode.num_steps - 10 <= 30
    assert (episode.actions[10:, :6] == 0).all()
    assert (episode.actions[10:, 6] == 1).all()


def test_a_failing_policy_that_stands_still_ends_the_episode_before_the_limit() -> None:
    policy = CarryPolicy()
    policy.act = lambda obs, info: (setattr(policy, "step", 99), np.array([0, 0, 0, 0, 0, 0, 1], np.float32))[
        1
    ]  # type: ignore[method-assign]
    episode = record_episode(PointEnv(), policy, plan(), SETTINGS)
    assert 10 <= episode.num_steps <= 31
    assert record_episode(PointEnv(max_episode_steps=6), policy, plan(), SETTINGS).num_steps == 6


def test_an_object_taken_back_makes_an_undone_success() -> None:
    episode = record_episode(PointEnv(), CarryPolicy(), plan(sequel="take_back"), SETTINGS)
    assert episode.is_undone
    assert "take_back" in set(episode.stages.tolist())


@pytest.mark.parametrize("name", sorted(SEQUELS))
def test_every_sequel_ends_and_stays_within_the_action_space(name: str) -> None:
    history = History(actions=[np.array([0, 0, 0, 0, 0, 0, 1], np.float32)], states=[np.zeros(8, np.float32)])
    taken = []
    for action in make_sequel(name)(history, np.random.default_rng(0)):
        taken.append(action)
        history.actions.append(action)
        moved = history.states[-1].copy()
        moved[:3] += 0.02 * action[:3]
        history.states.append(moved)
        assert len(taken) < 300
    assert all(np.abs(a).max() <= 1 and a.shape == (7,) and a.dtype == np.float32 for a in taken)
    assert bool(taken) == (name != "hold")


def test_shares_follow_the_weights_and_no_recipe_is_tied_to_a_start() -> None:
    plans = plan_episodes(
        [("libero_spatial", 0, range(4)), ("libero_spatial", 1, range(4))], 8, parse_mix("none=3,drop")
    )
    assert Counter((p.task_id, p.imperfection) for p in plans) == {
        (0, "none"): 6, (0, "drop"): 2, (1, "none"): 6, (1, "drop"): 2,
    }  # fmt: skip
    assert {p.policy for p in plans} == {"expert", "expert:fail=drop"}
    assert len({p.episode_id for p in plans}) == 16
    honest = [p.init_state_id for p in plans if p.task_id == 0 and p.imperfection == "none"]
    assert sorted(honest[:4]) == [0, 1, 2, 3]


def test_a_recipe_that_is_rarer_than_one_in_a_tasks_episodes_is_still_played() -> None:
    tasks = [("libero_spatial", i, range(4)) for i in range(10)]
    mix = parse_mix("none=3,near_miss=4,drop=1,hover=1,idle=0.3")
    plans = plan_episodes(tasks, 3, mix)
    assert Counter(p.task_id for p in plans) == dict.fromkeys(range(10), 3)
    total = sum(mix.values())
    for name, count in Counter(p.imperfection for p in plans).items():
        assert abs(count - 30 * mix[name] / total) < 1
    assert {p.imperfection for p in plans} == mix.keys()
    # The first task's are what they would be alone: the largest shares.
    assert Counter(p.imperfection for p in plans if p.task_id == 0) == {"near_miss": 1, "none": 1, "drop": 1}


def test_a_mix_that_means_nothing_is_refused() -> None:
    assert RECIPES.keys() - parse_mix(DEFAULT_MIX).keys() == {"hover", "push", "block_view", "empty_hand"}
    for text, message in [
        ("nona=1", "Did you mean 'none'"),
        ("none=x", "with a number"),
        ("none=0", "above 0"),
        ("none,none", "given twice"),
        ("", "Expected imperfections"),
    ]:
        with pytest.raises(ConfigError, match=message):
            parse_mix(text)


@pytest.fixture
def point_envs(monkeypatch: pytest.MonkeyPatch) -> list[PointEnv]:
    envs = [PointEnv()]
    monkeypatch.setattr(collect_module, "_env", lambda suite, settings, cameras=(): envs[0])
    monkeypatch.setattr(collect_module, "make_policy", lambda spec: CarryPolicy())
    return envs


def test_collecting_again_runs_only_what_is_missing(tmp_path: Path, point_envs: list[PointEnv]) -> None:
    plans = [plan(init_state_id=i) for i in range(3)]
    seen = []
    report = collect(plans[:2], tmp_path, SETTINGS, on_outcome=seen.append)
    assert [o.episode_id for o in seen] == [p.episode_id for p in plans[:2]]
    assert (len(report.outcomes), report.skipped, report.lost) == (2, 0, [])
    assert all(o.succeeded and o.ends_in_success for o in report.outcomes)
    again = collect(plans, tmp_path, SETTINGS)
    assert (len(again.outcomes), again.skipped) == (1, 2)
    assert point_envs[0].resets == 3
    dataset = EpisodeDataset.open(tmp_path)
    assert sorted(e.meta.init_state_id for e in dataset.entries) == [0, 1, 2]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"image_size": 32}, "image_size was 16, is 32"),
        ({"cameras": ("wrist",)}, r"cameras was \('agentview',\), is \('wrist',\)"),
        ({"frame_stride_steps": 2}, "frame_stride_steps was 4, is 2"),
        ({"encoding": "png"}, "encoding was 'jpeg', is 'png'"),
        ({"quality": 50}, "quality was 95, is 50"),
        ({"max_episode_steps": 9}, "max_episode_steps was None, is 9"),
        ({"action_noise": 0.1}, r"action_noise was 0\.0, is 0\.1"),
    ],
)
def test_a_folder_never_mixes_settings(
    tmp_path: Path, point_envs: list[PointEnv], other: dict[str, Any], told: str
) -> None:
    settings = dataclasses.replace(SETTINGS, encoding="jpeg")
    collect([plan()], tmp_path, settings)
    for again in (plan(), plan(init_state_id=1)):  # one that is there, one that is not
        with pytest.raises(ConfigError, match=told):
            collect([again], tmp_path, dataclasses.replace(settings, **other))
    assert point_envs[0].resets == 1
    assert len(EpisodeDataset.open(tmp_path)) == 1


def test_collecting_into_a_folder_with_episodes_wants_to_be_asked_for(
    tmp_path: Path, point_envs: list[PointEnv]
) -> None:
    options = CollectOptions(
        out=tmp_path / "bank", task_ids="0", init_states="0-1", episodes=2, imperfect="none", image_size=16
    )
    assert len(run_collection(options).outcomes) == 2
    with pytest.raises(
        ConfigError, match=r"holds config\.yaml, episodes, manifest\.json; .*Continue it with --resume"
    ):
        run_collection(options)
    report = run_collection(dataclasses.replace(options, resume=True))
    assert (len(report.outcomes), report.skipped) == (0, 2)
    (tmp_path / "bank" / "card.json").touch()
    with pytest.raises(ConfigError, match=r"holds card\.json; nothing is overwritten\. Choose another"):
        run_collection(dataclasses.replace(options, resume=True))


def test_a_collection_whose_every_episode_is_lost_says_so(
    tmp_path: Path, point_envs: list[PointEnv], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(**_: Any) -> Any:
        raise SimulatorError("unstable")

    monkeypatch.setattr(point_envs[0], "reset", fail)
    arguments = ["--task-ids", "0", "--episodes", "2", "--image-size", "16"]
    assert main(["collect", "--out", str(tmp_path / "bank"), *arguments]) == 1
    assert "2 lost; run the same command with --resume to try them again." in capsys.readouterr().err


def test_an_episode_that_the_simulator_loses_is_reported_and_not_written(
    tmp_path: Path, point_envs: list[PointEnv], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(10_000))
    real = point_envs[0].step_unrendered

    def step(action: Any) -> Any:
        if next(steps) == 3:
            raise SimulatorError("unstable")
        return real(action)

    monkeypatch.setattr(point_envs[0], "step_unrendered", step)
    report = collect([plan(init_state_id=i) for i in range(2)], tmp_path, SETTINGS)
    assert [(o.error, o.num_steps > 0) for o in report.outcomes] == [("unstable", False), ("", True)]
    assert len(EpisodeDataset.open(tmp_path)) == 1


def test_workers_report_every_episode_of_every_chunk() -> None:
    run = functools.partial(map, CollectedEpisode)
    outcomes = list(collect_module._run_in_workers(run, [["a", "b"], ["c"], ["d", "e"]], 2))  # type: ignore[list-item]
    assert sorted(outcome.episode_id for outcome in outcomes) == ["a", "b", "c", "d", "e"]


def test_a_worker_that_dies_ends_the_collection_with_advice() -> None:
    run = functools.partial(map, os._exit)
    with pytest.raises(SimulatorError, match=r"Finished episodes are kept.*fewer workers"):
        list(collect_module._run_in_workers(run, [[3]], 2))  # type: ignore[list-item]


def _note_and_stay(folder: str) -> str:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
    return folder


_COLLECT = """
import functools
from vlac_gym.data import collect
if __name__ == "__main__":
    run = functools.partial(map, __import__({module!r}).{name})
    list(collect._run_in_workers(run, [[{folder!r}]] * 2, 2))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc which processes there are")
def test_workers_end_with_a_collection_that_is_killed(tmp_path: Path) -> None:
    facts = {"module": Path(__file__).stem, "name": _note_and_stay.__name__, "folder": str(tmp_path / "pids")}
    (tmp_path / "pids").mkdir()
    script = tmp_path / "script.py"
    script.write_text(_COLLECT.format(**facts))
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": paths})

    def started() -> list[Path]:
        return [Path("/proc") / path.name for path in (tmp_path / "pids").iterdir()]

    _wait_until(lambda: len(started()) == 2)
    parent.kill()
    parent.wait()
    _wait_until(lambda: not any(process.exists() for process in started()))


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_error_in_a_worker_is_raised_here() -> None:
    with pytest.raises(ValueError, match="invalid literal for int"):
        list(collect_module._run_in_workers(functools.partial(map, int), [["x"]], 2))  # type: ignore[list-item]


def test_bad_plans_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="Two plans have the id"):
        collect([plan(), plan()], out)
    with pytest.raises(ConfigError, match="Did you mean 'expert'"):
        collect([plan(policy="export")], out)
    with pytest.raises(ConfigError, match="workers >= 1, got 0"):
        collect([plan()], out, workers=0)
    with pytest.raises(ConfigError, match="Did you mean 'libero_spatial'"):
        CollectOptions(out=out, task_suite=("libero_spacial",)).plans()
    with pytest.raises(ConfigError, match="frame_stride_steps >= 1"):
        CollectOptions(out=out, frame_stride_steps=0).settings()
    with pytest.raises(ConfigError, match=r"action_noise in \[0, 1\], got 2\.0"):
        CollectOptions(out=out, action_noise=2.0).settings()
    with pytest.raises(ConfigError, match="one or more different cameras"):
        CollectOptions(out=out, cameras=("wrist", "wrist")).settings()
    with pytest.raises(ConfigError, match=r"Unknown light of view 'wrist@shado'.*Did you mean 'shadow'"):
        collect([plan()], out, RecordSettings(cameras=("agentview", "wrist@shado")))
    assert not out.exists()


def test_a_real_libero_episode_is_recorded(tmp_path: Path, libero_env: Any) -> None:
    from vlac_gym.data import write_episode
    from vlac_gym.policies import make_policy

    env = libero_env.unwrapped
    settings = RecordSettings(cameras=("agentview",), image_size=64, frame_stride_steps=10)
    policy = make_policy("expert:fail=stop")
    recorded = record_episode(
        env, policy, plan(task_id=0, policy="expert:fail=stop", imperfection="stop"), settings
    )
    episode = read_episode(write_episode(tmp_path, recorded))
    assert episode.meta.task == env.task.language
    assert episode.first_success_step is None
    assert episode.states.shape == (episode.num_steps + 1, 8)
    assert episode.view()[0].shape == (64, 64, 3)
    assert "stop" in set(episode.stages.tolist())
    # The arm stood still in the end and moved before.
    assert np.abs(np.diff(episode.states[-5:, :3], axis=0)).max() < 0.01
    assert np.abs(episode.states[0, :3] - episode.states[-1, :3]).max() > 0.02


def test_a_relit_view_is_recorded_beside_the_plain_one(tmp_path: Path, libero_env: Any) -> None:
    from vlac_gym.data import write_episode
    from vlac_gym.policies import make_policy

    env = libero_env.unwrapped
    short = plan(task_id=0, policy="zero")
    states = []
    for cameras in (("agentview",), ("agentview", "agentview@diffuse", "wrist@shadow")):
        settings = RecordSettings(cameras=cameras, frame_stride_steps=10, encoding="png")
        recorded = record_episode(env, make_policy("zero"), short, settings)
        episode = read_episode(write_episode(tmp_path, recorded))
        assert list(episode.frames) == list(cameras)
        states.append((episode.states, episode.view()[-1]))
    np.testing.assert_array_equal(states[0][0], states[1][0])
    np.testing.assert_array_equal(states[0][1], states[1][1])
    plain, warm = episode.view("agentview")[-1], episode.view("agentview@diffuse")[-1]
    assert warm[..., 2].mean() < 0.6 * plain[..., 2].mean()  # blue goes first
