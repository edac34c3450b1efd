"""verl-vla's hooks on scripted envs: exact arrays in, exact arrays out, in the shapes recorded at 8a18e3f."""

import numpy as np
import pytest

from verl_env_adapter.common.settings import parse_settings
from verl_env_adapter.common.start_states import StartPlan
from verl_env_adapter.verl_vla.simulator import VerlVLASimulator, first_chunk_safe
from vlac_gym.errors import ConfigError, CriticResponseError


def settings(*, spec="scripted:0.1", limit=6, success=(), **more):
    env = {
        "id": "scripted_arm:ScriptedArm-v0",
        "chunk": 4,
        "kwargs": {"success_steps": list(success)},
        "max_episode_steps": limit,
    }
    return parse_settings({"env": env, "critic": {"spec": spec, **more.pop("critic", {})}, **more})


@pytest.fixture
def make_simulator():
    simulators = []

    def make(block, *, num_envs=2, phase="train", counts=None):
        plan = StartPlan(counts or {0: 3}, None, seed=0, num_envs=num_envs)
        simulators.append(VerlVLASimulator(block, num_envs, plan, phase=phase, isolated=False))
        return simulators[-1]

    yield make
    for simulator in simulators:
        simulator.close()


def actions(num_envs=2, length=4):
    return np.zeros((num_envs, length, 7), np.float32)


def test_reset_has_the_keys_shapes_and_dtypes_that_the_worker_stacks(make_simulator):
    described = make_simulator(settings()).reset([0, 1])
    assert sorted(described) == ["eval_episode_id", "observation", "task", "task_id"]
    first = described["observation"][0]
    assert {key: (value.shape, str(value.dtype)) for key, value in first.items()} == {
        "observation.images.image": ((8, 8, 3), "uint8"),
        "observation.images.wrist_image": ((8, 8, 3), "uint8"),
        "observation.state": ((8,), "float64"),
    }
    assert described["task"] == ["put the bowl on the plate"] * 2
    assert described["task_id"].tolist() == [0, 0]
    assert described["eval_episode_id"].tolist() == [-1, -1]
    assert described["task_id"].dtype == described["eval_episode_id"].dtype == np.int64


def test_policy_sees_pictures_turned_as_the_trainers_own_env_turns_them(make_simulator):
    # Upright, the scripted frame's coloured pixel is top left; raw[::-1, ::-1] puts it top right.
    simulator = make_simulator(settings(), num_envs=1)
    simulator.reset([0])
    described, _ = simulator.step(actions(1, 3), [0])
    picture = described["observation"][0]["observation.images.image"]
    assert picture[0, -1].tolist() == [1, 0, 3]
    assert picture[0, 0].tolist() == [0, 0, 0]
    wrist = described["observation"][0]["observation.images.wrist_image"]
    assert wrist[0, -1].tolist() == [101, 100, 103]
    assert described["observation"][0]["observation.state"].tolist() == [3, 1, 2, 3, 4, 5, 6, 7]


def test_critic_sees_upright_pictures(make_simulator, monkeypatch):
    simulator = make_simulator(settings(), num_envs=1)
    simulator.reset([0])
    critic = simulator._pool.envs.critic
    seen = []
    ask = critic.success_prob
    monkeypatch.setattr(
        critic, "success_prob", lambda frames, tasks: seen.extend(frames) or ask(frames, tasks)
    )
    simulator.step(actions(1, 2), [0])
    assert [frame[0, 0].tolist() for frame in seen] == [[1, 0, 1], [1, 0, 2]]


def test_none_ending(make_simulator):
    simulator = make_simulator(settings())
    simulator.reset([0, 1])
    _, batch = simulator.step(actions(), [0, 1])
    assert batch.rewards.tolist() == [[0.0] * 4] * 2
    assert not batch.terminated.any()
    assert not batch.truncated.any()
    assert not simulator.success(batch).any()


def test_one_ends_inside_the_chunk_and_stays_ended(make_simulator):
    # Env 0 has used up two answers of the script before env 1 begins: done at its next step, and env 1 at step 3.
    simulator = make_simulator(settings(spec="scripted:0.1,0.1,0.95,0.1,0.1,0.95", limit=9))
    simulator.reset([0, 1])
    simulator.step(actions(1, 2), [0])
    _, batch = simulator.step(actions(), [0, 1])
    assert batch.rewards.tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    assert batch.terminated.tolist() == [[True] * 4, [False, False, True, True]]
    assert simulator.success(batch).tolist() == batch.terminated.tolist()
    _, after = simulator.step(actions(), [0, 1])
    assert after.terminated.all()
    assert after.rewards.tolist() == [[0.0] * 4] * 2
    assert after.executed_steps.tolist() == [0, 0]


def test_all_end_at_the_step_limit_with_the_value(make_simulator):
    simulator = make_simulator(settings(truncate_as_terminal=True))
    simulator.reset([0, 1])
    simulator.step(actions(), [0, 1])
    _, batch = simulator.step(actions(), [0, 1])
    assert batch.rewards.tolist() == [[0.0, 0.5, 0.0, 0.0]] * 2
    assert batch.truncated.tolist() == [[False, True, True, True]] * 2
    assert batch.terminated.tolist() == [[False, True, True, True]] * 2
    assert not simulator.success(batch).any()


def test_single_env_is_reset_as_auto_reset_does_and_keeps_its_terminal_observation(make_simulator):
    # One script for both envs, in turn: done at step 3.
    simulator = make_simulator(settings(spec="scripted:0.1,0.1,0.1,0.1,0.95,0.95", limit=9))
    simulator.reset([0, 1])
    simulator.step(actions(), [0, 1])
    described = simulator.reset([1])
    assert described["observation"][0]["observation.state"][0] == 0
    finals = simulator.final_observations()
    assert [final["observation.state"][0] for final in finals] == [3, 3]
    _, batch = simulator.step(actions(2, 1), [0, 1])
    assert batch.terminated.tolist() == [[True], [False]]


def test_final_observation_is_the_last_terminal_one_and_none_before_the_first_end(make_simulator):
    def final_steps():
        return [final and final["observation.state"][0] for final in simulator.final_observations()]

    # One script for both envs, in turn. Env 0 is done at its step 5, when env 1 is at its step 3; after env 0's reset
    # both are done at their step 5.
    script = [0.1] * 5 + [0.95] + [0.1] * 7 + [0.95] * 2
    simulator = make_simulator(settings(spec="scripted:" + ",".join(map(str, script)), limit=20))
    simulator.reset([0, 1])
    assert final_steps() == [None, None]
    simulator.step(actions(1, 3), [0])
    assert final_steps() == [None, None]
    simulator.step(actions(2, 3), [0, 1])
    assert final_steps() == [5, None]
    simulator.reset([0])
    simulator.step(actions(1, 2), [0])
    assert final_steps() == [5, None]
    simulator.step(actions(2, 3), [0, 1])
    assert final_steps() == [5, 5]


def test_final_observation_is_kept_at_the_step_limit_too(make_simulator):
    simulator = make_simulator(settings(), num_envs=1)
    simulator.reset([0])
    simulator.step(actions(1), [0])
    simulator.step(actions(1), [0])
    assert simulator.final_observations()[0]["observation.state"][0] == 6


def test_evaluation_is_the_simulators_and_asks_no_critic(make_simulator):
    simulator = make_simulator(settings(spec="scripted:0.95", success=[3]), phase="validate")
    simulator.reset([0, 1], reset_eval=True)
    _, batch = simulator.step(actions(), [0, 1])
    assert batch.rewards.tolist() == [[0.0, 0.0, 1.0, 0.0]] * 2
    assert batch.terminated.tolist() == [[False, False, True, True]] * 2
    assert simulator.success(batch).tolist() == [[False, False, True, True]] * 2
    assert "critic" not in batch.reports[0].info


def test_simulators_success_does_not_reach_the_trainer_while_training(make_simulator):
    simulator = make_simulator(settings(success=[2]), num_envs=1)
    simulator.reset([0])
    _, batch = simulator.step(actions(1), [0])
    assert batch.sim_success.any()
    assert not simulator.success(batch).any()


def test_baseline_on_the_simulators_signals_tells_its_success_in_training(make_simulator):
    simulator = make_simulator(settings(mode="eval", spec="scripted:0.95", success=[3]), num_envs=1)
    simulator.reset([0])
    _, batch = simulator.step(actions(1), [0])
    assert batch.rewards.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert simulator.success(batch).tolist() == [[False, False, True, True]]


def test_evaluation_takes_each_start_state_once_and_starts_anew_on_demand(make_simulator):
    simulator = make_simulator(settings(), num_envs=2, phase="validate", counts={0: 2, 1: 1})
    first = simulator.reset([0, 1], reset_eval=True)
    second = simulator.reset([0, 1])
    assert first["eval_episode_id"].tolist() + second["eval_episode_id"].tolist() == [0, 1, 2, 0]
    assert second["task_id"].tolist() == [1, 0]
    assert simulator.reset([0, 1], reset_eval=True)["eval_episode_id"].tolist() == [0, 1]
    assert simulator.num_eval_episodes == 3


def test_recorder_gets_the_start_state_and_a_replay_chooses_it(make_simulator):
    simulator = make_simulator(settings(), num_envs=1, counts={0: 2, 1: 2})
    described = simulator.reset([0], state_id=3)
    assert described["task_id"].tolist() == [1]
    described, _ = simulator.step(actions(1, 1), [0])
    assert [extra["info.reset_state_id"].tolist() for extra in described["extra"]] == [[3]]


def test_start_state_belongs_to_the_env_that_was_reset(make_simulator):
    simulator = make_simulator(settings(), counts={0: 2, 1: 2})
    simulator.reset([0, 1], state_id=0)
    assert simulator.reset([1], state_id=3)["task_id"].tolist() == [1]
    described, _ = simulator.step(actions(2, 1), [0, 1])
    assert [extra["info.reset_state_id"].tolist() for extra in described["extra"]] == [[0], [3]]
    assert described["task_id"].tolist() == [0, 1]
    described, _ = simulator.step(actions(1, 1), [1])
    assert described["task_id"].tolist() == [1]


def test_failed_critic_raises_by_default(make_simulator, monkeypatch):
    simulator = make_simulator(settings(), num_envs=1)
    simulator.reset([0])
    fail_critic(simulator, monkeypatch)
    with pytest.raises(CriticResponseError, match="no number"):
        simulator.step(actions(1), [0])


def test_failed_critic_truncates_on_demand_and_is_not_terminal(make_simulator, monkeypatch):
    simulator = make_simulator(
        settings(critic={"on_error": "truncate"}, truncate_as_terminal=True), num_envs=1
    )
    simulator.reset([0])
    fail_critic(simulator, monkeypatch)
    _, batch = simulator.step(actions(1), [0])
    assert batch.rewards.tolist() == [[0.0] * 4]
    assert batch.truncated.tolist() == [[True] * 4]
    assert not batch.terminated.any()
    assert not simulator.success(batch).any()
    assert np.isnan(simulator.rewards(batch)).tolist() == [[True, False, False, False]]
    _, after = simulator.step(actions(1), [0])
    assert simulator.rewards(after).tolist() == [[0.0] * 4]


def test_a_judged_episode_is_paid_as_it_was(make_simulator):
    simulator = make_simulator(settings(truncate_as_terminal=True), num_envs=1)
    simulator.reset([0])
    for _ in range(2):
        _, batch = simulator.step(actions(1), [0])
        assert simulator.rewards(batch).tolist() == batch.rewards.tolist()


def fail_critic(simulator, monkeypatch):
    def fail(*args, **kwargs):
        raise CriticResponseError("no number in the reply")

    monkeypatch.setattr(simulator._pool.envs.critic, "success_prob", fail)


def test_isolated_envs_say_the_same_as_envs_in_this_process():
    block = settings(spec="scripted:0.1,0.1,0.95")
    results = []
    for isolated in (False, True):
        simulator = VerlVLASimulator(
            block, 2, StartPlan({0: 3}, None, seed=0, num_envs=2), phase="train", isolated=isolated
        )
        try:
            simulator.reset([0, 1])
            described, batch = simulator.step(actions(), [0, 1])
        finally:
            simulator.close()
        picture = described["observation"][1]["observation.images.image"]
        results.append((batch.rewards.tolist(), batch.terminated.tolist(), picture.tolist()))
    assert results[0] == results[1]


def test_first_chunk_is_kept_clear_of_the_critics_done():
    safe = first_chunk_safe(settings(), 4)
    assert safe.rule.resolve().min_steps == 5
    assert first_chunk_safe(settings(rule={"min_steps": 5}), 4).rule.options == {"min_steps": 5}
    with pytest.raises(ConfigError, match=r"min_steps above the chunk of 4, got 4"):
        first_chunk_safe(settings(rule={"min_steps": 4}), 4)
    with pytest.raises(ConfigError, match=r"max_episode_steps above the chunk of 4, got 4"):
        first_chunk_safe(settings(limit=4), 4)


def test_baseline_on_the_simulators_signals_is_left_alone():
    block = settings(mode="eval")
    assert first_chunk_safe(block, 4) is block


def test_training_only_settings_refuse_to_evaluate():
    with pytest.raises(ConfigError, match="The trainer validates"):
        VerlVLASimulator(
            settings(mode="train"), 1, StartPlan({0: 1}, None, seed=0), phase="validate", isolated=False
        )


def test_envs_run_beside_the_trainers_workers():
    with pytest.raises(ConfigError, match=r"use cluster\.resource\.env\.resource_label"):
        VerlVLASimulator(
            settings(placement={"env_resource": "sim"}), 1, StartPlan({0: 1}, None, seed=0), phase="train"
        )
