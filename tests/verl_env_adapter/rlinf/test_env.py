"""RLinf's env contract: exact arrays in, exact arrays out, shapes and meanings as recorded from rlinf 0.3.0."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tensor_worlds import point_envs  # noqa: E402

from verl_env_adapter.common import env_stack  # noqa: E402
from verl_env_adapter.rlinf import starts as starts_of_rlinf  # noqa: E402
from verl_env_adapter.rlinf.env import RolloutEnv  # noqa: E402
from vlac_gym.critic.scripted import ScriptedCritic  # noqa: E402
from vlac_gym.errors import AdapterContractError, ConfigError, CriticConnectionError  # noqa: E402

T, F = True, False
LOW, HIGH = 0.1, 0.95


def config(*, limit=6, chunk=4, success=(), on_error="raise", truncate_as_terminal=False, **more):
    return {
        "env_type": "libero",
        "task_suite_name": "vlac_gym",
        "auto_reset": False,
        "ignore_terminations": False,
        "max_episode_steps": limit,
        "use_fixed_reset_state_ids": True,
        "is_eval": False,
        "seed": 7,
        "group_size": 1,
        "vlac_gym": {
            "env": {
                "id": "scripted_ids:Scripted-v0",
                "chunk": chunk,
                "kwargs": {"success_steps": list(success)},
            },
            "critic": {"on_error": on_error},
            "truncate_as_terminal": truncate_as_terminal,
        },
        **more,
    }


@pytest.fixture
def start():
    envs = []

    def make(probs=(), values=(), num_envs=2, repeat=False, **options):
        critic = ScriptedCritic(success_probs=probs, values=values, repeat=repeat)
        env = RolloutEnv(config(**options), num_envs, 0, 1, critic=critic, processes="sync")
        envs.append(env)
        env.reset()
        return env, critic

    yield make
    for env in envs:
        env.close()


def actions(num_envs=2, length=4):
    return np.zeros((num_envs, length, 7), np.float32)


def simulator(env, i):
    return env._envs.env._executor._slots[i]._env.unwrapped


def test_observation_has_rlinf_names_shapes_and_dtypes(start):
    env, _ = start()
    observation, info = env.reset()
    assert list(observation) == ["main_images", "states", "task_descriptions"]
    assert (observation["main_images"].shape, observation["main_images"].dtype) == ((2, 8, 8, 3), torch.uint8)
    assert (observation["states"].shape, observation["states"].dtype) == ((2, 1), torch.float32)
    assert observation["task_descriptions"] == ["put the bowl on the plate"] * 2
    assert info == {}


def test_policy_gets_pictures_turned_as_rlinf_turns_them(start):
    env, _ = start()
    images = env.reset()[0]["main_images"]
    # The script writes (episode, 0, step) into the first pixel of the upright picture; raw[::-1, ::-1] mirrors it.
    assert images[0, 0, 7].tolist() == [2, 0, 0]  # the second episode
    assert images[0].sum() == 2


def test_end_inside_a_chunk_pays_one_step_and_the_limit_pays_the_value(start):
    # Rounds ask the running envs in order: steps 1 and 2 both, then env 1 alone.
    probs = [LOW, LOW, HIGH, LOW, LOW, LOW, LOW, LOW]
    env, critic = start(probs, values=[[0.0, 0.25, 0.375]])
    observations, rewards, terminations, truncations, infos = env.chunk_step(actions())
    assert (rewards.dtype, terminations.dtype, truncations.dtype) == (torch.float32, torch.bool, torch.bool)
    assert rewards.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert terminations.tolist() == [[F, T, T, T], [F, F, F, F]]
    assert truncations.tolist() == [[F] * 4] * 2
    assert observations[:3] == [None] * 3
    assert observations[3]["states"].tolist() == [[2.0], [4.0]]
    assert env.elapsed_steps.tolist() == [2, 4]
    assert infos[:3] == [{}] * 3

    _, rewards, terminations, truncations, infos = env.chunk_step(actions())
    assert rewards.tolist() == [[0, 0, 0, 0], [0, 0.375, 0, 0]]
    assert terminations.tolist() == [[T] * 4, [F] * 4]
    assert truncations.tolist() == [[F] * 4, [F, T, T, T]]
    episode = infos[-1]["episode"]
    assert episode["return"].tolist() == [1.0, 0.375]
    assert episode["episode_len"].tolist() == [2.0, 6.0]
    assert episode["reward"].tolist() == [0.5, 0.0625]
    assert episode["critic_done"].tolist() == [1.0, 0.0]
    assert episode["critic_mode"].tolist() == [1.0, 1.0]
    assert "success_once" not in episode
    assert [call.count for call in critic.calls if call.method == "value"] == [3]  # frames 0, 5 and the last


def test_end_is_latched_without_simulation_or_questions(start):
    env, critic = start([HIGH, HIGH])
    _, rewards, terminations, _, _ = env.chunk_step(actions())
    assert rewards.tolist() == [[1, 0, 0, 0]] * 2
    assert terminations.tolist() == [[T] * 4] * 2
    for _ in range(2):
        observations, rewards, terminations, truncations, _ = env.chunk_step(actions())
        assert rewards.sum() == 0
        assert terminations.all()
        assert not truncations.any()
        assert observations[-1]["states"].tolist() == [[1.0], [1.0]]
    assert [simulator(env, i).num_steps for i in range(2)] == [1, 1]
    assert len(critic.calls) == 1  # one question about both envs


def test_no_end_in_a_chunk(start):
    env, _ = start([LOW] * 8)
    _, rewards, terminations, truncations, _ = env.chunk_step(actions())
    assert rewards.tolist() == [[0.0] * 4] * 2
    assert not terminations.any()
    assert not truncations.any()


def test_simulator_success_neither_pays_nor_ends_training(start):
    env, _ = start([LOW] * 8, success=[2])
    _, rewards, terminations, _, infos = env.chunk_step(actions())
    assert rewards.sum() == 0
    assert not terminations.any()
    assert infos[-1]["episode"]["sim_success"].tolist() == [1.0, 1.0]
    assert infos[-1]["episode"]["critic_done"].tolist() == [0.0, 0.0]


def test_false_positive_is_logged(start):
    env, _ = start([HIGH, LOW, LOW, LOW, LOW], success=[2])
    episode = env.chunk_step(actions())[4][-1]["episode"]
    assert episode["critic_false_positive"].tolist() == [1.0, 0.0]


def test_partial_reset_leaves_the_others_running(start):
    env, _ = start([HIGH, LOW, LOW, LOW, LOW] + [LOW] * 4, limit=8)
    env.chunk_step(actions())
    observation, _ = env.reset(env_idx=[0])
    assert observation["states"].tolist() == [[0.0], [4.0]]
    assert [simulator(env, i).num_resets for i in range(2)] == [2, 1]
    _, _, terminations, _, _ = env.chunk_step(actions(length=2))
    assert terminations.tolist() == [[F, F]] * 2
    assert env.elapsed_steps.tolist() == [2, 6]


def test_auto_reset_reports_ends_in_the_last_column_and_keeps_the_terminal_observation(start):
    env, _ = start([LOW, LOW, HIGH, LOW, LOW, LOW], auto_reset=True)
    observations, rewards, terminations, truncations, infos = env.chunk_step(actions())
    assert rewards.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]  # where it was earned
    assert terminations.tolist() == [[F, F, F, T], [F] * 4]
    assert not truncations.any()
    assert observations[-1]["states"].tolist() == [[0.0], [4.0]]
    last = infos[-1]
    assert last["final_observation"]["states"].tolist() == [[2.0], [4.0]]
    assert last["_final_observation"].tolist() == [T, F]
    assert last["_final_info"].tolist() == [T, F]
    assert last["final_info"]["episode"]["return"].tolist() == [1.0, 0.0]
    assert last["final_info"]["episode"]["episode_len"].tolist() == [2.0, 4.0]
    assert env.elapsed_steps.tolist() == [0, 4]


def test_auto_reset_changes_nothing_where_no_episode_ends(start):
    env, _ = start([LOW] * 8, auto_reset=True)
    observations, _, terminations, truncations, infos = env.chunk_step(actions())
    assert not (terminations | truncations).any()
    assert observations[-1]["states"].tolist() == [[4.0], [4.0]]
    assert list(infos[-1]) == ["episode"]


def test_ignored_terminations_end_at_the_step_limit_only(start):
    env, _ = start(
        [LOW, LOW, HIGH, LOW] + [LOW] * 6, limit=8, values=[[0.0, 0.5, 0.25]], ignore_terminations=True
    )
    _, rewards, terminations, truncations, _ = env.chunk_step(actions())
    assert rewards.tolist() == [[0, 1, 0, 0], [0] * 4]
    assert not (terminations | truncations).any()
    _, rewards, terminations, truncations, _ = env.chunk_step(actions())
    assert rewards.tolist() == [[0] * 4, [0, 0, 0, 0.25]]
    assert not terminations.any()
    assert truncations.tolist() == [[F, F, F, T]] * 2  # RLinf asserts that all envs are truncated together
    assert [simulator(env, i).num_steps for i in range(2)] == [2, 8]


def test_paid_truncation_becomes_a_termination_on_request(start):
    env, _ = start([LOW] * 2, values=[[0.0, 0.5]] * 2, limit=1, chunk=1, truncate_as_terminal=True)
    _, rewards, terminations, truncations, _ = env.chunk_step(actions(length=1))
    assert rewards.tolist() == [[0.5]] * 2
    assert terminations.tolist() == [[T]] * 2
    assert truncations.tolist() == [[F]] * 2  # RLinf adds gamma * V wherever this is set


def test_evaluation_is_the_simulators_and_asks_no_critic(start):
    env, critic = start(is_eval=True, success=[3])
    _, rewards, terminations, truncations, infos = env.chunk_step(actions())
    assert rewards.tolist() == [[0, 0, 1, 0]] * 2
    assert terminations.tolist() == [[F, F, T, T]] * 2
    assert not truncations.any()
    episode = infos[-1]["episode"]
    assert episode["success_once"].tolist() == [T, T]
    assert episode["critic_mode"].tolist() == [0.0, 0.0]
    assert "critic_done" not in episode
    assert critic.calls == []


def test_evaluation_with_auto_reset_leaves_envs_idle_once_every_start_was_played(start):
    env, _ = start(is_eval=True, auto_reset=True, success=[1], num_envs=1, specific_reset_id=None)
    (states,) = env._states
    states._states = states._states[:2]
    states._trials = [(None, 2)]
    env.is_start = True
    env.reset()
    first = env.chunk_step(actions(1))
    assert first[2].tolist() == [[F, F, F, T]]
    second = env.chunk_step(actions(1))
    assert second[2].tolist() == [[F, F, F, T]]
    assert second[4][-1]["final_info"]["episode"]["success_once"].tolist() == [T]
    third = env.chunk_step(actions(1))
    assert not third[2].any()
    assert not third[3].any()


def test_failed_critic_is_raised(start):
    env, _ = start([CriticConnectionError("gone")])
    with pytest.raises(CriticConnectionError, match="gone"):
        env.chunk_step(actions())


def test_failed_critic_can_end_the_episode_unpaid_and_counted(start):
    env, _ = start([CriticConnectionError("gone")], on_error="truncate", truncate_as_terminal=True)
    _, rewards, terminations, truncations, infos = env.chunk_step(actions())
    assert rewards.sum() == 0
    assert truncations.tolist() == [[T] * 4] * 2
    assert not terminations.any()  # nothing was paid, so that nothing stands for the rest
    assert infos[-1]["episode"]["critic_failed"].tolist() == [1.0, 1.0]


def in_config_of(adv_type, options):
    """The section as a part of RLinf's config, whose root OmegaConf's nodes know."""

    class Section(dict):
        def _get_root(self):
            return {"algorithm": {"adv_type": adv_type}}

    return Section(options)


@pytest.mark.parametrize("chunk", [4, 2])
def test_an_episode_without_judgement_carries_one_nan_to_rlinfs_mask(chunk):
    # Step 1 asks about both envs, step 2 fails.
    critic = ScriptedCritic(success_probs=[LOW, LOW, CriticConnectionError("gone")])
    section = in_config_of("grpo", config(on_error="truncate"))
    env = RolloutEnv(section, 2, 0, 1, critic=critic, processes="sync")
    try:
        env.reset()
        _, rewards, terminations, truncations, infos = env.chunk_step(actions(length=chunk))
        assert torch.isnan(rewards).tolist() == [[F, T, F, F][:chunk]] * 2
        assert rewards.nansum() == 0
        assert truncations.tolist() == [[F, T, T, T][:chunk]] * 2
        assert not terminations.any()
        assert infos[-1]["episode"]["return"].tolist() == [0.0, 0.0]
        assert infos[-1]["episode"]["critic_failed"].tolist() == [1.0, 1.0]
        _, rewards, _, _, _ = env.chunk_step(actions(length=chunk))
        assert rewards.tolist() == [[0.0] * chunk] * 2  # it is over; RLinf masks these steps anyway
    finally:
        env.close()


def test_group_shares_starts_episode_by_episode(start):
    env, _ = start([HIGH, LOW] + [LOW] * 3 + [HIGH] * 8, num_envs=2, group_size=2, auto_reset=True)
    assert env._episodes[0].start == env._episodes[1].start
    first = env._episodes[0].start
    env.chunk_step(actions())
    second = env._episodes[0].start
    assert second != first
    assert env._episodes[1].start == first  # still in its first episode
    env.chunk_step(actions())
    assert env._episodes[1].start == second


def test_single_reset_takes_the_next_start_and_a_new_rollout_begins_with_new_ones(start):
    env, _ = start(num_envs=1)
    seen = [env._episodes[0].start]
    env.reset(env_idx=[0])
    seen.append(env._episodes[0].start)
    env.is_start = True
    env.reset()
    assert env._episodes[0].start == seen[0]
    env.update_reset_state_ids()
    env.is_start = True
    env.reset()
    seen.append(env._episodes[0].start)
    assert len(set(seen)) == 3


def test_groups_are_envs_in_a_row(start):
    env, _ = start(num_envs=4, group_size=2)
    first, second, third, fourth = (episode.start for episode in env._episodes)
    assert first == second
    assert third == fourth
    assert first != third


def test_actions_that_do_not_fit_are_refused(start):
    env, _ = start()
    with pytest.raises(
        AdapterContractError, match=r"Expected actions of shape \(2, 1\.\.4, 7\) from RLinf's"
    ):
        env.chunk_step(actions(3))
    with pytest.raises(AdapterContractError, match="Expected finite actions"):
        env.chunk_step(actions() * np.nan)
    assert [simulator(env, i).num_steps for i in range(2)] == [0, 0]


def test_single_step_is_a_chunk_of_one(start):
    env, _ = start([LOW, HIGH])
    observation, rewards, terminations, truncations, info = env.step(actions()[:, 0])
    assert observation["states"].tolist() == [[1.0], [1.0]]
    assert rewards.tolist() == [0.0, 1.0]
    assert terminations.tolist() == [F, T]
    assert truncations.tolist() == [F, F]
    assert "episode" in info


def test_group_size_must_divide_the_envs():
    with pytest.raises(ConfigError, match="group_size to divide a stage's 3 envs, got 2"):
        RolloutEnv(config(group_size=2), 3, 0, 1, processes="sync")


@pytest.fixture
def worlds(monkeypatch):
    envs = []
    monkeypatch.setattr(
        env_stack,
        "warp_envs",
        lambda scenes, tasks, *, max_episode_steps, **_: point_envs(None, tasks, max_episode_steps),
    )
    monkeypatch.setattr(starts_of_rlinf, "start_counts", lambda env: {8: 2, 7: 3})

    def make(num_envs, **options):
        cfg = config(**options)
        cfg["vlac_gym"]["env"] = {
            "backend": "warp",
            "scenes": "s",
            "tasks": [8, 7],
            "init_states": {"train": "0-1", "eval": "0-1"},
            "cameras": ["agentview", "wrist"],
            "image_size": 16,
            "chunk": 4,
        }
        envs.append(RolloutEnv(cfg, num_envs, 0, 1, critic=ScriptedCritic(repeat=True)))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


OTHERS, POINTS = {0.3, 0.05}, {0.0, 0.1}  # where task 8 and task 7 start from states 0 and 1


def test_worlds_of_several_tasks_start_from_their_own_states(worlds):
    env = worlds(8, group_size=2)
    observation, _ = env.reset()
    assert env.task_descriptions == ["push the other point"] * 4 + ["push the point"] * 4
    places = np.round(observation["states"][:, 0].double().numpy(), 4).tolist()
    assert set(places[:4]) <= OTHERS
    assert set(places[4:]) <= POINTS
    assert places[::2] == places[1::2]  # a group starts alike
    for _ in range(20):
        again, _ = env.reset(env_idx=[0, 1, 7])
        places = np.round(again["states"][:, 0].double().numpy(), 4).tolist()
        assert {places[0]} <= OTHERS
        assert {places[7]} <= POINTS
    with pytest.raises(ConfigError, match="group_size to divide a stage's 3 envs of each task, got 2"):
        worlds(6, group_size=2)
    with pytest.raises(ConfigError, match=r"multiple of the 2 env\.tasks \[8, 7\]"):
        worlds(3)


def test_an_evaluation_of_worlds_plays_each_tasks_states_once(worlds):
    env = worlds(4, is_eval=True)
    for _ in range(2):
        env.is_start = True
        observation, _ = env.reset()
        assert np.round(observation["states"][:, 0].double().numpy(), 4).tolist() == [0.3, 0.05, 0.0, 0.1]
