"""The training rule on a scripted env; every number is worked by hand."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from vlac_gym.critic.scripted import CriticCall, ScriptedCritic
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticConnectionError, CriticResponseError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers import VLACRewardWrapper
from vlac_gym.wrappers.vector import VLACRewardWrapper as VectorWrapper

ACTION = np.zeros(7, np.float32)


def play(env: gym.Env, steps: int = 1000, reset: bool = True) -> list[tuple[float, bool, bool, dict]]:
    """Steps until the episode ends; returns (reward, terminated, truncated, info) of each step."""
    if reset:
        env.reset(seed=0)
    history = []
    for _ in range(steps):
        _, reward, terminated, truncated, info = env.step(ACTION)
        history.append((reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return history


def outcome(history: list) -> list[tuple[float, bool, bool]]:
    return [(reward, terminated, truncated) for reward, terminated, truncated, _ in history]


def test_done_at_the_first_step_pays_one_and_asks_no_value():
    critic = ScriptedCritic(success_probs=[0.95])
    history = play(VLACRewardWrapper(ScriptedEnv(), critic))
    assert outcome(history) == [(1.0, True, False)]
    assert critic.calls == [CriticCall("success_prob", 1)]
    report = history[-1][3]["critic"]
    assert report["values"] == []
    assert report["value_frame_steps"] == []
    assert report["failed"] is False
    assert report["stopped_by"] == "success_prob"


def test_step_limit_pays_the_last_value_of_frames_at_the_stride_and_the_end():
    critic = ScriptedCritic(success_probs=[0.1] * 7, values=[[0.0, 0.25, 0.375]])
    history = play(VLACRewardWrapper(ScriptedEnv(max_episode_steps=7), critic))
    assert outcome(history) == [(0.0, False, False)] * 6 + [(0.375, False, True)]
    assert critic.calls[-1] == CriticCall("value", 3)
    report = history[-1][3]["critic"]
    assert report["values"] == [0.0, 0.25, 0.375]
    assert report["value_frame_steps"] == [0, 5, 7]
    assert report["stopped_by"] == "step_limit"


def test_stride_that_divides_the_length_lists_the_last_frame_once():
    critic = ScriptedCritic(success_probs=[0.0] * 4, values=[[0.0, 0.5, 0.25]])
    history = play(VLACRewardWrapper(ScriptedEnv(max_episode_steps=4), critic, value_stride=2))
    assert history[-1][3]["critic"]["value_frame_steps"] == [0, 2, 4]
    assert history[-1][0] == 0.25


def test_done_and_step_limit_together_is_done():
    critic = ScriptedCritic(success_probs=[0.0, 0.0, 0.9])
    history = play(VLACRewardWrapper(ScriptedEnv(max_episode_steps=3), critic))
    assert outcome(history)[-1] == (1.0, True, False)
    assert [call.method for call in critic.calls] == ["success_prob"] * 3


def test_sim_success_before_the_critic_notices_changes_nothing_but_the_audit():
    critic = ScriptedCritic(success_probs=[0.0, 0.0, 0.0, 1.0])
    history = play(VLACRewardWrapper(ScriptedEnv(success_steps=[2]), critic))
    assert outcome(history) == [(0.0, False, False)] * 3 + [(1.0, True, False)]
    assert [info["sim_success"] for *_, info in history] == [False, True, True, True]
    assert [info["env_reward"] for *_, info in history] == [0.0, 1.0, 0.0, 0.0]
    assert [info["sim_terminated"] for *_, info in history] == [False, True, False, False]
    assert all("success" not in info and "goal_progress" not in info for *_, info in history)


def test_success_then_undone_counts_from_zero_again():
    critic = ScriptedCritic(success_probs=[0.95, 0.2, 0.95, 0.95])
    history = play(VLACRewardWrapper(ScriptedEnv(), critic, done_patience=2))
    assert [info["critic"]["consecutive_done"] for *_, info in history] == [1, 0, 1, 2]
    assert outcome(history)[-1] == (1.0, True, False)
    assert len(history) == 4


@pytest.mark.parametrize("threshold", [0.9, 0.7, 1.0, 0.3])
def test_probability_equal_to_the_threshold_is_done(threshold):
    critic = ScriptedCritic(success_probs=[threshold])
    history = play(VLACRewardWrapper(ScriptedEnv(), critic, done_threshold=threshold))
    assert outcome(history) == [(1.0, True, False)]


def test_interval_longer_than_the_episode_still_checks_the_last_step():
    critic = ScriptedCritic(success_probs=[0.5], values=[[0.0, 0.125]])
    env = VLACRewardWrapper(ScriptedEnv(max_episode_steps=3), critic, done_interval=10)
    history = play(env)
    assert [info["critic"]["checked"] for *_, info in history] == [False, False, True]
    assert [info["critic"]["success_prob"] for *_, info in history] == [None, None, 0.5]
    assert outcome(history)[-1] == (0.125, False, True)


def test_patience_counts_checks_and_not_steps():
    critic = ScriptedCritic(success_probs=[0.95, 0.95])
    history = play(VLACRewardWrapper(ScriptedEnv(), critic, done_patience=2, done_interval=3))
    assert len(history) == 6
    assert outcome(history)[-1] == (1.0, True, False)
    assert [info["critic"]["consecutive_done"] for *_, info in history] == [0, 0, 1, 1, 1, 2]


def test_min_steps_holds_a_done_back():
    critic = ScriptedCritic(success_probs=[1.0] * 4)
    history = play(VLACRewardWrapper(ScriptedEnv(), critic, min_steps=4))
    assert outcome(history) == [(0.0, False, False)] * 3 + [(1.0, True, False)]


def test_min_value_holds_a_done_back_and_its_value_list_is_reused_at_the_limit():
    critic = ScriptedCritic(success_probs=[1.0, 1.0, 1.0], values=[[0.0, 0.25], [0.0, 0.5], [0.0, 0.375]])
    env = VLACRewardWrapper(ScriptedEnv(max_episode_steps=3), critic, min_value=0.625)
    history = play(env)
    assert outcome(history) == [(0.0, False, False), (0.0, False, False), (0.375, False, True)]
    assert [call.method for call in critic.calls] == ["success_prob", "value"] * 3


def test_min_value_reached_lets_the_critic_stop():
    critic = ScriptedCritic(success_probs=[1.0, 1.0], values=[[0.0, 0.25], [0.0, 0.75]])
    history = play(VLACRewardWrapper(ScriptedEnv(), critic, min_value=0.75))
    assert outcome(history) == [(0.0, False, False), (1.0, True, False)]
    assert history[-1][3]["critic"]["values"] == [0.0, 0.75]


def test_min_value_asks_for_values_at_checks_only():
    # Checks at steps 2, 4, 6 and 7 (the limit); done at 2 and 4, where the value is too low.
    critic = ScriptedCritic(
        success_probs=[1.0, 1.0, 0.0, 0.0],
        values=[[0.0, 0.25, 0.25], [0.0, 0.25, 0.25, 0.25, 0.5], [0.0] * 7 + [0.375]],
    )
    env = VLACRewardWrapper(
        ScriptedEnv(max_episode_steps=7), critic, min_value=0.75, done_interval=2, value_stride=1
    )
    history = play(env)
    assert outcome(history) == [(0.0, False, False)] * 6 + [(0.375, False, True)]
    assert [info["critic"]["calls"] for *_, info in history] == [0, 2, 2, 4, 4, 5, 7]
    assert [info["critic"]["checked"] for *_, info in history] == [False, True] * 3 + [True]


@pytest.mark.parametrize("bad", [float("nan"), 1.5, -0.25, float("inf")])
@pytest.mark.parametrize("handling", ["raise", "truncate"])
def test_invalid_probability_is_an_error_and_never_a_reward(bad, handling):
    env = VLACRewardWrapper(ScriptedEnv(), ScriptedCritic(success_probs=[bad]), on_critic_error=handling)
    env.reset(seed=0)
    if handling == "raise":
        with pytest.raises(CriticResponseError, match=r"Expected success_prob in \[0, 1\]"):
            env.step(ACTION)
        return
    _, reward, terminated, truncated, info = env.step(ACTION)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["critic"]["failed"] is True


@pytest.mark.parametrize("values", [[0.0, float("nan")], [0.0, 1.25], [0.0], [0.0, 0.1, 0.2]])
def test_invalid_value_list_is_an_error(values):
    env = VLACRewardWrapper(
        ScriptedEnv(max_episode_steps=1), ScriptedCritic(success_probs=[0.0], values=[values])
    )
    env.reset(seed=0)
    with pytest.raises(CriticResponseError, match="Expected value"):
        env.step(ACTION)


def test_critic_error_is_raised_and_the_next_episode_is_whole():
    lost = CriticConnectionError("gone")
    critic = ScriptedCritic(success_probs=[0.1, lost, 0.2, 0.95])
    env = VLACRewardWrapper(ScriptedEnv(), critic)
    env.reset(seed=0)
    env.step(ACTION)
    with pytest.raises(CriticConnectionError, match="gone"):
        env.step(ACTION)
    with pytest.raises(ResetNeeded, match="episode is over"):
        env.step(ACTION)
    history = play(env)
    assert outcome(history) == [(0.0, False, False), (1.0, True, False)]
    assert history[-1][3]["critic"]["failures"] == 1
    assert env.critic_failures == 1


def test_critic_error_truncates_with_reward_zero_when_asked_to():
    critic = ScriptedCritic(success_probs=[0.1, CriticConnectionError("gone"), 0.95])
    env = VLACRewardWrapper(ScriptedEnv(), critic, on_critic_error="truncate")
    history = play(env)
    assert outcome(history) == [(0.0, False, False), (0.0, False, True)]
    report = history[-1][3]["critic"]
    assert report["failed"] is True
    assert report["failures"] == 1
    assert report["stopped_by"] == "critic_error"
    assert outcome(play(env)) == [(1.0, True, False)]


def test_mode_switch_in_an_episode_is_an_error_and_after_it_is_not():
    env = VLACRewardWrapper(ScriptedEnv(max_episode_steps=2), ScriptedCritic(success_probs=[0.0, 0.95]))
    env.reset(seed=0)
    env.step(ACTION)
    with pytest.raises(ConfigError, match="while an episode is running"):
        env.set_mode("eval")
    env.step(ACTION)
    env.set_mode("eval")
    assert env.mode == "eval"


def test_reset_option_switches_the_mode_and_leaves_the_callers_options_alone():
    critic = ScriptedCritic()
    env = VLACRewardWrapper(ScriptedEnv(success_steps=[1]), critic)
    options = {"mode": "eval"}
    env.reset(seed=0, options=options)
    assert options == {"mode": "eval"}
    _, reward, terminated, truncated, info = env.step(ACTION)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    assert critic.calls == []


def test_second_reset_without_finishing_starts_a_clean_episode():
    critic = ScriptedCritic(success_probs=[0.95, 0.1, 0.95, 0.95], values=[])
    env = VLACRewardWrapper(ScriptedEnv(), critic, done_patience=2)
    env.reset(seed=0)
    env.step(ACTION)
    history = play(env)
    assert [info["critic"]["consecutive_done"] for *_, info in history] == [0, 1, 2]
    assert [info["critic"]["calls"] for *_, info in history] == [1, 2, 3]


def test_eval_is_bit_for_bit_the_env_and_calls_no_critic():
    critic = ScriptedCritic()
    plain = play(ScriptedEnv(success_steps=[3]))
    judged = play(VLACRewardWrapper(ScriptedEnv(success_steps=[3]), critic, mode="eval", max_episode_steps=2))
    assert judged == plain
    assert critic.calls == []


def test_eval_never_builds_the_critic_of_a_spec():
    env = VLACRewardWrapper(ScriptedEnv(), "http://127.0.0.1:9", mode="eval")
    play(env)
    assert env._referee._critic is None
    env.close()


def test_own_step_limit_is_the_only_one():
    critic = ScriptedCritic(success_probs=[0.0] * 6, values=[[0.0, 0.25, 0.5]])
    history = play(VLACRewardWrapper(ScriptedEnv(max_episode_steps=3), critic, max_episode_steps=6))
    assert len(history) == 6
    assert outcome(history)[-1] == (0.5, False, True)


def test_sim_termination_ends_by_the_value_only_when_asked_to():
    critic = ScriptedCritic(success_probs=[0.0, 0.0], values=[[0.0, 0.5]])
    env = VLACRewardWrapper(ScriptedEnv(success_steps=[2]), critic, on_sim_terminated="truncate")
    history = play(env)
    assert outcome(history) == [(0.0, False, False), (0.5, False, True)]
    assert history[-1][3]["critic"]["stopped_by"] == "sim_terminated"


def test_shaping_adds_the_sims_success_once():
    critic = ScriptedCritic(success_probs=[0.0] * 4, values=[[0.0, 0.25]])
    env = VLACRewardWrapper(
        ScriptedEnv(success_steps=[2, 3], max_episode_steps=4), critic, mode="shaping", sim_success_weight=0.5
    )
    assert [reward for reward, *_ in play(env)] == [0.0, 0.5, 0.0, 0.25]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_episode_steps": 2}, (0.5, True, False)),
        ({"on_sim_terminated": "truncate"}, (0.5, True, False)),
        ({"max_episode_steps": 2, "mode": "eval"}, (1.0, True, False)),
    ],
)
def test_end_at_the_limit_is_terminal_on_demand(options, expected):
    critic = ScriptedCritic(success_probs=[0.0, 0.0], values=[[0.0, 0.5]])
    env = VLACRewardWrapper(ScriptedEnv(success_steps=[2]), critic, truncate_as_terminal=True, **options)
    assert outcome(play(env)) == [(0.0, False, False), expected]


def test_in_eval_and_without_an_answer_a_truncation_stays_one():
    def build(critic, **options):
        env = ScriptedEnv(max_episode_steps=1)
        return VLACRewardWrapper(env, critic, truncate_as_terminal=True, **options)

    assert outcome(play(build(ScriptedCritic(), mode="eval"))) == [(0.0, False, True)]
    failing = ScriptedCritic(success_probs=[CriticConnectionError("gone")])
    assert outcome(play(build(failing, on_critic_error="truncate"))) == [(0.0, False, True)]


@pytest.mark.parametrize("answer", [["yes"], [[0.5], 0.5], None, {}])
def test_an_answer_that_is_no_number_truncates_like_any_lost_critic(answer):
    class Garbling(ScriptedCritic):
        def success_prob(self, frames, tasks):
            return answer

    env = VLACRewardWrapper(ScriptedEnv(), Garbling(), on_critic_error="truncate")
    assert outcome(play(env)) == [(0.0, False, True)]


def test_dense_pays_value_differences_whose_sum_is_the_terminal_value():
    critic = ScriptedCritic(success_probs=[0.0] * 3, progresses=[0.5, 0.5, -0.5])
    history = play(VLACRewardWrapper(ScriptedEnv(max_episode_steps=3), critic, preset="dense"))
    assert [reward for reward, *_ in history] == [0.5, 0.25, -0.125]
    assert history[-1][3]["critic"]["values"] == [0.0, 0.5, 0.75, 0.625]
    assert history[-1][3]["critic"]["value_frame_steps"] == [0, 1, 2, 3]
    assert outcome(history)[-1][1:] == (False, True)


def test_dense_done_pays_what_is_left_without_asking_the_pair():
    critic = ScriptedCritic(success_probs=[0.0, 0.95], progresses=[0.25])
    history = play(VLACRewardWrapper(ScriptedEnv(), critic, preset="dense"))
    assert outcome(history) == [(0.25, False, False), (0.75, True, False)]
    assert history[-1][3]["critic"]["values"] == [0.0, 0.25, 1.0]
    assert [call.method for call in critic.calls] == ["success_prob", "progress", "success_prob"]


def test_pbrs_discounts_the_next_potential_at_every_step():
    critic = ScriptedCritic(success_probs=[0.0, 0.0], progresses=[0.5, 0.5])
    env = VLACRewardWrapper(
        ScriptedEnv(max_episode_steps=4), critic, preset="pbrs", gamma=0.5, done_interval=2
    )
    # Potentials at steps 0..4: 0, 0, 0.5, 0.5, 0.75; reward = 0.5 * next - this.
    assert [reward for reward, *_ in play(env)] == [0.0, 0.25, -0.25, -0.125]


def test_pbrs_done_pays_one_and_the_terminal_potential_is_zero():
    critic = ScriptedCritic(success_probs=[0.0, 0.95], progresses=[0.5])
    history = play(VLACRewardWrapper(ScriptedEnv(), critic, preset="pbrs", gamma=0.5))
    assert outcome(history) == [(0.25, False, False), (0.5, True, False)]


def test_evolve_compares_with_milestones_and_pays_the_value_at_the_limit():
    critic = ScriptedCritic(progresses=[0.25, 0.5, 0.5, -0.5])
    env = VLACRewardWrapper(
        ScriptedEnv(max_episode_steps=8), critic, preset="evolve", done_interval=2, milestone_interval=4
    )
    history = play(env)
    # Milestone value 0 until step 4, then 0.5: 0.25, 0.5 | 0.5 + 0.5 * 0.5 = 0.75, 0.5 - 0.5 * 0.5 = 0.25.
    assert history[-1][3]["critic"]["values"] == [0.0, 0.25, 0.5, 0.75, 0.25]
    assert history[-1][3]["critic"]["value_frame_steps"] == [0, 2, 4, 6, 8]
    assert outcome(history) == [(0.0, False, False)] * 7 + [(0.25, False, True)]
    assert {call.method for call in critic.calls} == {"progress"}


def test_evolve_stops_above_the_threshold_and_pays_the_value():
    critic = ScriptedCritic(progresses=[0.75, 0.875])
    env = VLACRewardWrapper(ScriptedEnv(), critic, preset="evolve", done_interval=1, value_threshold=0.75)
    history = play(env)
    assert outcome(history) == [(0.0, False, False), (0.875, True, False)]
    assert history[-1][3]["critic"]["stopped_by"] == "value"


def test_buffer_holds_only_the_frames_of_the_value_list():
    critic = ScriptedCritic(success_probs=[0.0] * 12, values=[[0.0] * 4])
    history = play(VLACRewardWrapper(ScriptedEnv(max_episode_steps=12), critic))
    assert [info["critic"]["buffered_frames"] for *_, info in history] == [1] * 4 + [2] * 5 + [3] * 3
    assert history[-1][3]["critic"]["buffered_bytes"] == 3 * 8 * 8 * 3


def test_buffer_over_its_bound_is_a_clear_error():
    env = VLACRewardWrapper(ScriptedEnv(), ScriptedCritic(success_probs=[0.0] * 9), max_buffer_bytes=300)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="max_buffer_bytes 300"):
        play(env, reset=False)


def test_frames_reach_the_critic_unchanged_and_are_the_right_ones():
    class Looking(ScriptedCritic):
        seen: list = []

        def value(self, frames, task, references=None):
            self.seen.append([tuple(frame[0, 0]) for frame in frames])
            return super().value(frames, task, references)

    critic = Looking(success_probs=[0.0] * 6, values=[[0.0, 0.5, 0.5]])
    play(VLACRewardWrapper(ScriptedEnv(max_episode_steps=6), critic))
    assert critic.seen == [[(1, 0, 0), (1, 0, 5), (1, 0, 6)]]


def test_step_before_reset_and_after_the_end_is_refused():
    env = VLACRewardWrapper(ScriptedEnv(), ScriptedCritic(success_probs=[0.95]))
    with pytest.raises(ResetNeeded):
        env.step(ACTION)
    play(env)
    with pytest.raises(ResetNeeded):
        env.step(ACTION)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "trian"}, "Did you mean 'train'"),
        ({"preset": "vlca"}, "Did you mean 'vlac'"),
        ({"done_treshold": 0.5}, "Did you mean 'done_threshold'"),
        ({"done_threshold": 1.5}, r"done_threshold in \[0, 1\]"),
        ({"done_patience": 0}, "done_patience as an int >= 1"),
        ({"value_stride": 2.0}, "value_stride as an int >= 1"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"on_critic_error": "ignore"}, "on_critic_error"),
        ({"frame": "front_image"}, "No frame at 'front_image'"),
        ({"references": [np.zeros((2, 2, 3), np.uint8)]}, "2 to 11 reference frames"),
        ({"preset": "evolve", "done_interval": 7}, "multiple of done_interval"),
        ({"gamma": 0.0}, "gamma"),
        ({"min_value": -1}, "min_value"),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, message):
    with pytest.raises(ConfigError, match=message):
        VLACRewardWrapper(ScriptedEnv(), ScriptedCritic(), **options)


def test_missing_task_is_refused_at_reset():
    env = VLACRewardWrapper(ScriptedEnv(task=" "), ScriptedCritic())
    with pytest.raises(ConfigError, match="task text"):
        env.reset()


def test_unstarted_stack_survives_pickling():
    env = VLACRewardWrapper(ScriptedEnv(max_episode_steps=2), "scripted:0.25,0.95", done_patience=1)
    history = play(pickle.loads(pickle.dumps(env)))
    assert outcome(history) == [(0.0, False, False), (1.0, True, False)]


def test_constructor_arguments_are_recorded():
    env = VLACRewardWrapper(ScriptedEnv(), "scripted:0.5", done_threshold=0.5)
    assert env._saved_kwargs["critic"] == "scripted:0.5"
    assert env._saved_kwargs["done_threshold"] == 0.5


def test_works_on_a_mujoco_env_of_gymnasium():
    critic = ScriptedCritic(success_probs=[0.0, 0.0, 0.95])
    env = gym.make("InvertedPendulum-v5", render_mode="rgb_array", width=64, height=48)
    env = VLACRewardWrapper(env, critic, task="balance the pole", frame="render")
    env.reset(seed=0)
    history = [env.step(np.zeros(1, np.float32)) for _ in range(3)]
    assert [(reward, terminated) for _, reward, terminated, *_ in history] == [
        (0.0, False),
        (0.0, False),
        (1.0, True),
    ]
    assert history[-1][4]["sim_success"] is None
    assert history[-1][4]["env_reward"] == 1.0
    env.close()


def _make_scripted() -> gym.Env:
    return ScriptedEnv(max_episode_steps=3)


def _judge(env: gym.Env) -> gym.Env:
    return VLACRewardWrapper(env, "scripted:0.1,0.2,0.95")


def test_async_vector_env_builds_one_critic_per_worker():
    gym.register("vlac_gym_test/Scripted-v0", entry_point=_make_scripted)
    try:
        envs = gym.make_vec(
            "vlac_gym_test/Scripted-v0", num_envs=2, vectorization_mode="async", wrappers=[_judge]
        )
        envs.reset(seed=0)
        rewards = []
        for _ in range(3):
            _, reward, terminated, _, _ = envs.step(envs.action_space.sample())
            rewards.append(reward.tolist())
        assert rewards == [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
        assert terminated.tolist() == [True, True]
        envs.close()
    finally:
        del gym.registry["vlac_gym_test/Scripted-v0"]


def test_an_ended_train_episode_never_goes_on_in_eval():
    sim = ScriptedEnv(max_episode_steps=None)
    env = VLACRewardWrapper(sim, ScriptedCritic(success_probs=[0.95]))
    play(env)
    env.set_mode("eval")
    for step in (env.step, env.step_unrendered):
        with pytest.raises(ResetNeeded, match="mode 'train'"):
            step(ACTION)
    assert sim.num_steps == 1
    env.reset()
    assert "success" in env.step(ACTION)[4]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_unknown_mode_in_reset_leaves_the_episode_running(mode):
    sim = ScriptedEnv(max_episode_steps=None)
    env = VLACRewardWrapper(sim, ScriptedCritic(success_probs=[0.1]), mode=mode)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        env.reset(options={"mode": "trian"})
    with pytest.raises(ConfigError, match="while an episode is running"):
        env.set_mode("eval" if mode == "train" else "train")
    env.step(ACTION)
    assert (sim.num_resets, sim.num_steps) == (1, 1)


def test_failed_reset_to_another_mode_leaves_no_episode_to_step():
    class Refusing(ScriptedEnv):
        def reset(self, *, seed=None, options=None):
            if options:
                raise ConfigError("no such task")
            return super().reset(seed=seed)

    env = VLACRewardWrapper(Refusing(max_episode_steps=None), ScriptedCritic(success_probs=[0.1]))
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="no such task"):
        env.reset(options={"mode": "eval", "task_id": 99})
    assert env.mode == "train"
    with pytest.raises(ResetNeeded):
        env.step(ACTION)
    env.set_mode("eval")
    with pytest.raises(ResetNeeded):
        env.step(ACTION)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.full(7, np.nan, np.float32), "finite action"),
        ([0, 0, 0, 0, 0, 0, np.inf], "finite action"),
        (np.zeros(6, np.float32), r"shape \(7,\), got \(6,\)"),
        (np.zeros((1, 7), np.float32), r"shape \(7,\), got \(1, 7\)"),
        (["0"] * 7, "an action as real numbers, got dtype <U1"),
        (np.zeros(7, np.complex64), "an action as real numbers, got dtype complex64"),
        ([[0.0] * 7, [0.0]], "an action as one array, got .*inhomogeneous"),
    ],
)
def test_refused_action_leaves_the_training_episode_as_it_was(action, message):
    critic = ScriptedCritic(success_probs=[0.1, 0.95])
    env = VLACRewardWrapper(ScriptedEnv(), critic)
    env.reset(seed=0)
    env.step(ACTION)
    with pytest.raises(ConfigError, match=message):
        env.step(action)
    _, reward, terminated, _, info = env.step(ACTION)
    assert (reward, terminated, info["elapsed_steps"], info["critic"]["calls"]) == (1.0, True, 2, 2)


class NoValue:
    """A critic without `value`."""

    def success_prob(self, frames, tasks): ...
    def progress(self, before, after, tasks, references=None): ...
    def describe(self): ...
    def close(self): ...


BAD_ARGUMENTS = [
    ({"critic": None}, "Expected a critic"),
    ({"critic": object()}, "lacks success_prob, progress, value, describe, close"),
    ({"critic": NoValue()}, "lacks value"),
    ({"critic": ScriptedCritic}, "a class"),
    ({"critic": "orcle"}, "Did you mean 'oracle'"),
    ({"critic": "noisy_oracle:tpr=2"}, r"noisy_oracle tpr in \[0, 1\], got 2.0"),
    ({"critic": "nano?foo=1"}, "option 'foo'"),
    ({"critic": "http://host:8400?timeout_s=0"}, "timeout_s above 0"),
    ({"critic": " "}, "critic spec"),
    ({"task": 5}, "task as a text"),
    ({"task": " "}, "task as a text"),
    ({"references": 5}, "sequence of frames"),
    ({"max_buffer_bytes": 0}, "max_buffer_bytes"),
    ({"max_buffer_bytes": "1 MB"}, "max_buffer_bytes"),
    ({"sim_success_weight": float("nan")}, "sim_success_weight"),
    ({"sim_success_weight": "1"}, "sim_success_weight"),
    ({"gamma": "1"}, "gamma"),
]


@pytest.mark.parametrize(("options", "message"), BAD_ARGUMENTS)
@pytest.mark.parametrize("kind", ["one env", "many envs"])
def test_what_cannot_be_right_is_refused_at_construction(kind, options, message):
    env = ScriptedEnv() if kind == "one env" else RolloutVectorEnv([ScriptedEnv] * 2, mode="sync")
    wrapper = VLACRewardWrapper if kind == "one env" else VectorWrapper
    with pytest.raises(ConfigError, match=message):
        wrapper(env, **{"critic": ScriptedCritic(), **options})


@pytest.mark.parametrize(
    ("space", "found"),
    [
        (gym.spaces.Box(0, 1, (8, 8, 3), np.float32), r"front float32 \(8, 8, 3\)"),
        (gym.spaces.Box(0, 255, (8, 8), np.uint8), r"front uint8 \(8, 8\)"),
        (gym.spaces.Box(0, 255, (3, 8, 8), np.uint8), r"front uint8 \(3, 8, 8\)"),
    ],
)
def test_pictures_of_another_form_are_named_with_key_dtype_and_shape(space, found):
    env = gym.Env()
    env.observation_space = gym.spaces.Dict({"front": space})
    env.action_space = gym.spaces.Discrete(2)
    with pytest.raises(ConfigError, match=rf"channels last\): none, found {found}, .*Convert them"):
        VLACRewardWrapper(env, ScriptedCritic([0.1]))
