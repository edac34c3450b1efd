"""An episode for verl: which one a row asks for, how it is played, what it pays. No verl needed."""

import asyncio
from typing import Any

import numpy as np
import pytest

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.settings import parse_settings
from verl_env_adapter.verl.action_text import IntegerActionText
from verl_env_adapter.verl.episode import (
    DialoguePlan,
    DialogueResult,
    parse_policy,
    play_episode,
    reward_extra_info,
    user_text,
)
from vlac_gym.errors import AdapterContractError, ConfigError, CriticResponseError
from vlac_gym.frames.convention import ImageConvention

SETTINGS = parse_settings({})
ROW = {"mode": "train", "task_suite": "libero_spatial", "task_id": 3, "init_state_id": 4}


class HereEnv:
    """A pool of one env in this process behind the asynchronous interface; keeps the actions."""

    def __init__(
        self,
        spec: str,
        *,
        limit: int = 10,
        on_error: str = "raise",
        success: tuple[int, ...] = (),
        preset: str = "vlac",
    ) -> None:
        block = {
            "env": {
                "id": "scripted_ids:Scripted-v0",
                "chunk": 4,
                "max_episode_steps": limit,
                "kwargs": {"success_steps": list(success)},
            },
            "critic": {"spec": spec, "on_error": on_error},
            "rule": {"preset": preset},
        }
        self.pool = EnvPool(parse_settings(block), 1)
        self.chunks: list[list[list[float]]] = []

    async def reset(self, *, mode, **start):
        return self.pool.reset(mode=mode, options=[start])[0]

    async def step_chunk(self, actions):
        self.chunks.append(actions.tolist())
        return self.pool.step_chunk(actions[None]).reports[0]


@pytest.fixture
def make_env():
    made = []

    def make(*args, **kwargs):
        made.append(HereEnv(*args, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.pool.close()


def play(env: HereEnv, replies: list[str | None], mode: str = "train") -> DialogueResult:
    rest = iter(replies)

    async def ask(report) -> str | None:
        return next(rest)

    text = IntegerActionText(chunk=4, low=[-1.0] * 7, high=[1.0] * 7)
    return asyncio.run(play_episode(env, DialoguePlan(mode=mode, seed=0), ask, text))


FULL = " ".join(["500"] * 28)


def test_episode_of_a_done_critic_pays_one_and_stops_inside_the_chunk(make_env):
    env = make_env("scripted:0.1,0.1,0.1,0.1,0.1,0.95")
    result = play(env, [FULL] * 9)
    assert result.reward == 1.0
    assert (result.chunks, result.report.episode_steps) == (2, 6)
    assert reward_extra_info(result) == {
        "acc": 1.0,
        "env_reward": 1.0,
        "sim_success": 0.0,
        "critic_done": 1.0,
        "critic_failed": 0.0,
        "critic_retries": 0.0,
        "critic_failovers": 0.0,
        "critic_value": 0.0,
        "terminated": 1.0,
        "truncated": 0.0,
        "env_steps": 6.0,
        "action_chunks": 2.0,
        "malformed_chunks": 0.0,
        "cut_by_length": 0.0,
        "is_eval": 0.0,
    }


def test_episode_at_the_step_limit_pays_the_value(make_env):
    result = play(make_env("scripted:0.1", limit=5), [FULL] * 9)
    assert result.reward == 0.5
    info = reward_extra_info(result)
    assert (info["critic_value"], info["truncated"], info["acc"], info["env_steps"]) == (0.5, 1.0, 0.0, 5.0)


def test_reward_is_everything_that_was_paid_on_the_way(make_env):
    # Every pair of frames says progress 0.1, so that the value is 1 - 0.9 ** step: 0.40951 after 5 steps in 2 chunks.
    result = play(make_env("scripted:0.1", limit=5, preset="dense"), [FULL] * 9)
    assert result.chunks == 2
    assert result.reward == pytest.approx(0.40951, abs=1e-6)
    assert reward_extra_info(result)["env_reward"] == result.reward


def test_eval_episode_is_the_simulators(make_env):
    result = play(make_env("scripted:0.95", success=(3,)), [FULL] * 9, mode="eval")
    info = reward_extra_info(result)
    assert result.reward == 1.0
    assert (info["acc"], info["sim_success"], info["critic_done"], info["is_eval"]) == (1.0, 1.0, 0.0, 1.0)
    assert info["env_steps"] == 3.0


def test_simulator_success_in_training_is_no_accuracy(make_env):
    result = play(make_env("scripted:0.1", limit=4, success=(2,)), [FULL] * 9)
    info = reward_extra_info(result)
    assert (info["acc"], info["sim_success"], result.reward) == (0.0, 1.0, 0.5)


def test_every_episode_has_the_same_keys(make_env):
    train = reward_extra_info(play(make_env("scripted:0.1"), [FULL] * 9))
    evaluated = reward_extra_info(play(make_env("scripted:0.1"), [FULL] * 9, mode="eval"))
    assert list(train) == list(evaluated)
    assert all(type(value) is float for value in [*train.values(), *evaluated.values()])


def test_policy_without_room_for_a_reply_cuts_the_episode_and_nothing_is_paid(make_env):
    result = play(make_env("scripted:0.1"), [FULL, None])
    info = reward_extra_info(result)
    assert (result.reward, info["cut_by_length"], info["action_chunks"]) == (0.0, 1.0, 1.0)
    assert (info["terminated"], info["truncated"]) == (0.0, 0.0)


def test_bad_text_is_counted_and_costs_a_step(make_env):
    env = make_env("scripted:0.1", limit=3)
    result = play(env, ["what?", FULL])
    assert env.chunks[0] == [[0.0] * 6 + [-1.0]]
    assert env.chunks[1] == [[0.0] * 7] * 4
    assert reward_extra_info(result)["malformed_chunks"] == 1.0
    assert reward_extra_info(result)["env_steps"] == 3.0


def test_failed_critic_reaches_the_trainer_or_marks_the_episode(make_env, monkeypatch):
    def fail(*args, **kwargs):
        raise CriticResponseError("no number in the reply")

    env = make_env("scripted:0.1")
    monkeypatch.setattr(env.pool.envs.critic, "success_prob", fail)
    with pytest.raises(CriticResponseError):
        play(env, [FULL])
    env = make_env("scripted:0.1", on_error="truncate")
    monkeypatch.setattr(env.pool.envs.critic, "success_prob", fail)
    result = play(env, [FULL])
    info = reward_extra_info(result)
    assert (result.reward, info["critic_failed"], info["truncated"]) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("mode", "phase", "expected"),
    [
        ("train", "train", "train"),
        ("eval", "validate", "eval"),
        ("eval", None, "eval"),
        (None, "validate", "eval"),
    ],
)
def test_row_and_phase_say_the_mode(mode, phase, expected):
    plan = DialoguePlan.from_row(ROW | {"mode": mode}, phase, SETTINGS)
    assert plan == DialoguePlan(mode=expected, task_id=3, init_state_id=4)


@pytest.mark.parametrize(
    ("row", "phase", "message"),
    [
        (ROW, "validate", "says mode 'train', but the trainer is in its validate phase"),
        (ROW | {"mode": "eval"}, "train", "says mode 'eval', but the trainer is in its train phase"),
        (ROW | {"mode": None}, None, "Neither the row's extra_info.mode nor the trainer"),
        (None, "train", "fixes no start"),
        ({"mode": "train", "task_id": 1}, "train", "expected init_state_id or seed"),
        (ROW | {"task_id": 0.5}, "train", r"extra_info\.task_id as a whole number"),
        (ROW | {"task_suite": "libero_goal"}, "train", "env.suite is 'libero_spatial'"),
    ],
)
def test_rows_that_can_not_be_played_as_meant_are_refused(row, phase, message):
    with pytest.raises(AdapterContractError, match=message):
        DialoguePlan.from_row(row, phase, SETTINGS)


def test_unknown_mode_in_a_row_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        DialoguePlan.from_row(ROW | {"mode": "trian"}, "train", SETTINGS)


def test_baseline_without_critic_trains_on_the_simulator():
    assert DialoguePlan.from_row(ROW, "train", parse_settings({"mode": "eval"})).mode == "eval"


def test_policy_block_is_checked():
    policy = parse_policy(
        {"images": ["wrist_image"], "image_convention": "raw_rotated_180", "layout": "rows"}
    )
    assert (policy.images, policy.image_convention) == (("wrist_image",), ImageConvention.RAW_ROTATED_180)
    for block, message in [
        ({"promt": "x"}, "Did you mean 'prompt'"),
        ({"image_convention": "upside_down"}, "image_convention 'upside_down'"),
        ({"layout": "row"}, "Did you mean 'rows'"),
        ({"prompt": "{tasks}"}, r"\{instructions\}, \{task\} and \{state\} only"),
    ]:
        with pytest.raises(ConfigError, match=message):
            parse_policy(block)


def test_question_holds_task_and_state(make_env):
    report: Any = make_env("scripted:0.1").pool.reset(mode="train")[0]
    text = IntegerActionText(chunk=1, low=[0.0], high=[1.0])
    policy = parse_policy({"prompt": "{task} | {state} | {instructions}"})
    expected = f"put the bowl on the plate | 0.000 | {text.instructions()}"
    assert user_text(policy, text, report) == expected
    assert np.array_equal(report.observation["state"], [0.0])
