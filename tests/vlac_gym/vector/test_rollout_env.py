"""Many envs as one: Gymnasium's contract, seeds, options, groups and partial steps."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from vector_envs import FaultyEnv, ShadedEnv, SingleEnvs, as_singles

from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, SimulatorError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.commands import Lost, StepCommand, StepReply
from vlac_gym.vector.executor import InlineExecutor

AUTORESETS = ["NextStep", "SameStep", "Disabled"]
SHADED = [partial(ShadedEnv, shade=i, max_episode_steps=2 + i, success_steps=[3]) for i in range(3)]


def actions(count: int, *length: int) -> np.ndarray:
    return np.zeros((count, *length, 7), np.float32)


def build(env_fns: Any = SHADED, **options: Any) -> RolloutVectorEnv:
    return RolloutVectorEnv(env_fns, **{"mode": "sync"} | options)


@pytest.mark.parametrize("autoreset", AUTORESETS)
def test_steps_equal_single_envs(autoreset):
    singles = SingleEnvs([fn() for fn in SHADED], autoreset)
    env = build(autoreset_mode=autoreset)
    env.reset(seed=3)
    singles.reset(seed=3)
    for _ in range(9):
        is_idle = [over and autoreset == "Disabled" for over in singles.is_over]
        assert as_singles(env.step(actions(3)), is_idle) == singles.step(actions(3))


@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep"])
def test_agrees_with_gymnasiums_own_vector_env(autoreset):
    ours, theirs = build(autoreset_mode=autoreset), SyncVectorEnv(SHADED, autoreset_mode=autoreset)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata == theirs.metadata
    ours.reset(seed=3)
    theirs.reset(seed=3)
    for _ in range(9):
        (images, *arrays, infos), (wanted, *others, wanted_infos) = (
            ours.step(actions(3)),
            theirs.step(actions(3)),
        )
        assert images["agentview_image"].tobytes() == wanted["agentview_image"].tobytes()
        assert [array.tobytes() for array in arrays] == [array.tobytes() for array in others]
        for key in ("elapsed_steps", "_elapsed_steps", "draw", "success", "_final_obs"):
            assert (key in infos) == (key in wanted_infos)
            assert np.array_equal(infos.get(key, 0), wanted_infos.get(key, 0))


def test_disabled_env_idles_where_it_ended_until_it_is_reset():
    env = build([partial(ScriptedEnv, max_episode_steps=n) for n in (1, 9)], autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(actions(2))
    for _ in range(2):
        observations, rewards, terminations, truncations, infos = env.step(actions(2))
    assert observations["state"].ravel().tolist() == [1.0, 3.0]
    assert rewards.tolist() == [0.0, 0.0]
    assert terminations.tolist() == [False, False]
    assert truncations.tolist() == [True, False]
    assert infos["_elapsed_steps"].tolist() == [False, True]
    assert env.get_attr("num_steps") == (1, 3)
    observations, _ = env.reset(options={"reset_mask": np.array([True, False])})
    assert observations["state"].ravel().tolist() == [0.0, 3.0]
    assert env.step(actions(2))[4]["elapsed_steps"].tolist() == [1, 4]


def test_same_start_from_the_same_seed_and_another_from_each_env():
    env = build()
    draws = env.reset(seed=7)[1]["draw"].tolist()
    alone = [fn().reset(seed=7 + i)[1]["draw"] for i, fn in enumerate(SHADED)]
    assert draws == alone
    assert len(set(draws)) == 3
    assert env.reset(seed=[9, 8, 7])[1]["draw"].tolist()[2] == draws[0]


def test_options_are_dealt_out_and_left_alone():
    env = build()
    options = {"task_id": [4, None, 6], "init_state_id": np.array([1, 2, 3]), "speed": 0.5}
    kept = dict(options)
    infos = env.reset(options=options)[1]
    assert options == kept
    assert infos["options"]["task_id"].tolist() == [4, 0, 6]
    assert infos["options"]["_task_id"].tolist() == [True, False, True]
    assert infos["options"]["init_state_id"].tolist() == [1, 2, 3]
    assert infos["options"]["speed"].tolist() == [0.5] * 3


def test_groups_start_alike_through_every_reset():
    fns = [partial(ShadedEnv, shade=i, max_episode_steps=1 + i % 2) for i in range(4)]
    env = build(fns, group_size=2, autoreset_mode="SameStep")
    starts: list[list[int]] = [[] for _ in fns]

    def note(infos: dict[str, Any]) -> None:
        for i in range(4):
            if infos["elapsed_steps"][i] == 0:
                starts[i].append(int(infos["draw"][i]))

    note(env.reset(seed=1)[1])
    for _ in range(6):
        note(env.step(actions(4))[4])
    # One of each pair has episodes twice as long, and so half as many.
    assert [len(episodes) for episodes in starts] == [7, 4, 7, 4]
    assert starts[0][:4] == starts[1]
    assert starts[2][:4] == starts[3]
    assert set(starts[0]).isdisjoint(starts[2])
    draws = env.reset()[1]["draw"].tolist()
    assert draws[0] == draws[1]
    assert draws[2] == draws[3]
    assert env.reset(options={"task_id": [5, 6]})[1]["options"]["task_id"].tolist() == [5, 5, 6, 6]


def test_automatic_resets_ask_for_their_options():
    asked = []

    def next_task(index: int) -> dict[str, int]:
        asked.append(index)
        return {"task_id": 10 * len(asked)}

    for autoreset, at in (("SameStep", 2), ("NextStep", 3)):
        asked.clear()
        env = build(autoreset_mode=autoreset, episode_options=next_task)
        env.reset(seed=0)
        assert asked == []
        for _ in range(at):
            infos = env.step(actions(3))[4]
        assert asked == [0]
        assert infos["options"]["task_id"][0] == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_id": [1, 2, 3]}, r"Expected 4 entries or 2 \(one per group\) in reset's 'task_id', got 3"),
        ({"task_id": [1, 2, 3, 3]}, r"one 'task_id' for the group from env 0 on, got \[1, 2\]"),
        ({"reset_mask": np.zeros(4, bool)}, "at least one True"),
        ({"reset_mask": [1, 0, 0, 0]}, "reset_mask as bool"),
    ],
)
def test_bad_reset_options_are_refused(options, message):
    env = build([ShadedEnv] * 4, group_size=2)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=message):
        env.reset(options=options)
    assert env.step(actions(4))[4]["elapsed_steps"].tolist() == [1] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 2}, "group_size to divide num_envs 3"),
        ({"mode": "asynch"}, "Did you mean 'async'"),
        ({"context": "fork"}, "Unknown context 'fork'"),
        ({"envs_per_worker": 0}, "envs_per_worker >= 1"),
        ({"mode": "sync", "pin_workers": True}, "pin_workers with mode='async' only"),
        ({"step_timeout_s": 0.0}, "step_timeout_s above 0"),
        ({"worker_niceness": -1}, "worker_niceness >= 0"),
        ({"mode": "sync", "worker_niceness": 5}, "worker_niceness with mode='async' only"),
    ],
)
def test_bad_construction_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_observations_that_fit_no_shared_array_are_refused():
    class Wordy(ScriptedEnv):
        def __init__(self):
            super().__init__()
            self.observation_space = gym.spaces.Dict({"text": gym.spaces.Text(9)})

    with pytest.raises(ConfigError, match=r"Expected the observation\['text'\] as one of Box"):
        build([Wordy])


def test_envs_that_take_other_actions_are_refused():
    class Handless(ScriptedEnv):
        def __init__(self):
            super().__init__()
            self.action_space = gym.spaces.Box(-1.0, 1.0, (6,), np.float32)

    env = build([ScriptedEnv, Handless])
    with pytest.raises(ConfigError, match=r"Env 1: Expected every env .* to take Box\(-1.0, 1.0, \(7,\)"):
        env.reset()
    env.close()


def test_envs_that_observe_differently_are_refused():
    env = build([ScriptedEnv, partial(ScriptedEnv, image_size=9)])
    with pytest.raises(ConfigError, match="Env 1: Expected every env to observe"):
        env.reset(seed=0)


def test_refused_actions_move_nothing():
    env = build()
    env.reset(seed=0)
    for bad, message in (
        (actions(2), r"Expected actions of shape \(3, 7\), got \(2, 7\); nothing moved"),
        (np.full((3, 7), np.inf), r"NaN or infinity for envs \[0, 1, 2\]"),
        ([[None] * 7] * 3, "Expected actions as real numbers, got dtype object; nothing moved"),
        ([[1j] * 7] * 3, "as real numbers, got dtype complex128"),
        ([[0.0] * 7, [0.0], [0.0] * 7], "Expected actions as one array, got .*inhomogeneous.*nothing moved"),
    ):
        with pytest.raises(ConfigError, match=message):
            env.step(bad)
        with pytest.raises(ConfigError):
            env.step_chunk([[row] for row in bad])
    assert env.get_attr("num_steps") == (0, 0, 0)


def test_an_order_runs_its_own_number_of_steps_in_each_env_and_looks_once():
    env = build([partial(ShadedEnv, max_episode_steps=20)] * 3)
    env.reset(seed=0)
    for noted in env.get_attr("rendered"):
        noted.clear()
    replies = env.execute({0: StepCommand(actions(4)), 2: StepCommand(actions(2))})
    assert sorted(replies) == [0, 2]
    assert [len(reply.rewards) for reply in replies.values()] == [4, 2]
    assert env.get_attr("rendered") == ([4], [], [2])
    assert [int(env.observation(i)["state"][0]) for i in range(3)] == [4, 0, 2]


def test_an_order_stops_only_where_it_is_told_to():
    env = build([partial(ShadedEnv, max_episode_steps=2, success_steps=[1])])
    for options, executed in (
        ({}, 1),
        ({"stops_at_terminated": False}, 2),
        ({"stops_at_terminated": False, "stops_at_truncated": False}, 4),
    ):
        env.reset(seed=0)
        (reply,) = env.execute({0: StepCommand(actions(4), **options)}).values()
        assert isinstance(reply, StepReply)
        assert len(reply.rewards) == executed
        assert reply.successes == (True, False, False, False)[:executed]


def test_failed_physics_lose_the_episode_and_a_bug_is_raised():
    env = build([partial(FaultyEnv, "physics"), ShadedEnv])
    env.reset(seed=0)
    env.step(actions(2))
    reply = env.execute({i: StepCommand(actions(1)) for i in range(2)})[0]
    assert reply == Lost("the physics became unstable")
    assert isinstance(env.execute({0: StepCommand(actions(1))})[0], Lost)

    env = build([partial(FaultyEnv, "bug"), ShadedEnv])
    env.reset(seed=0)
    env.step(actions(2))
    with pytest.raises(SimulatorError, match=r"(?s)Env 0 raised KeyError: 'a bug'\n.*in step_unrendered"):
        env.step(actions(2))
    with pytest.raises(ResetNeeded, match=r"Envs \[0, 1\] have no episode"):
        env.step(actions(2))
    with pytest.raises(ConfigError, match="leaves some unstarted"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset()
    env.step(actions(2))


def test_step_wait_without_step_and_step_twice_are_errors():
    env = build()
    with pytest.raises(ResetNeeded, match="Call reset"):
        env.step(actions(3))
    env.reset(seed=0)
    with pytest.raises(NoAsyncCallError, match="step_async"):
        env.step_wait()
    env.step_async(actions(3))
    with pytest.raises(AlreadyPendingCallError, match="step_wait"):
        env.step_async(actions(3))
    assert env.step_wait()[4]["elapsed_steps"].tolist() == [1, 1, 1]


def test_copies_stay_and_views_change():
    for copy, expected in ((True, [0.0] * 3), (False, [1.0] * 3)):
        env = build(copy=copy)
        first, _ = env.reset(seed=0)
        env.step(actions(3))
        assert first["state"].ravel().tolist() == expected


def test_render_and_call_reach_every_env():
    env = build([partial(ShadedEnv, shade=i, render_mode="rgb_array") for i in range(2)])
    env.reset(seed=0)
    assert [int(frame[0, 1, 0]) for frame in env.render()] == [0, 1]
    assert env.get_attr("shade") == (0, 1)


def test_spaces_other_than_boxes_are_stepped_too():
    env = build([partial(gym.make, "CartPole-v1")] * 2)
    theirs = SyncVectorEnv([partial(gym.make, "CartPole-v1")] * 2)
    assert env.reset(seed=3)[0].tolist() == theirs.reset(seed=3)[0].tolist()
    for _ in range(30):
        ours, wanted = env.step(np.array([1, 0])), theirs.step(np.array([1, 0]))
        assert [array.tolist() for array in ours[:4]] == [array.tolist() for array in wanted[:4]]


def test_autoreset_mode_is_in_the_metadata():
    assert build(autoreset_mode=AutoresetMode.SAME_STEP).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    with pytest.raises(ConfigError, match="Did you mean 'SameStep'"):
        build(autoreset_mode="SameSteps")


def test_chunk_remembers_a_success_that_passes_and_tells_silence_from_failure():
    class Passing(ShadedEnv):
        def step_unrendered(self, action):
            reward, _, truncated = super().step_unrendered(action)
            return reward, False, truncated

    class Silent(ShadedEnv):
        def _info(self, step):
            return {key: value for key, value in super()._info(step).items() if key != "success"}

    env = build([partial(Passing, success_steps=[2]), Passing, Silent])
    env.reset(seed=0)
    assert env.step_chunk(actions(3, 3)).successes == (True, False, None)
    assert env.step_chunk(actions(3, 3)).successes == (False, False, None)


def test_workers_may_be_anybodys():
    given = {}

    def start(env_fns, spaces, /, **options):
        given.update(options)
        return InlineExecutor(env_fns, spaces)

    env = build(mode=start, start_timeout_s=7.0, step_timeout_s=5.0, max_restarts=2)
    env.reset(seed=0)
    assert env.step(actions(3))[4]["elapsed_steps"].tolist() == [1, 1, 1]
    assert given == {"start_timeout_s": 7.0, "step_timeout_s": 5.0, "max_restarts": 2}
