"""The training rule for many envs: N envs at once return what N single ones return."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, ResetNeeded
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vector_envs import FaultyEnv, LookingCritic, ShadedEnv, SingleEnvs, as_singles, digest, per_env
from wrapped_vector_envs import AUTORESETS, actions, build

from vlac_gym.critic.scripted import CriticCall, ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticConnectionError, CriticResponseError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers import VLACRewardWrapper as SingleWrapper
from vlac_gym.wrappers.vector import VLACRewardWrapper


def _held_back_by_the_value(stride: int) -> dict[str, Any]:
    return {
        "lengths": [9, 7], "autoreset": "NextStep", "preset": "vlac", "interval": 2, "stride": stride,
        "limit": None, "on_sim_terminated": "ignore", "mode": "train", "done_share": 0.9, "patience": 1,
        "min_steps": 0, "min_value": 1.0, "as_terminal": False,
    }  # fmt: skip


@example(**_held_back_by_the_value(1))
@example(**_held_back_by_the_value(5))
@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    autoreset=st.sampled_from(AUTORESETS),
    preset=st.sampled_from(["vlac", "vlac", "dense", "pbrs", "evolve"]),
    interval=st.integers(1, 4),
    stride=st.integers(1, 5),
    limit=st.sampled_from([None, 1, 6]),
    on_sim_terminated=st.sampled_from(["ignore", "truncate"]),
    mode=st.sampled_from(["train", "eval", "shaping"]),
    done_share=st.sampled_from([0.0, 0.2, 0.9]),
    patience=st.integers(1, 2),
    min_steps=st.sampled_from([0, 3]),
    min_value=st.sampled_from([None, 0.75]),
    as_terminal=st.booleans(),
)
def test_n_envs_equal_n_single_envs(
    lengths,
    autoreset,
    preset,
    interval,
    stride,
    limit,
    on_sim_terminated,
    mode,
    done_share,
    patience,
    min_steps,
    min_value,
    as_terminal,
):
    options = {
        "preset": preset,
        "mode": mode,
        "done_interval": interval,
        "milestone_interval": 2 * interval,
        "value_stride": stride,
        "max_episode_steps": limit,
        "on_sim_terminated": on_sim_terminated,
        "done_patience": patience,
        "min_steps": min_steps,
        "min_value": min_value,
        "truncate_as_terminal": as_terminal,
    }
    env_fns = [
        partial(ShadedEnv, shade=i, max_episode_steps=length, success_steps=[2 + i])
        for i, length in enumerate(lengths)
    ]
    singles = SingleEnvs(
        [SingleWrapper(fn(), LookingCritic(done_share), **options) for fn in env_fns], autoreset
    )
    critic = LookingCritic(done_share)
    vector = build(env_fns, critic, autoreset, **options)

    observations, infos = vector.reset(seed=5)
    begun = [
        (digest({key: value[i] for key, value in observations.items()}), info)
        for i, info in enumerate(per_env(infos, len(lengths)))
    ]
    assert begun == singles.reset(seed=5)
    for _ in range(14):
        is_idle = [over and autoreset == "Disabled" for over in singles.is_over]
        critic.calls.clear()
        result = vector.step(actions(len(lengths)))
        assert as_singles(result, is_idle) == singles.step(actions(len(lengths)))
        methods = [method for method, _ in critic.calls]
        assert len(methods) == len(set(methods)), "more than one call of a kind in one vector step"
    vector.close()


def test_one_round_per_step_about_running_envs_only():
    critic = LookingCritic(done_share=0.0)
    lengths = [1, 3, 2]
    env = build(
        [partial(ShadedEnv, shade=i, max_episode_steps=n) for i, n in enumerate(lengths)], critic, "Disabled"
    )
    env.reset(seed=0)
    for _ in range(4):
        env.step(actions(3))
    assert critic.seen == [
        [(0, 1, 1), (1, 1, 1), (2, 1, 1)],
        [(0, 1, 1)],
        [(1, 1, 2), (2, 1, 2)],
        [(2, 1, 2)],
        [(1, 1, 3)],
        [(1, 1, 3)],
    ]
    assert [method for method, _ in critic.calls] == ["success_prob", "values"] * 3


def test_the_critics_verdict_ends_one_env_and_the_sims_success_none():
    critic = ScriptedCritic(success_probs=[0.1, 0.95, 0.1, 0.1])
    env = build([partial(ScriptedEnv, success_steps=[1, 2])] * 2, critic, "Disabled")
    env.reset(seed=0)
    _, rewards, terminations, truncations, infos = env.step(actions(2))
    assert (rewards.tolist(), terminations.tolist()) == ([0.0, 1.0], [False, True])
    assert truncations.tolist() == [False, False]
    assert infos["sim_success"].tolist() == [True, True]
    assert "success" not in infos
    assert infos["critic"]["stopped_by"].tolist() == [None, "success_prob"]
    assert infos["critic"]["_stopped_by"].tolist() == [False, True]
    # The env that is over keeps saying so, unpaid and unasked.
    _, rewards, terminations, _, infos = env.step(actions(2))
    assert (rewards.tolist(), terminations.tolist()) == ([0.0, 0.0], [False, True])
    assert critic.calls == [CriticCall("success_prob", 2), CriticCall("success_prob", 1)]
    assert infos["critic"]["_checked"].tolist() == [True, False]


@pytest.mark.parametrize("autoreset", AUTORESETS)
def test_end_at_the_limit_is_terminal_on_demand_and_a_lost_episode_is_not(autoreset):
    critic = ScriptedCritic(success_probs=[0.1], values=[[0.0, 0.5]])
    env_fns = [partial(ShadedEnv, max_episode_steps=1), partial(FaultyEnv, "physics", at_step=1)]
    env = build(env_fns, critic, autoreset, truncate_as_terminal=True)
    env.reset(seed=0)
    _, rewards, terminations, truncations, _ = env.step(actions(2))
    assert rewards.tolist() == [0.5, 0.0]
    assert terminations.tolist() == [True, False]
    assert truncations.tolist() == [False, True]


def test_masked_reset_starts_one_env_anew():
    env = build(
        [partial(ShadedEnv, shade=i, max_episode_steps=2) for i in range(2)], LookingCritic(0.0), "Disabled"
    )
    env.reset(seed=0)
    env.step(actions(2))
    observations, infos = env.reset(options={"reset_mask": np.array([False, True])})
    assert observations["state"].ravel().tolist() == [1.0, 0.0]
    assert infos["_critic"].tolist() == [False, True]
    _, _, _, truncations, infos = env.step(actions(2))
    assert truncations.tolist() == [True, False]
    assert infos["elapsed_steps"].tolist() == [2, 1]


def test_same_step_keeps_the_final_observation_and_info():
    critic = ScriptedCritic(success_probs=[0.5] * 9, values=[[0.0, 0.25]] * 9)
    env = build([partial(ScriptedEnv, max_episode_steps=n) for n in (1, 3)], critic, "SameStep")
    env.reset(seed=0)
    observations, rewards, _, truncations, infos = env.step(actions(2))
    assert rewards.tolist() == [0.25, 0.0]
    assert truncations.tolist() == [True, False]
    assert observations["state"].ravel().tolist() == [0.0, 1.0]
    assert infos["final_obs"][0]["state"].tolist() == [1.0]
    assert infos["final_obs"][1] is None
    assert infos["_final_obs"].tolist() == [True, False]
    assert infos["final_info"]["critic"]["stopped_by"].tolist() == ["step_limit", None]
    assert infos["final_info"]["critic"]["values"][0] == [0.0, 0.25]
    assert infos["critic"]["buffered_frames"].tolist() == [1, 1]
    assert infos["elapsed_steps"].tolist() == [0, 1]


def test_eval_is_bit_for_bit_the_env_and_calls_no_critic():
    env_fns = [partial(ShadedEnv, shade=i, success_steps=[2 + i]) for i in range(2)]
    critic = LookingCritic()
    for autoreset in ("NextStep", "SameStep"):
        judged = build(env_fns, critic, autoreset, mode="eval", max_episode_steps=1)
        bare = RolloutVectorEnv(env_fns, mode="sync", autoreset_mode=autoreset)
        judged.reset(seed=1)
        bare.reset(seed=1)
        for _ in range(6):
            ours, theirs = judged.step(actions(2)), bare.step(actions(2))
            assert as_singles(ours, [False] * 2) == as_singles(theirs, [False] * 2)
            assert [array.tobytes() for array in ours[1:4]] == [array.tobytes() for array in theirs[1:4]]
            assert ours[4].keys() == theirs[4].keys()
    assert critic.calls == []


def test_bad_answer_truncates_its_env_alone():
    critic = ScriptedCritic(success_probs=[0.1, float("nan"), 0.95])
    env = build([ScriptedEnv] * 3, critic, "Disabled", on_critic_error="truncate")
    env.reset(seed=0)
    _, rewards, terminations, truncations, infos = env.step(actions(3))
    assert rewards.tolist() == [0.0, 0.0, 1.0]
    assert terminations.tolist() == [False, False, True]
    assert truncations.tolist() == [False, True, False]
    assert infos["critic"]["failed"].tolist() == [False, True, False]
    assert infos["critic"]["_failed"].tolist() == [False, True, True]
    assert infos["critic"]["failures"].tolist() == [0, 1, 0]
    assert env.critic_failures == 1


def test_failed_value_call_concerns_only_those_at_their_limit():
    critic = ScriptedCritic(success_probs=[0.1, 0.1, 0.1], values=[CriticConnectionError("gone")])
    env_fns = [partial(ScriptedEnv, max_episode_steps=n) for n in (1, 2)]
    env = build(env_fns, critic, "Disabled", on_critic_error="truncate")
    env.reset(seed=0)
    _, rewards, _, truncations, infos = env.step(actions(2))
    assert (rewards.tolist(), truncations.tolist()) == ([0.0, 0.0], [True, False])
    assert infos["critic"]["stopped_by"].tolist() == ["critic_error", None]


def test_failed_call_truncates_all_that_it_asked_about():
    critic = ScriptedCritic(success_probs=[CriticConnectionError("gone")])
    env = build([ScriptedEnv] * 2, critic, on_critic_error="truncate")
    env.reset(seed=0)
    _, rewards, _, truncations, infos = env.step(actions(2))
    assert (rewards.tolist(), truncations.tolist()) == ([0.0, 0.0], [True, True])
    assert infos["critic"]["failed"].tolist() == [True, True]
    assert env.critic_failures == 2
    assert {i: str(error) for i, error in env.critic_errors.items()} == {0: "gone", 1: "gone"}
    env.step(actions(2))  # both are reset, and nobody is asked
    assert env.critic_errors == {}


def test_raised_critic_error_needs_a_full_reset():
    critic = ScriptedCritic(success_probs=[0.1, 2.0, 0.1, 0.95])
    env = build([ScriptedEnv] * 2, critic)
    env.reset(seed=0)
    with pytest.raises(CriticResponseError, match=r"Expected success_prob in \[0, 1\].* index 1 of 2"):
        env.step(actions(2))
    with pytest.raises(ResetNeeded, match="no running episodes"):
        env.step(actions(2))
    with pytest.raises(ConfigError, match="reset of all envs"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset()
    assert env.step(actions(2))[1].tolist() == [0.0, 1.0]


def test_mode_switches_between_episodes_only():
    critic = LookingCritic(0.0)
    env = build([partial(ScriptedEnv, max_episode_steps=2)] * 2, critic)
    env.reset(seed=0)
    env.step(actions(2))
    with pytest.raises(ConfigError, match="while an episode is running"):
        env.set_mode("eval")
    with pytest.raises(ConfigError, match="while an episode is running"):
        env.reset(options={"mode": "eval", "reset_mask": np.array([True, False])})
    env.step(actions(2))
    env.set_mode("eval")
    with pytest.raises(ResetNeeded, match="Call reset"):
        env.step(actions(2))
    env.reset()
    assert "success" in env.step(actions(2))[4]
    options = {"mode": "train"}
    env.reset(options=options)
    assert options == {"mode": "train"}
    assert "sim_success" in env.step(actions(2))[4]


@pytest.mark.parametrize("autoreset", AUTORESETS)
def test_lost_episode_is_neither_success_nor_failure(autoreset):
    env_fns = [partial(FaultyEnv, "physics", at_step=2, shade=0), partial(ShadedEnv, shade=1)]
    critic = LookingCritic(0.0)
    env = build(env_fns, critic, autoreset)
    env.reset(seed=0)
    assert env.step(actions(2))[4]["lost"].tolist() == [False, False]
    _, rewards, terminations, truncations, infos = env.step(actions(2))
    assert infos["lost"].tolist() == [True, False]
    assert (rewards[0], terminations[0], truncations[0]) == (0.0, False, True)
    where = infos["final_info"] if autoreset == "SameStep" else infos
    assert where["lost_reason"][0] == "the physics became unstable"
    assert "critic" not in where or not where["_critic"][0]
    assert critic.seen[-1] == [(1, 1, 2)]
    if autoreset != "Disabled":
        _, _, _, truncations, infos = env.step(actions(2))
        assert truncations.tolist() == [False, False]
        assert infos["elapsed_steps"][0] == (1 if autoreset == "SameStep" else 0)


def test_frames_out_of_reach_are_refused():
    with pytest.raises(ConfigError, match="No frame at 'render'"):
        build([partial(ScriptedEnv, render_mode="rgb_array")], LookingCritic(), frame="render")


def test_refused_actions_leave_everything_as_it_was():
    env = build([ScriptedEnv] * 2, LookingCritic(0.0))
    env.reset(seed=0)
    bad = actions(2)
    bad[1, 3] = np.nan
    with pytest.raises(ConfigError, match=r"NaN or infinity for envs \[1\]"):
        env.step(bad)
    assert env.step(actions(2))[4]["elapsed_steps"].tolist() == [1, 1]


def test_frame_function_reads_the_observation_and_info_of_its_env():
    def frame(observation, info):
        return np.full((2, 2, 3), int(observation["state"][0]) + 10 * info["elapsed_steps"], np.uint8)

    seen = []

    class Watching(LookingCritic):
        def success_prob(self, frames, tasks):
            seen.append([int(frame[0, 0, 0]) for frame in frames])
            return np.zeros(len(frames), np.float32)

    env = build([ScriptedEnv] * 2, Watching(), frame=frame)
    env.reset(seed=0)
    env.step(actions(2))
    env.step(actions(2))
    assert seen == [[11, 11], [22, 22]]


@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep"])
def test_gymnasiums_own_vector_wrappers_go_around_it(autoreset):
    critic = ScriptedCritic(success_probs=[0.0, 0.0, 0.0, 0.95] + [0.0] * 8)
    env = RecordEpisodeStatistics(build([ScriptedEnv] * 2, critic, autoreset))
    env.reset(seed=0)
    env.step(actions(2))
    infos = env.step(actions(2))[4]
    assert infos["_episode"].tolist() == [False, True]
    assert (infos["episode"]["r"][1], infos["episode"]["l"][1]) == (1.0, 2)


def test_frames_that_a_critic_keeps_stay_as_they_were():
    kept = []

    class Keeping(LookingCritic):
        def success_prob(self, frames, tasks):
            kept.extend(frames)
            return super().success_prob(frames, tasks)

    env = build([ShadedEnv], Keeping(0.0))
    env.reset(seed=0)
    for _ in range(3):
        env.step(actions(1))
    assert [int(frame[0, 0, 2]) for frame in kept] == [1, 2, 3]


@pytest.mark.parametrize("autoreset", AUTORESETS)
def test_no_env_is_left_behind_when_the_mode_switches(autoreset):
    critic = ScriptedCritic(success_probs=[0.1] * 9, values=[[0.0, 0.5]] * 9)
    env = build([partial(ScriptedEnv, max_episode_steps=1)] * 2, critic, autoreset)
    env.reset(seed=0)
    env.step(actions(2))  # all are over
    with pytest.raises(ConfigError, match="Reset all envs to switch"):
        env.reset(options={"mode": "eval", "reset_mask": np.array([True, False])})
    assert env.mode == "train"
    env.reset(options={"mode": "eval", "reset_mask": np.array([True, True])})
    assert env.step(actions(2))[4]["elapsed_steps"].tolist() == (
        [0, 0] if autoreset == "SameStep" else [1, 1]
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_unknown_mode_in_reset_leaves_the_episodes_running(mode):
    env = build([ScriptedEnv] * 2, LookingCritic(0.0), mode=mode)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        env.reset(options={"mode": "trian"})
    assert env.step(actions(2))[4]["elapsed_steps"].tolist() == [1, 1]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_nothing_else_is_done_while_a_step_is_under_way(mode, kind):
    envs = RolloutVectorEnv(
        [partial(ShadedEnv, shade=i) for i in range(2)], mode=kind, autoreset_mode="Disabled"
    )
    env = VLACRewardWrapper(envs, LookingCritic(0.0), mode=mode)
    env.reset(seed=0)
    env.step_async(actions(2))
    for refused in (
        lambda: env.reset(options={"reset_mask": np.array([True, False])}),
        lambda: env.reset(seed=1),
        lambda: env.step_async(actions(2)),
        lambda: env.set_mode("shaping"),
        lambda: envs.call("render"),
    ):
        with pytest.raises(AlreadyPendingCallError):
            refused()
    assert env.step_wait()[4]["elapsed_steps"].tolist() == [1, 1]
    assert env.step(actions(2))[4]["elapsed_steps"].tolist() == [2, 2]
    env.close()
