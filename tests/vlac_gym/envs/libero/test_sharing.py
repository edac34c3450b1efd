"""Envs of several tasks in one process: each plays as it would alone in a process of its own, to the bit."""

import json
import random
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from libero_alone import NUM_STEPS, Playing

from vlac_gym.envs.libero import LiberoEnv, models
from vlac_gym.envs.libero import simulator as simulator_module
from vlac_gym.envs.libero.simulator import LiberoSimulator
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.errors import SimulatorError
from vlac_gym.vector import make_vec

ALONE = Path(__file__).parents[3] / "support" / "libero_alone.py"

# libero_spatial: four tasks with one XML whose fixtures stand apart. libero_10 task 8 and libero_goal task 7 light
# a stove, which LIBERO shows by writing into the model.
TASKS = (
    ("libero_spatial", 0),
    ("libero_spatial", 3),
    ("libero_spatial", 4),
    ("libero_spatial", 6),
    ("libero_object", 1),
    ("libero_object", 2),
    ("libero_goal", 7),
    ("libero_10", 2),
    ("libero_10", 8),
    ("libero_90", 20),
    ("libero_goal_swap", 0),
    ("libero_spatial_object", 4),
)


def alone(suite, task_id, *init_state_ids):
    """What an env shows that is alone in a new process, by episode."""
    command = [sys.executable, str(ALONE), suite, str(task_id), *map(str, init_state_ids)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def build(task_id, suite="libero_spatial"):
    return LiberoSimulator(get_task(suite, task_id), image_size=32, settle_steps=0, start_timeout_s=60.0)


def fixtures(simulator):
    return simulator._model.body_pos.copy(), simulator._model.body_quat.copy()


def test_tasks_with_one_xml_and_other_places_do_not_move_each_others_fixtures():
    first = build(4)
    before = fixtures(first)
    second = build(6)
    assert second._model is not first._model
    assert second._compiled.renderer is first._compiled.renderer  # 0.5 GB of meshes and textures
    moved = np.linalg.norm(fixtures(second)[0] - before[0], axis=1)
    assert 0.003 < moved.max() < 0.03  # LIBERO draws fixtures within about a centimetre
    for kept, now in zip(before, fixtures(first)):
        np.testing.assert_array_equal(now, kept)
    first.close()
    second.close()


def test_tasks_whose_construction_writes_the_same_share_the_model(monkeypatch):
    compiled, real = [], models.CompiledModel.__init__

    def note(self, model, *arguments):
        compiled.append(weakref.ref(self))
        real(self, model, *arguments)

    monkeypatch.setattr(models.CompiledModel, "__init__", note)
    simulators = [build(3), build(5), build(3)]
    assert [model() is not None for model in compiled] == [True, False]  # task 5's own is gone at once
    assert len({id(simulator._model) for simulator in simulators}) == 1
    assert simulators[0]._compiled.num_users == 3
    for simulator in simulators:
        simulator.close()


def test_an_env_plays_as_it_would_alone_after_others_were_built_beside_it():
    expected = alone("libero_spatial", 4, 0)
    playing = Playing("libero_spatial", 4)
    playing.reset(0)
    others = [Playing("libero_spatial", 6), Playing("libero_spatial", 0)]
    for other in others:
        other.reset(0)
    for step in range(NUM_STEPS):
        playing.step()
        others[step % 2].step()
    for other in others:
        other.env.close()
    assert {playing.episode: playing.shown} == expected
    playing.env.close()


def test_a_second_construction_that_comes_out_otherwise_is_refused_and_undone(monkeypatch):
    first = build(4)
    before = fixtures(first)
    monkeypatch.setattr(simulator_module, "_numpy_seed", lambda seed: threading.Lock())  # places by chance
    with pytest.raises(
        SimulatorError, match=r"LIBERO wrote other values into .*body_pos.* than when it first"
    ):
        build(4)
    monkeypatch.undo()
    for kept, now in zip(before, fixtures(first)):
        np.testing.assert_array_equal(now, kept)
    assert first._compiled.num_users == 1
    first.close()


def test_tasks_built_by_two_threads_at_once_are_placed_as_by_one(libero_env):
    single = {task_id: build(task_id) for task_id in (4, 6)}
    expected = {task_id: fixtures(simulator) for task_id, simulator in single.items()}
    for simulator in single.values():
        simulator.close()
    built = {}
    threads = [threading.Thread(target=lambda k=k: built.setdefault(k, build(k))) for k in (4, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for task_id, simulator in built.items():
        for kept, now in zip(expected[task_id], fixtures(simulator)):
            np.testing.assert_array_equal(now, kept)
        simulator.close()
    assert sorted(built) == [4, 6]


def test_nothing_stays_registered_after_the_last_release(libero_env):
    before = dict(models._models)
    simulators = [build(4), build(6), build(4)]
    for simulator in simulators:
        simulator.close()
    assert models._models == before


@pytest.mark.parametrize("options", [{"mode": "sync"}, {"envs_per_worker": 2}])
def test_a_vector_of_tasks_in_one_process_steps_like_single_envs(options):
    actions = np.random.default_rng(3).uniform(-1, 1, (4, 2, 7)).astype(np.float32)
    choice = {"cameras": ("agentview",), "image_size": 32, "settle_steps": 2}
    envs = make_vec("libero_spatial", [0, 3], 2, **options, **choice)
    starts = {"init_state_id": [0, 0]}
    seen = [envs.reset(options=starts)[0]]
    seen = [{key: value.copy() for key, value in seen[0].items()}]
    for action in actions:
        seen.append({key: value.copy() for key, value in envs.step(action)[0].items()})
    envs.close()
    for i, task_id in enumerate((0, 3)):
        env = LiberoEnv("libero_spatial", task_id, **choice)
        single = [env.reset(options={"init_state_id": 0})[0]]
        single += [env.step(action[i])[0] for action in actions]
        env.close()
        for ours, theirs in zip(seen, single):
            for key in theirs:
                np.testing.assert_array_equal(ours[key][i], theirs[key])


@pytest.fixture(scope="module")
def shown_alone():
    return {key: value for suite, task_id in TASKS for key, value in alone(suite, task_id, 0, 1).items()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(6))
def test_random_builds_resets_and_steps_leave_every_env_as_it_is_alone(shown_alone, seed):
    rng = random.Random(seed)
    envs = []
    for _ in range(80):
        choice = rng.random()
        if not envs or (choice < 0.12 and len(envs) < 4):
            playing = Playing(*rng.choice(TASKS), max_compiled_models=rng.choice((1, 2)))
            playing.reset(rng.choice((0, 1)))
            envs.append(playing)
        elif choice < 0.18:
            envs.pop(rng.randrange(len(envs))).env.close()
            continue
        elif choice < 0.35:
            playing = rng.choice(envs)
            tasks = [task_id for suite, task_id in TASKS if suite == playing.suite]
            playing.reset(rng.choice((0, 1)), rng.choice(tasks))
        else:
            playing = rng.choice(envs)
            playing.step()
        assert playing.shown == shown_alone[playing.episode][: len(playing.shown)]
    for playing in envs:
        playing.env.close()
