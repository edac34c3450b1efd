"""The reward wrapper around vector envs that are not ours: what ours returns, no leak, and what is refused."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError, ResetNeeded
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import Autoreset
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from vector_envs import LookingCritic, ShadedEnv, per_env

from vlac_gym.errors import ConfigError, CriticConnectionError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

LENGTHS = (3, 7, 2, 5)
SUCCESSES = ((2,), (), (1, 2), (4, 5))
N = len(LENGTHS)
MODES = [mode.value for mode in AutoresetMode]
ACTIONS = np.zeros((N, 7), np.float32)

CAN_GO_ON = [
    (kind, autoreset, "truncate") for kind in (SyncVectorEnv, AsyncVectorEnv) for autoreset in MODES
] + [(AsyncVectorEnv, "Disabled", "ignore")]


def env_fns(successes: Any = SUCCESSES) -> list:
    return [
        partial(ShadedEnv, shade=i, max_episode_steps=n, success_steps=list(steps))
        for i, (n, steps) in enumerate(zip(LENGTHS, successes))
    ]


def wrapped(env: VectorEnv, **options: Any) -> tuple[VLACRewardWrapper, LookingCritic]:
    critic = LookingCritic(options.pop("done_share", 0.2))
    return VLACRewardWrapper(env, critic, **options), critic


def ours(autoreset: str, **options: Any) -> tuple[VLACRewardWrapper, LookingCritic]:
    return wrapped(RolloutVectorEnv(env_fns(), mode="sync", autoreset_mode=autoreset), **options)


def same(found: tuple, expected: tuple) -> None:
    """Equal arrays and types, infos and observations."""
    *found_arrays, found_infos = found[1:]
    *expected_arrays, expected_infos = expected[1:]
    for mine, theirs in zip(found_arrays, expected_arrays):
        assert (mine.dtype, mine.tolist()) == (theirs.dtype, theirs.tolist())
    assert set(found_infos) == set(expected_infos)
    np.testing.assert_equal(per_env(found_infos, N), per_env(expected_infos, N))
    for key, value in expected[0].items():
        assert np.array_equal(found[0][key], value), key


@pytest.mark.parametrize("preset", ["vlac", "dense"])
@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize(("kind", "autoreset", "on_sim_terminated"), CAN_GO_ON)
def test_it_returns_what_our_own_vector_env_returns(kind, autoreset, on_sim_terminated, limit, preset):
    options = {
        "on_sim_terminated": on_sim_terminated,
        "max_episode_steps": limit,
        "preset": preset,
        "done_interval": 2,
        "value_stride": 3,
    }
    expected, expected_critic = ours(autoreset, **options)
    found, critic = wrapped(kind(env_fns(), autoreset_mode=autoreset), **options)
    assert found.autoreset_mode is AutoresetMode(autoreset)
    same(found.reset(seed=3), expected.reset(seed=3))
    for step in range(16):
        result = found.step(ACTIONS)
        same(result, expected.step(ACTIONS))
        over = result[2] | result[3]
        if autoreset == "Disabled" and over.any():
            seed = 10 * step if step % 2 else None
            same(*(env.reset(seed=seed, options={"reset_mask": over}) for env in (found, expected)))
    assert critic.calls == expected_critic.calls
    assert critic.seen == expected_critic.seen
    assert {name for name, _ in critic.calls} >= (
        {"success_prob", "values"} if preset == "vlac" else {"progress"}
    )
    for env in (found, expected):
        env.close()


@pytest.mark.parametrize(
    ("kind", "on_sim_terminated"),
    [(SyncVectorEnv, "truncate"), (AsyncVectorEnv, "truncate"), (AsyncVectorEnv, "ignore")],
)
def test_under_disabled_an_env_that_is_over_idles_until_its_reset(kind, on_sim_terminated):
    options: dict[str, Any] = {"on_sim_terminated": on_sim_terminated, "done_share": 0.0}
    expected, expected_critic = ours("Disabled", **options)
    found, critic = wrapped(kind(env_fns(), autoreset_mode="Disabled"), **options)
    for env in (found, expected):
        env.reset(seed=3)
    over = np.zeros(N, np.bool_)
    for _ in range(9):  # past the end of all
        result, theirs = found.step(ACTIONS), expected.step(ACTIONS)
        for mine, their in zip(result[1:4], theirs[1:4]):
            assert mine.tolist() == their.tolist()
        np.testing.assert_equal(per_env(result[4], N), per_env(theirs[4], N))
        for key, value in theirs[0].items():
            assert np.array_equal(result[0][key][~over], value[~over]), key
        over = result[2] | result[3]
    assert over.all()
    assert (critic.calls, critic.seen) == (expected_critic.calls, expected_critic.seen)
    assert found.reset(seed=4, options={"reset_mask": over})[1]["elapsed_steps"].tolist() == [0] * N
    assert found.step(ACTIONS)[2:4][0].tolist() == [False] * N
    for env in (found, expected):
        env.close()


@pytest.mark.parametrize("autoreset", MODES)
def test_eval_is_what_the_env_returns_and_asks_no_critic(autoreset):
    bare = SyncVectorEnv(env_fns(), autoreset_mode=autoreset)
    env, critic = wrapped(
        SyncVectorEnv(env_fns(), autoreset_mode=autoreset), mode="eval", on_sim_terminated="truncate"
    )
    assert repr(env.reset(seed=1)) == repr(bare.reset(seed=1))
    for _ in range(1 if autoreset == "Disabled" else 6):
        assert repr(env.step(ACTIONS)) == repr(bare.step(ACTIONS))
    assert critic.calls == []


def test_no_signal_of_the_simulator_reaches_the_policy():
    """Env i succeeds at steps of its own, or never: all that a policy sees and is paid stays the same."""

    def seen(successes):
        env, _ = wrapped(AsyncVectorEnv(env_fns(successes), autoreset_mode="Disabled"), value_stride=2)
        visible = [env.reset(seed=0)[0]]
        for step in range(12):
            observations, rewards, terminations, truncations, infos = env.step(ACTIONS)
            assert not {"success", "is_success"} & set(infos)
            visible.append((observations, rewards, terminations, truncations))
            if (over := terminations | truncations).any():
                visible.append(env.reset(seed=step, options={"reset_mask": over})[0])
        env.close()
        return visible

    expected = seen([()] * N)
    for successes in (SUCCESSES, [range(9)] * N):
        np.testing.assert_equal(seen(successes), expected)


@pytest.mark.parametrize("autoreset", MODES)
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_an_env_that_would_cut_training_episodes_is_refused_with_what_to_do(kind, autoreset):
    env = kind(env_fns(), autoreset_mode=autoreset)
    if (kind, autoreset) == (AsyncVectorEnv, "Disabled"):
        wrapped(env)
    else:
        why = "steps no env past its own end" if autoreset == "Disabled" else "resets its envs itself"
        with pytest.raises(ConfigError, match=rf"{why}.*RolloutVectorEnv.*DISABLED.*'truncate'"):
            wrapped(env)
    env.close()


def test_the_step_limit_of_an_env_that_resets_itself_holds_beside_the_wrappers():
    env, _ = wrapped(
        SyncVectorEnv(env_fns([()] * N), autoreset_mode="SameStep"),
        on_sim_terminated="truncate",
        max_episode_steps=5,
        done_share=0.0,
    )
    env.reset(seed=0)
    lengths: list = [[] for _ in range(N)]
    for _ in range(11):
        infos = env.step(ACTIONS)[4]
        for i in np.flatnonzero(infos.get("_final_info", [])):
            assert infos["final_info"]["critic"]["stopped_by"][i] == "step_limit"
            lengths[i].append(int(infos["final_info"]["elapsed_steps"][i]))
    assert lengths == [[min(n, 5)] * (11 // min(n, 5)) for n in LENGTHS]


def test_other_things_are_refused():
    plain = SyncVectorEnv(env_fns(), autoreset_mode="NextStep")
    with pytest.raises(ConfigError, match=r"Expected a gymnasium.vector.VectorEnv, got .*takes one env"):
        wrapped(ShadedEnv())
    with pytest.raises(
        ConfigError, match=r"Put vector wrappers around this one: ActionChunk\(VLACRewardWrapper\("
    ):
        wrapped(ActionChunk(RolloutVectorEnv(env_fns(), mode="sync"), 2))
    with pytest.raises(ConfigError, match=r"another vector env without .*VLACRewardWrapper"):
        wrapped(wrapped(plain, on_sim_terminated="truncate")[0], on_sim_terminated="truncate")
    inside = SyncVectorEnv([ShadedEnv, lambda: Autoreset(ShadedEnv())])
    with pytest.raises(ConfigError, match=r"Expected env 1 without Autoreset"):
        wrapped(inside, on_sim_terminated="truncate")
    plain.metadata.pop("autoreset_mode")
    with pytest.raises(
        ConfigError, match=r"Expected an AutoresetMode in metadata\['autoreset_mode'\].* got None"
    ):
        wrapped(plain)


def test_chunks_and_masks_need_our_own_vector_env():
    env, _ = wrapped(SyncVectorEnv(env_fns()), on_sim_terminated="truncate")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="Expected a RolloutVectorEnv for chunks and masks"):
        env.step_chunk(ACTIONS[:, None])
    with pytest.raises(ConfigError, match=r"Expected an env from vlac_gym\.make_vec"):
        ActionChunk(env, 2)
    assert env.step(ACTIONS)[4]["elapsed_steps"].tolist() == [1] * N


def test_other_vector_wrappers_may_lie_inside_and_around():
    inside = RecordEpisodeStatistics(SyncVectorEnv(env_fns(), autoreset_mode="NextStep"))
    env = RecordEpisodeStatistics(wrapped(inside, on_sim_terminated="truncate", done_share=0.0)[0])
    env.reset(seed=0)
    lengths: list = [[] for _ in range(N)]
    for _ in range(8):
        infos = env.step(ACTIONS)[4]
        for i in np.flatnonzero(infos.get("_episode", [])):
            lengths[i].append(int(infos["episode"]["l"][i]))
    assert lengths == [[2, 2, 2], [7], [1, 1, 1, 1], [4]]


def test_bad_actions_masks_and_missing_resets_move_nothing():
    env, _ = wrapped(SyncVectorEnv(env_fns()), on_sim_terminated="truncate")
    with pytest.raises(ResetNeeded, match=r"Call reset\(\)"):
        env.step(ACTIONS)
    with pytest.raises(ConfigError, match="Expected a reset of all envs first"):
        env.reset(options={"reset_mask": np.array([True, False, True, True])})
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="NaN or infinity"):
        env.step(np.full_like(ACTIONS, np.nan))
    with pytest.raises(ConfigError, match=r"as bool \(4,\)"):
        env.reset(options={"reset_mask": [1, 0]})
    assert env.step(ACTIONS)[4]["elapsed_steps"].tolist() == [1] * N


def test_the_mode_switches_between_episodes_only_and_a_lost_critic_needs_a_reset():
    class DeadCritic(LookingCritic):
        def success_prob(self, frames, tasks):
            raise CriticConnectionError("gone")

    env = VLACRewardWrapper(SyncVectorEnv(env_fns()), DeadCritic(), on_sim_terminated="truncate", mode="eval")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="while an episode is running"):
        env.set_mode("train")
    env.reset(seed=0, options={"mode": "train"})
    with pytest.raises(CriticConnectionError):
        env.step(ACTIONS)
    with pytest.raises(ResetNeeded, match="no running episodes"):
        env.step(ACTIONS)
    assert env.reset(seed=0)[1]["elapsed_steps"].tolist() == [0] * N


def test_no_training_episode_goes_on_in_eval_mode():
    env, _ = wrapped(AsyncVectorEnv(env_fns([()] * N), autoreset_mode="Disabled"), max_episode_steps=1)
    env.reset(seed=0)
    env.step(ACTIONS)
    env.set_mode("eval")
    with pytest.raises(ConfigError, match="Expected a reset of all envs first, got a reset_mask"):
        env.reset(options={"reset_mask": np.array([True, False, False, False])})
    with pytest.raises(ResetNeeded):
        env.step(ACTIONS)
    env.reset(seed=0)
    assert env.step(ACTIONS)[4]["elapsed_steps"].tolist() == [1] * N
    env.close()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nothing_comes_between_the_halves_of_a_step(mode):
    env, _ = wrapped(
        SyncVectorEnv(env_fns([()] * N)), on_sim_terminated="truncate", done_share=0.0, mode=mode
    )
    env.reset(seed=0)
    env.step_async(ACTIONS)
    for meddle in (
        partial(env.reset, options={"reset_mask": np.array([True, False, False, False])}),
        env.reset,
        partial(env.reset, options={"mode": "eval"}),
        partial(env.set_mode, "shaping", abandon=True),
        partial(env.step_async, ACTIONS),
    ):
        with pytest.raises(AlreadyPendingCallError):
            meddle()
    assert env.step_wait()[4]["elapsed_steps"].tolist() == [1] * N
    with pytest.raises(NoAsyncCallError):
        env.step_wait()
    assert env.step(ACTIONS)[4]["elapsed_steps"].tolist() == [2] * N


def test_wrappers_in_other_processes_are_seen():
    fns = env_fns([()] * N)
    inside = AsyncVectorEnv([*fns[:2], partial(_resets_itself, fns[2]), fns[3]], autoreset_mode="Disabled")
    with pytest.raises(
        ConfigError, match="Expected env 2 without Autoreset, which would let the simulator's success"
    ):
        wrapped(inside)
    inside.close()


def test_infos_as_lists_are_made_outside():
    with pytest.raises(ConfigError, match=r"around this one: DictInfoToList\(VLACRewardWrapper\(env, …\)\)"):
        wrapped(DictInfoToList(SyncVectorEnv(env_fns())), on_sim_terminated="truncate")
    env = DictInfoToList(wrapped(SyncVectorEnv(env_fns()), on_sim_terminated="truncate")[0])
    assert env.reset(seed=0)[1][0]["elapsed_steps"] == 0


def _resets_itself(env_fn: Any) -> gym.Env:
    return Autoreset(env_fn())


class TensorEnvs(VectorEnv):
    """N envs as a GPU-batched simulator has them: tensors all over, no masks in infos, truncation only."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, num_envs: int, limit: int) -> None:
        self.num_envs, self.limit = num_envs, limit
        images = gym.spaces.Dict({"rgb": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)})
        self.single_observation_space = gym.spaces.Dict({"sensor_data": images})
        self.single_action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        import torch

        if options is None:
            self.steps, self.moved = torch.zeros(self.num_envs, dtype=torch.int64), []
        else:
            self.steps[torch.as_tensor(options["reset_mask"])] = 0
        return self._observation(), {"elapsed_steps": self.steps.clone()}

    def step(self, actions):
        self.moved.append(actions)
        self.steps += 1
        done = self.steps >= self.limit
        info = {"elapsed_steps": self.steps.clone(), "success": self.steps == 2}
        return self._observation(), self.steps * 0.5, self.steps == 2, done, info

    def _observation(self):
        import torch

        rgb = self.steps.to(torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3)
        return {"sensor_data": {"rgb": rgb}}


def test_batched_tensors_get_the_rule():
    torch = pytest.importorskip("torch")
    seen = []

    class Counting(LookingCritic):
        def success_prob(self, frames, tasks):
            seen.append([int(frame[0, 0, 0]) for frame in frames])
            return np.array([0.95 if frame[0, 0, 0] == 3 else 0.1 for frame in frames], np.float32)

    envs = TensorEnvs(2, limit=9)
    env = VLACRewardWrapper(
        envs, Counting(), task="count", frame=lambda observation, info: observation["sensor_data"]["rgb"]
    )
    env.reset(seed=0)
    actions = torch.zeros(2, 2)
    results = [env.step(actions) for _ in range(3)]
    assert envs.moved[0] is actions  # not taken off its device
    assert [result[1].tolist() for result in results] == [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    assert results[2][2].tolist() == [True, True]
    assert results[1][4]["sim_success"].tolist() == [True, True]
    assert (results[1][4]["env_reward"].tolist(), "success" in results[1][4]) == ([1.0, 1.0], False)
    assert results[2][0]["sensor_data"]["rgb"].shape == (2, 4, 4, 3)
    _, infos = env.reset(options={"reset_mask": np.array([True, False])})
    assert infos["elapsed_steps"][0] == 0
    assert env.step(actions)[3].tolist() == [False, False]
    assert seen == [[1, 1], [2, 2], [3, 3], [1]]
