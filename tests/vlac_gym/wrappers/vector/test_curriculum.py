"""A curriculum around a vector env: what is played, and what is credited to which assignment."""

from functools import partial

import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, ResetNeeded
from gymnasium.vector import VectorWrapper
from vector_envs import FaultyEnv, ShadedEnv

import vlac_gym
from vlac_gym.critic import make_critic
from vlac_gym.curriculum import CurriculumConfig, CurriculumManager
from vlac_gym.errors import ConfigError, CriticConnectionError, SimulatorError
from vlac_gym.rollout import PipelinedRollout
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.infos import unstack_infos
from vlac_gym.wrappers.vector import ActionChunk, CurriculumWrapper, VLACRewardWrapper


class TaskEnv(ShadedEnv):
    """Plays the task of its options: even tasks succeed at step `task_id + 1`, odd ones never; info says which."""

    def reset(self, *, seed=None, options=None):
        self.chosen = {key: options[key] for key in ("task_id", "init_state_id")}
        even = self.chosen["task_id"] % 2 == 0
        self._success_steps = frozenset([self.chosen["task_id"] + 1] if even else [])
        observation, _ = super().reset(seed=seed, options=options)
        return observation, self.current_info()

    def _info(self, step):
        return super()._info(step) | self.chosen


class LyingEnv(TaskEnv):
    """Says that it played another task than it was told to."""

    def _info(self, step):
        return super()._info(step) | {"task_id": 77}


class FaultyTaskEnv(TaskEnv, FaultyEnv):
    """A `TaskEnv` with a fault."""


class Notes(CurriculumManager):
    """A curriculum that notes what it hands out and what it is told."""

    def __init__(self, *args):
        super().__init__(*args)
        self.made, self.told = [], []

    def get_batch(self, n):
        batch = super().get_batch(n)
        self.made += batch
        return batch

    def report_results(self, results):
        self.told += results
        super().report_results(results)

    def verdicts(self):
        """(task, success) of each result, by the assignments' own ids."""
        tasks = {a.assignment_id: a.task_id for a in self.made}
        return [(tasks[r.assignment_id], r.success) for r in self.told]


def notes(task_ids=(0, 1, 2, 3), **options):
    return Notes(task_ids, 5, CurriculumConfig(source=options.pop("source", "simulator"), **options))


def make(curriculum, num_envs=4, autoreset="NextStep", env_type=TaskEnv, critic=None, chunk=None, **options):
    fns = [partial(env_type, shade=i, max_episode_steps=6, **options) for i in range(num_envs)]
    env = RolloutVectorEnv(
        fns, mode="sync", autoreset_mode=autoreset, group_size=curriculum.config.group_size
    )
    if critic is not None:
        env = VLACRewardWrapper(env, critic, max_episode_steps=6)
    return CurriculumWrapper(ActionChunk(env, chunk) if chunk else env, curriculum)


def idle_actions(env):
    return np.zeros(env.action_space.shape, np.float32)


def labels(infos, num_envs):
    return [info.get("assignment") for info in unstack_infos(infos, num_envs)]


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep"])
def test_every_episode_is_credited_to_the_task_that_it_played(autoreset, chunk):
    curriculum = notes()
    env = make(curriculum, autoreset=autoreset, chunk=chunk)
    env.reset(seed=0)
    for _ in range(60):
        env.step(idle_actions(env))
    verdicts = curriculum.verdicts()
    assert len(verdicts) > 30
    assert {task for task, _ in verdicts} == {0, 1, 2, 3}
    assert all(success == (task % 2 == 0) for task, success in verdicts)
    counts = curriculum.counts()
    assert (counts["credited"], counts["mismatched"], counts["duplicate"]) == (len(verdicts), 0, 0)
    assert counts["outstanding"] == len(curriculum.made) - len(verdicts)
    assert counts["outstanding"] <= 4
    env.close()
    assert curriculum.counts()["outstanding"] == 0


def test_infos_name_the_assignment_that_they_are_about():
    curriculum = notes([0, 1])
    env = make(curriculum, num_envs=1, autoreset="SameStep")
    _, infos = env.reset(seed=0)
    first = curriculum.made[0]
    assert labels(infos, 1)[0]["assignment_id"] == first.assignment_id
    while len(curriculum.made) < 2:
        infos = env.step(idle_actions(env))[4]
    # The end's info is about the first episode, the rest about the second.
    second = curriculum.made[1]
    info = unstack_infos(infos, 1)[0]
    assert info["final_info"]["assignment"]["assignment_id"] == first.assignment_id
    assert info["final_info"]["task_id"] == first.task_id
    assert info["assignment"] == {
        "assignment_id": second.assignment_id,
        "group_id": second.group_id,
        "task_id": second.task_id,
        "init_state_id": second.init_state_id,
    }
    assert (info["task_id"], info["init_state_id"]) == (second.task_id, second.init_state_id)


def test_next_step_infos_name_the_ended_assignment_until_the_reset():
    curriculum = notes([0])  # succeeds at step 1
    env = make(curriculum, num_envs=1)
    env.reset(seed=0)
    first, second = (labels(env.step(idle_actions(env))[4], 1)[0]["assignment_id"] for _ in range(2))
    assert [first, second] == [a.assignment_id for a in curriculum.made]


def test_groups_play_the_same_starts_in_the_same_order():
    curriculum = notes(group_size=2)
    env = make(curriculum, num_envs=4)
    _, infos = env.reset(seed=0)
    played = [[label["group_id"]] for label in labels(infos, 4)]
    for _ in range(40):
        for own, label in zip(played, labels(env.step(idle_actions(env))[4], 4)):
            if label["group_id"] != own[-1]:
                own.append(label["group_id"])
    assert len(played[0]) > 5
    assert played[0] == played[1]
    assert played[2] == played[3]
    assert not set(played[0]) & set(played[2])


def test_the_critics_verdict_counts_and_not_the_simulators():
    # The critic sees success in its second frame, whatever the task; the simulator disagrees about odd tasks.
    curriculum = notes(source="critic", alpha=0.5, prior=0.0)
    env = make(curriculum, num_envs=1, critic=make_critic("scripted:0.1,0.95"))
    env.reset(seed=0)
    infos = {}
    while not curriculum.told:
        infos = env.step(idle_actions(env))[4]
    assert "success" not in infos
    assert curriculum.told[0].success is True
    assert curriculum.success_rates()[curriculum.made[0].task_id] == 0.5


def test_a_critic_that_never_says_done_gives_failures_though_the_simulator_succeeds():
    curriculum = notes([0, 2], source="critic", alpha=0.5)
    env = make(curriculum, num_envs=1, critic=make_critic("scripted:0.1"))
    env.reset(seed=0)
    for _ in range(6):
        infos = env.step(idle_actions(env))[4]
    assert infos["sim_success"][0]
    assert [result.success for result in curriculum.told] == [False]


def test_the_simulators_verdict_needs_its_name():
    curriculum = CurriculumManager([0], 5)  # source='critic' by default
    with pytest.raises(ConfigError, match=r"Expected a VLACRewardWrapper .*source='simulator'"):
        make(curriculum)


def test_eval_episodes_teach_a_curriculum_of_the_critic_nothing():
    curriculum = notes([0], source="critic", alpha=0.5)
    env = make(curriculum, num_envs=1, critic=make_critic("scripted:0.95"))
    env.reset(seed=0, options={"mode": "eval"})
    env.step(idle_actions(env))
    assert [result.success for result in curriculum.told] == [None]
    assert curriculum.success_rates() == {0: 0.5}


def test_an_episode_whose_critic_failed_teaches_nothing():
    def gone(frames, tasks):
        raise CriticConnectionError("gone")

    curriculum = notes([1], source="critic")
    base = RolloutVectorEnv([partial(TaskEnv, max_episode_steps=6)], mode="sync")
    critic = make_critic("scripted:0.1")
    critic.success_prob = gone
    env = CurriculumWrapper(
        VLACRewardWrapper(base, critic, max_episode_steps=6, on_critic_error="truncate"), curriculum
    )
    env.reset(seed=0)
    env.step(idle_actions(env))
    assert [result.success for result in curriculum.told] == [None]
    assert curriculum.counts()["abandoned"] == 1


@pytest.mark.parametrize("autoreset", ["NextStep", "SameStep"])
def test_a_lost_episode_is_given_back_and_the_next_one_credited(autoreset):
    curriculum = notes([0, 1])
    env = make(
        curriculum, num_envs=2, autoreset=autoreset, env_type=FaultyTaskEnv, fault="physics", at_step=4
    )
    env.reset(seed=0)
    for _ in range(40):
        env.step(idle_actions(env))
    # Task 0 succeeds at step 1; task 1 would go on to step 6, but its simulator fails at step 4.
    verdicts = set(curriculum.verdicts())
    assert verdicts == {(0, True), (1, None)}
    assert curriculum.success_rates()[1] == 0.5


def test_a_task_that_the_env_did_not_play_is_not_credited():
    curriculum = notes([0], alpha=0.5)
    env = make(curriculum, num_envs=1, env_type=LyingEnv)
    env.reset(seed=0)
    env.step(idle_actions(env))
    assert curriculum.counts()["mismatched"] == 1
    assert curriculum.success_rates() == {0: 0.5}


def test_a_reset_gives_the_running_episodes_back():
    curriculum = notes([3])
    env = make(curriculum, num_envs=2, autoreset="SameStep")
    env.reset(seed=0)
    env.step(idle_actions(env))
    _, infos = env.reset(seed=1)
    assert curriculum.verdicts() == [(3, None), (3, None)]
    assert [label["assignment_id"] for label in labels(infos, 2)] == [
        a.assignment_id for a in curriculum.made[2:]
    ]
    for _ in range(6):
        env.step(idle_actions(env))
    assert curriculum.counts()["credited"] == 2


def test_disabled_autoreset_takes_whole_groups():
    curriculum = notes([0], group_size=2)
    env = make(curriculum, num_envs=4, autoreset="Disabled")
    env.reset(seed=0)
    env.step(idle_actions(env))
    assert curriculum.counts()["credited"] == 4
    env.step(idle_actions(env))  # all idle
    assert (curriculum.counts()["credited"], curriculum.counts()["outstanding"]) == (4, 0)
    _, infos = env.reset(options={"reset_mask": np.array([False, False, True, True])})
    assert [label is not None for label in labels(infos, 4)] == [False, False, True, True]
    env.step(idle_actions(env))
    assert curriculum.counts()["credited"] == 6
    with pytest.raises(ConfigError, match=r"whole groups of 2 envs, got envs \[1\]"):
        env.reset(options={"reset_mask": np.array([False, True, False, False])})


def test_an_exception_gives_everything_back_and_asks_for_a_reset():
    curriculum = notes([1])
    env = make(curriculum, num_envs=2, env_type=FaultyTaskEnv, fault="bug", at_step=2)
    env.reset(seed=0)
    env.step(idle_actions(env))
    with pytest.raises(SimulatorError, match="a bug"):
        env.step(idle_actions(env))
    assert curriculum.verdicts() == [(1, None), (1, None)]
    with pytest.raises(ResetNeeded, match="no assigned episodes"):
        env.step(idle_actions(env))
    env.reset(seed=0)
    assert curriculum.counts()["outstanding"] == 2


def test_refused_actions_leave_the_episodes_running():
    curriculum = notes([0])
    env = make(curriculum, num_envs=2)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="Expected actions of shape"):
        env.step(np.zeros((2, 3)))
    env.step(idle_actions(env))
    assert curriculum.counts()["credited"] == 2


def test_a_second_step_async_is_refused():
    env = make(notes([0]), num_envs=1)
    env.reset(seed=0)
    env.step_async(idle_actions(env))
    with pytest.raises(AlreadyPendingCallError):
        env.step_async(idle_actions(env))
    env.step_wait()


def test_a_reset_while_a_step_is_under_way_gives_nothing_back():
    curriculum = notes([1])
    env = make(curriculum, num_envs=1)
    env.reset(seed=0)
    env.step_async(idle_actions(env))
    with pytest.raises(AlreadyPendingCallError):
        env.reset(seed=0)
    env.step_wait()
    assert curriculum.told == []
    assert len(curriculum.made) == 1


def test_an_unknown_mode_gives_nothing_back():
    curriculum = notes([1])
    env = make(curriculum, num_envs=1, critic=make_critic("scripted:0.1"))
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        env.reset(options={"mode": "trian"})
    assert curriculum.told == []
    assert env.step(idle_actions(env))[4]["elapsed_steps"].tolist() == [1]


def test_reset_options_that_choose_tasks_are_refused():
    env = make(notes([0]), num_envs=2)
    with pytest.raises(ConfigError, match=r"the curriculum to choose .*got \['task_id'\]"):
        env.reset(options={"task_id": [0, 1]})


def test_group_sizes_must_agree_and_one_curriculum_feeds_an_env():
    base = RolloutVectorEnv([TaskEnv] * 4, mode="sync", group_size=2)
    with pytest.raises(ConfigError, match="group_size 4, got 2"):
        CurriculumWrapper(base, notes(group_size=4))
    CurriculumWrapper(base, notes(group_size=2))
    with pytest.raises(ConfigError, match="episode_options already"):
        CurriculumWrapper(base, notes(group_size=2))


def test_two_groups_of_a_serial_rollout_share_one_curriculum():
    curriculum = notes(source="critic")
    critic = make_critic("scripted:0.1,0.2,0.95")
    groups = [make(curriculum, num_envs=2, autoreset="SameStep", critic=critic, chunk=2) for _ in range(2)]
    rollout = PipelinedRollout(groups, lambda observations, infos, group: np.zeros((2, 2, 7)), overlap=False)
    ends = sum(int((s.terminations | s.truncations).sum()) for s in rollout.run(20, seed=0))
    assert ends > 0
    counts = curriculum.counts()
    assert counts["credited"] + counts["abandoned"] == ends
    assert (counts["mismatched"], counts["duplicate"], counts["unknown"]) == (0, 0, 0)


def test_overlapping_groups_with_one_curriculum_are_refused_wherever_its_wrappers_are():
    curriculum = notes()
    groups = [make(notes()), make(curriculum), VectorWrapper(make(curriculum))]
    with pytest.raises(ConfigError, match=r"got the same Notes in groups 1 and 2.*overlap=False"):
        PipelinedRollout(groups, lambda observations, infos, group: idle_actions(groups[0]))
    assert curriculum.made == []


def test_overlapping_groups_with_curricula_of_their_own_play_what_the_serial_ones_do():
    def assigned(overlap):
        curricula = [notes(seed=g) for g in range(2)]
        groups = [make(curriculum, num_envs=2, autoreset="SameStep") for curriculum in curricula]
        rollout = PipelinedRollout(
            groups, lambda observations, infos, group: np.zeros((2, 7)), overlap=overlap
        )
        played = [
            (own["task_id"], own["init_state_id"])
            for step in rollout.run(30, seed=0)
            for own in labels(step.infos, 2)
        ]
        return played, [c.verdicts() for c in curricula]

    serial = assigned(overlap=False)
    assert len(set(serial[0])) > 3
    for _ in range(4):
        assert assigned(overlap=True) == serial


@pytest.mark.slow
def test_libero_plays_what_the_curriculum_assigns():
    pytest.importorskip("libero", reason="needs vlac-gym[libero]")
    curriculum = notes([0, 1], source="critic")
    env = vlac_gym.make_vec(
        "libero_spatial", 0, 1, mode="sync", autoreset_mode="SameStep", cameras=("agentview",), image_size=32
    )
    judged = VLACRewardWrapper(env, make_critic("scripted:0.1,0.95"), max_episode_steps=4)
    env = CurriculumWrapper(ActionChunk(judged, 2), curriculum)
    _, infos = env.reset(seed=0)
    played = []
    for _ in range(8):
        own = unstack_infos(infos, 1)[0]
        played.append((own["task_id"], own["init_state_id"]))
        infos = env.step(idle_actions(env))[4]
    assert played == [(a.task_id, a.init_state_id) for a in curriculum.made[:8]]
    assert {task_id for task_id, _ in played} == {0, 1}
    assert curriculum.counts()["credited"] == 8
    env.close()
