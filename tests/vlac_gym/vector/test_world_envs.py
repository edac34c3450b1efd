"""Envs that are worlds of one simulator equal envs of their own: steps, chunks, masks, resets, the critic's rule."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from point_worlds import OTHER_TASK, SIZE, TASK, PointEnv, PointWorlds
from vector_envs import as_singles

from vlac_gym.critic import make_critic
from vlac_gym.errors import ConfigError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.step_result import ChunkResult
from vlac_gym.vector.warp_executor import WarpExecutor, WarpSeat, WorldBatch
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

CAMERAS = ("agentview", "wrist")
AUTORESETS = ["NextStep", "SameStep", "Disabled"]


def build(
    batches: Any = None, *, tasks: Any = (TASK,) * 4, made: list | None = None, **options: Any
) -> RolloutVectorEnv:
    """Points as worlds: `batches` has the envs of each, in its worlds' order; `made` gets what simulates them."""

    def executor(fns: Any, spaces: Any, **_: Any) -> WarpExecutor:
        rows = [np.array(envs) for envs in batches or [range(len(tasks))]]
        facts = [[tasks[env] for env in envs] for envs in rows]
        worlds = [PointWorlds(each) for each in facts]
        if made is not None:
            made.extend(worlds)
        return WarpExecutor(map(WorldBatch, rows, facts, worlds), spaces, len(tasks), cameras=CAMERAS)

    return RolloutVectorEnv([partial(WarpSeat, CAMERAS, SIZE)] * len(tasks), mode=executor, **options)


def separate(*, tasks: Any = (TASK,) * 4, **options: Any) -> RolloutVectorEnv:
    return RolloutVectorEnv([partial(PointEnv, task) for task in tasks], mode="sync", **options)


def same(ours: Any, theirs: Any) -> None:
    """Raises unless two nests of arrays are equal."""
    if isinstance(ours, dict):
        assert set(ours) == set(theirs)
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, np.ndarray) and ours.dtype == object:
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other)
    else:
        assert np.array_equal(np.asarray(ours), np.asarray(theirs)), (ours, theirs)


def random_actions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    actions = rng.uniform(-0.5, 1.0, (*shape, 7)).astype(np.float32)
    actions[..., 1] = 0.0
    return actions


@pytest.mark.parametrize("autoreset", AUTORESETS)
def test_steps_equal_those_of_separate_envs(autoreset):
    worlds, envs = build(autoreset_mode=autoreset), separate(autoreset_mode=autoreset)
    rng = np.random.default_rng(0)
    for ours, theirs in zip(worlds.reset(seed=3), envs.reset(seed=3), strict=True):
        same(ours, theirs)
    for _ in range(15):
        actions = random_actions(rng, 4)
        ours, theirs = worlds.step(actions), envs.step(actions)
        over = ours[2] | ours[3]
        assert as_singles(ours, [False] * 4) == as_singles(theirs, [False] * 4)
        if autoreset == "Disabled" and over.any():
            options = {"reset_mask": over}
            for mine, other in zip(worlds.reset(options=options), envs.reset(options=options), strict=True):
                same(mine, other)


@pytest.mark.parametrize("length", [1, 3, 8])
def test_chunks_and_masks_equal_those_of_separate_envs(length):
    worlds, envs = (build(autoreset_mode="SameStep"), separate(autoreset_mode="SameStep"))
    worlds.reset(seed=3)
    envs.reset(seed=3)
    rng = np.random.default_rng(length)
    for _ in range(8):
        actions, mask = random_actions(rng, 4, length), rng.random(4) < 0.7
        ours, theirs = worlds.step_chunk(actions, mask), envs.step_chunk(actions, mask)
        assert isinstance(ours, ChunkResult)
        for name in ("observations", "rewards", "terminations", "truncations", "infos"):
            same(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("critic", ["scripted:0", "oracle"])
def test_the_rule_pays_what_it_pays_for_separate_envs(critic):
    def judged(env: RolloutVectorEnv) -> ActionChunk:
        options = {"done_interval": 2, "max_episode_steps": 6}
        return ActionChunk(VLACRewardWrapper(env, make_critic(critic), **options), 4)

    worlds, envs = judged(build(autoreset_mode="SameStep")), judged(separate(autoreset_mode="SameStep"))
    worlds.reset(seed=1)
    envs.reset(seed=1)
    rng = np.random.default_rng(1)
    paid = 0.0
    for _ in range(10):
        actions = random_actions(rng, 4, 4)
        ours, theirs = worlds.step(actions), envs.step(actions)
        for mine, other in zip(ours[:4], theirs[:4], strict=True):
            same(mine, other)
        paid += float(ours[1].sum())
    assert paid > 0


def test_a_chunk_is_drawn_once_for_critic_and_policy():
    made: list[PointWorlds] = []
    env = VLACRewardWrapper(build(made=made), make_critic("scripted:0"), done_interval=4, max_episode_steps=6)
    chunked = ActionChunk(env, 4)
    chunked.reset(seed=0)
    before = dict(made[0].num_draws)
    chunked.step(np.zeros((4, 4, 7), np.float32))
    assert made[0].num_steps == 4
    assert made[0].num_draws == {camera: count + 1 for camera, count in before.items()}


def test_a_world_that_breaks_is_lost_alone_and_starts_anew():
    env = build(autoreset_mode="Disabled")
    env.reset(seed=0)
    actions = np.zeros((4, 7), np.float32)
    actions[2, 1] = 1.0
    result = env.step(actions)
    assert result[3].tolist() == [False, False, True, False]
    assert result[4]["lost"].tolist() == [False, False, True, False]
    env.reset(options={"reset_mask": np.array([False, False, True, False])})
    assert not env.step(np.zeros((4, 7), np.float32))[3].any()


@pytest.mark.parametrize("batches", [[[0, 1, 3], [2]], [[0, 1, 2, 3]], [[2, 3, 1, 0]]])
def test_each_env_moves_its_own_world(batches):
    env = build(batches, tasks=[TASK, TASK, OTHER_TASK, TASK])
    _, infos = env.reset(seed=0)
    assert list(infos["task"]) == [
        "push the point",
        "push the point",
        "push the other point",
        "push the point",
    ]
    actions = np.zeros((4, 7), np.float32)
    actions[2, 0] = 1.0
    before = env.step(np.zeros((4, 7), np.float32))[0]["state"][:, 0]
    after = env.step(actions)[0]["state"][:, 0]
    assert (after - before).round(3).tolist() == [0.0, 0.0, 0.25, 0.0]


@pytest.mark.parametrize("batches", [[[1, 3, 0, 2]], [[0, 2], [1, 3]], [[2, 1], [3], [0]]])
@pytest.mark.parametrize("length", [1, 3])
def test_tasks_that_share_a_batch_equal_separate_envs_with_starts_and_limits_of_their_own(batches, length):
    tasks = [TASK, OTHER_TASK, TASK, OTHER_TASK]
    worlds = build(batches, tasks=tasks, autoreset_mode="SameStep")
    envs = separate(tasks=tasks, autoreset_mode="SameStep")
    for ours, theirs in zip(worlds.reset(seed=3), envs.reset(seed=3), strict=True):
        same(ours, theirs)
    assert worlds.get_attr("max_episode_steps") == (6, 4, 6, 4)
    rng = np.random.default_rng(length)
    for _ in range(12):
        actions, mask = random_actions(rng, 4, length), rng.random(4) < 0.8
        ours, theirs = worlds.step_chunk(actions, mask), envs.step_chunk(actions, mask)
        for name in ("observations", "rewards", "terminations", "truncations", "infos"):
            same(getattr(ours, name), getattr(theirs, name))


def test_tasks_that_share_a_batch_move_by_the_same_step():
    made: list[PointWorlds] = []
    env = build(tasks=[TASK, OTHER_TASK, TASK], made=made)
    env.reset(seed=0)
    env.step_chunk(np.zeros((3, 4, 7), np.float32))
    assert [worlds.num_steps for worlds in made] == [4]


def test_all_batches_have_begun_a_step_before_one_is_waited_for():
    made: list[PointWorlds] = []
    env = build([[0, 2], [1]], tasks=[TASK, OTHER_TASK, TASK], made=made)
    env.reset(seed=0)
    waits: list[list[int]] = []
    for worlds in made:
        worlds.before_read = lambda: waits.append([each.num_steps for each in made])
    env.step_chunk(np.zeros((3, 4, 7), np.float32))
    assert all(max(steps) - min(steps) <= 1 for steps in waits)
    assert waits[0] == [1, 1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"init_state_id": 9}, "0 to 2 of points 7"),
        ({"init_state_id": "a"}, "0 to 2"),
        ({"init_state_id": [2, 2, 2, 2]}, "0 to 1 of points 8"),
        ({"task_id": [7, 7, 7, 7]}, "Expected task_id 8, got 7: a world keeps its task"),
        ({"task": 7}, "reset option 'task'"),
    ],
)
def test_a_bad_start_is_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        build(tasks=[TASK, TASK, TASK, OTHER_TASK]).reset(options=options)


def test_a_start_may_name_the_task_that_the_world_has():
    env = build(tasks=[TASK, TASK, TASK, OTHER_TASK])
    _, infos = env.reset(options={"task_id": [7, 7, 7, 8], "init_state_id": [2, 1, 0, 1]})
    assert infos["task_id"].tolist() == [7, 7, 7, 8]
    assert infos["init_state_id"].tolist() == [2, 1, 0, 1]


def test_attributes_that_worlds_lack_are_refused():
    env = build()
    assert env.get_attr("max_episode_steps") == (6,) * 4
    with pytest.raises(ConfigError, match="scene"):
        env.get_attr("scene")
    with pytest.raises(
        ConfigError, match="no attribute to be set in worlds on a GPU, got 'max_episode_steps'"
    ):
        env.set_attr("max_episode_steps", 3)


def test_generators_are_those_of_separate_envs():
    worlds, envs = build(), separate()
    for env in (worlds, envs):
        env.reset(seed=5)
    assert worlds.np_random_seed == envs.np_random_seed == (5, 6, 7, 8)
    draws = [[rng.random() for rng in env.np_random] for env in (worlds, envs)]
    assert draws[0] == draws[1]


def test_worlds_that_dropped_contacts_are_told_of_once(caplog):
    made: list[PointWorlds] = []
    env = build(tasks=[TASK, TASK, OTHER_TASK, TASK], made=made)
    env.reset(seed=0)
    env.step(np.zeros((4, 7), np.float32))
    assert not caplog.records
    made[0].num_crowded = 3
    for _ in range(2):
        env.step(np.zeros((4, 7), np.float32))
    (record,) = caplog.records
    assert "3 of 4 worlds, of points 7, points 8:" in record.getMessage()
