"""SimpleVLA-RL's trajectory process on scripted envs: the messages recorded at 7c51662, exact numbers in them."""

import json
import queue

import numpy as np
import pytest

from verl_env_adapter.common.settings import SETTINGS_VARIABLE, parse_settings
from verl_env_adapter.simplevla.worker import (
    CHUNK_DEADLINE_S,
    _own_server_first,
    check_settings,
    env_worker,
)
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import ConfigError, CriticResponseError

OBSERVATION = [
    "agentview_image",
    "robot0_eef_pos",
    "robot0_eef_quat",
    "robot0_eye_in_hand_image",
    "robot0_gripper_qpos",
]


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Plays chunks through the worker and returns its messages."""

    def played(
        chunks,
        *,
        spec="scripted:0.1",
        limit=6,
        success=(),
        step_reward=0.0,
        is_valid=False,
        max_steps=512,
        **more,
    ):
        env = {
            "id": "scripted_arm:ScriptedArm-v0",
            "chunk": 4,
            "kwargs": {"success_steps": list(success), "step_reward": step_reward},
            "max_episode_steps": limit,
        }
        file = tmp_path / "settings.json"
        file.write_text(json.dumps({"env": env, "critic": {"spec": spec, **more.pop("critic", {})}, **more}))
        monkeypatch.setenv(SETTINGS_VARIABLE, str(file))
        actions, messages = queue.Queue(), queue.Queue()
        for chunk in [*chunks, None]:
            actions.put(chunk)
        try:
            env_worker("libero_spatial", 3, 7, None, actions, messages, is_valid, 0, max_steps)
        finally:
            seen = list(messages.queue)
        return seen

    return played


def chunk(length=4):
    return np.zeros((length, 7), np.float32)


def test_first_message_has_the_recorded_keys(play):
    first, last = play([])
    assert sorted(first) == [
        "active",
        "complete",
        "finish_step",
        "obs",
        "task_description",
        "task_file_name",
        "type",
        "valid_images",
    ]
    assert (first["type"], first["active"], first["complete"], first["finish_step"]) == ("init", True, 0.0, 0)
    assert first["task_file_name"] == "libero_spatial_task_3_trial_7"
    assert first["task_description"] == "put the bowl on the plate"
    assert sorted(first["obs"]) == OBSERVATION
    assert first["valid_images"] == []
    assert last == {"type": "terminate"}


def test_trial_is_the_seed_of_an_env_without_initial_states(play, monkeypatch):
    seeds = []
    reset = ScriptedEnv.reset
    monkeypatch.setattr(
        ScriptedEnv, "reset", lambda self, *, seed, options: seeds.append(seed) or reset(self, seed=seed)
    )
    play([])
    assert seeds == [7]


def test_pictures_are_as_mujoco_renders_them_and_rotation_is_a_quaternion(play):
    first, step, _ = play([chunk(3)])
    # Upright, the coloured pixel is top left; the trainer's own [::-1, ::-1] must find it top right.
    assert step["obs"]["agentview_image"][-1, 0].tolist() == [1, 0, 3]
    assert step["obs"]["robot0_eye_in_hand_image"][-1, 0].tolist() == [101, 100, 103]
    assert step["obs"]["robot0_eef_pos"].tolist() == [3.0, 1.0, 2.0]
    assert step["obs"]["robot0_gripper_qpos"].tolist() == [6.0, 7.0]
    # Axis-angle (3, 4, 5): angle sqrt(50) rad; half of it is pi + 0.393941: sin -0.383831, cos -0.923404.
    expected = [-0.383831 * share for share in (0.424264, 0.565685, 0.707107)] + [-0.923404]
    assert first["obs"]["robot0_eef_quat"] == pytest.approx(expected, abs=1e-5)


def test_gripper_turns_into_liberos_convention(play, monkeypatch):
    seen = []
    step = ScriptedEnv.step
    monkeypatch.setattr(ScriptedEnv, "step", lambda self, action: seen.append(action) or step(self, action))
    actions = chunk(3)
    actions[:, -1] = [1.0, 0.0, 0.4]
    actions[:, 0] = 0.25
    play([actions])
    assert [action[-1] for action in seen] == [-1.0, 1.0, 1.0]
    assert [action[0] for action in seen] == [0.25] * 3


def test_critics_done_inside_a_chunk_is_worth_one_at_its_step(play):
    _, step, _ = play([chunk()], spec="scripted:0.1,0.95")
    assert (step["active"], step["complete"], step["finish_step"]) == (False, 1.0, 2)


def test_step_limit_is_worth_the_value(play):
    _, first, second, _ = play([chunk(), chunk()])
    assert (first["active"], first["complete"], first["finish_step"]) == (True, 0.0, 4)
    assert (second["active"], second["complete"], second["finish_step"]) == (False, 0.5, 6)


def test_what_was_paid_on_the_way_is_told_at_the_end(play):
    # Every pair of frames says progress 0.1, so that the value is 1 - 0.9 ** step: 0.468559 after 6 steps.
    _, running, last, _ = play([chunk(), chunk()], rule={"preset": "dense"})
    assert (running["active"], running["complete"], running["finish_step"]) == (True, 0.0, 4)
    assert (last["active"], last["finish_step"]) == (False, 6)
    assert last["complete"] == pytest.approx(0.468559, abs=1e-6)


def test_validation_is_the_simulators_with_every_step_in_the_video(play):
    first, step, _ = play([chunk()], spec="scripted:0.95", success=[3], is_valid=True)
    assert len(first["valid_images"]) == 1
    assert [picture[0, -1].tolist() for picture in step["valid_images"]] == [[1, 0, 1], [1, 0, 2], [1, 0, 3]]
    assert (step["active"], step["complete"], step["finish_step"]) == (False, 1.0, 3)


def test_failed_validation_episode_is_worth_nothing(play):
    _, _, last, _ = play([chunk(), chunk()], is_valid=True)
    assert (last["active"], last["complete"], last["finish_step"]) == (False, 0.0, 6)


def test_validation_tells_success_and_not_what_a_simulator_with_dense_rewards_paid(play):
    # Returns: 3 * 0.25 + 1 = 1.75 with success at step 3, 6 * 0.25 = 1.5 at the limit of a failure.
    _, done, _ = play([chunk()], success=[3], step_reward=0.25, is_valid=True)
    assert (done["active"], done["complete"], done["finish_step"]) == (False, 1.0, 3)
    _, running, failed, _ = play([chunk(), chunk()], step_reward=0.25, is_valid=True)
    assert (running["active"], running["complete"]) == (True, 0.0)
    assert (failed["active"], failed["complete"], failed["finish_step"]) == (False, 0.0, 6)


def test_baseline_on_the_simulators_signals_learns_from_its_success(play):
    _, step, _ = play([chunk()], success=[3], step_reward=0.25, mode="eval")
    assert (step["active"], step["complete"], step["finish_step"]) == (False, 1.0, 3)


def test_simulators_success_pays_nothing_in_training(play):
    _, first, second, _ = play([chunk(), chunk()], success=[2])
    assert first["active"]
    assert second["complete"] == 0.5


def test_failed_critic_ends_the_trainers_wait_with_a_message(play, monkeypatch):
    from vlac_gym.critic.scripted import ScriptedCritic

    def fail(*args):
        raise CriticResponseError("no number in the reply")

    monkeypatch.setattr(ScriptedCritic, "success_prob", fail)
    with pytest.raises(CriticResponseError):
        play([chunk()])


def test_message_of_a_failure_is_neither_init_nor_step(play, tmp_path, monkeypatch):
    messages = queue.Queue()
    monkeypatch.delenv(SETTINGS_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="VLAC_GYM_SETTINGS"):
        env_worker("libero_spatial", 0, 0, None, queue.Queue(), messages, False, 0, 512)
    assert messages.get_nowait()["type"] == "error"


def test_trainers_step_limit_is_used_and_not_exceeded(play):
    _, step, _ = play([chunk()], limit=None, max_steps=3)
    assert (step["active"], step["complete"], step["finish_step"]) == (False, 0.5, 3)
    _, step, _ = play([chunk()], limit=3, max_steps=3)
    assert step["finish_step"] == 3
    with pytest.raises(ConfigError, match=r"max_episode_steps of at most 512.*got 600"):
        play([], limit=600)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"critic": {"on_error": "truncate"}}, "can't mask a lost episode"),
        ({"critic": {"spec": "transformers:/models/vlac"}}, "no model can be loaded"),
        (
            {"critic": {"spec": "ensemble:http://one:8400|http://two:8400"}},
            r"serve --critic 'ensemble:http://one:8400\|http://two:8400'",
        ),
        ({"critic": {"on_error": {"fallbacks": ["nano"]}}}, "got critic.spec 'nano'"),
        ({"truncate_as_terminal": True}, "for trainers that bootstrap"),
        ({"placement": {"env_resource": "sim"}}, "beside the trainer's own workers"),
        (
            {"env": {"backend": "warp", "scenes": "/s", "tasks": [0]}},
            "backend: mujoco, got 'warp': SimpleVLA-RL",
        ),
    ],
)
def test_what_this_trainer_can_not_keep_is_refused(block, message):
    with pytest.raises(ConfigError, match=message):
        check_settings(parse_settings(block))


def test_critics_deadline_stays_below_the_trainers():
    # 8 done checks and one value within 80 % of 30 s: 2.67 s each.
    block = parse_settings({"critic": {"spec": "http://critic:8400"}, "env": {"chunk": 8}})
    options = block.critic_options(CHUNK_DEADLINE_S)
    assert options["deadline_s"] == pytest.approx(24.0 / 9)


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (None, "http://a:1,http://b:2,http://c:3?encoding=png"),
        ("1", "http://b:2,http://c:3,http://a:1?encoding=png"),
        ("5", "http://c:3,http://a:1,http://b:2?encoding=png"),
    ],
)
def test_each_gpu_worker_asks_a_server_of_its_own_first(rank, expected):
    settings = parse_settings({"critic": {"spec": "http://a:1,http://b:2,http://c:3?encoding=png"}})
    environ = {} if rank is None else {"RANK": rank}
    assert _own_server_first(settings, environ).critic.spec == expected
    local = parse_settings({"critic": {"spec": "scripted:0.1,0.95"}})
    assert _own_server_first(local, {"RANK": "1"}) == local


def test_another_suite_than_the_settings_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"env": {"suite": "libero_goal"}}))
    monkeypatch.setenv(SETTINGS_VARIABLE, str(file))
    with pytest.raises(ConfigError, match=r"plays 'libero_spatial' where env\.suite says 'libero_goal'"):
        env_worker("libero_spatial", 0, 0, None, queue.Queue(), queue.Queue(), False, 0, 512)
