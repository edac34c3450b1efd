"""Settled starts on disk: to the bit what settling gives, whoever wrote them and whatever became of the file."""

import json
import logging
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from libero_alone import play

from vlac_gym.envs.libero import LiberoEnv, start_cache
from vlac_gym.envs.libero.moments import Moment
from vlac_gym.envs.libero.simulator import LiberoSimulator
from vlac_gym.envs.libero.start_cache import START_CACHE_VARIABLE, StartCache, start_cache_folder, start_key
from vlac_gym.errors import ConfigError

ALONE = Path(__file__).parents[3] / "support" / "libero_alone.py"

BUILT = Moment(
    np.arange(4.0),
    {
        "grip": np.zeros(2),
        "controller": {"kp": np.full(6, 150.0), "goal": None, "fresh": True, "name": "OSC"},
    },
)


def settled(number):
    """A moment that differs from `BUILT`, with a matrix in Fortran order."""
    controller = {
        "kp": np.full(6, 150.0),
        "goal": np.arange(6.0).reshape(2, 3).copy(order="F") + number,
        "fresh": False,
        "name": "OSC",
    }
    return Moment(np.arange(4.0) / 3 + number, {"grip": np.ones(2), "controller": controller})


def alone(suite, task_id, *init_state_ids, folder=None, settles=True, plays=True):
    """What an env shows that is alone in a new process, by episode."""
    command = [sys.executable, str(ALONE), suite, str(task_id), *map(str, init_state_ids)]
    environment = {k: v for k, v in os.environ.items() if k != START_CACHE_VARIABLE}
    if folder is not None:
        environment[START_CACHE_VARIABLE] = str(folder)
    if not settles:
        command.append("--no-settling")
    if not plays:
        command.append("--starts-alone")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def files(folder):
    return sorted(folder.iterdir())


def test_a_variant_plays_from_disk_in_a_new_process_as_it_does_settled(tmp_path):
    """States, pictures, info and what follows."""
    task = ("libero_goal_swap", 0)
    expected = play(*task, (0, 1), start_cache=tmp_path)
    assert len(files(tmp_path)) == 2
    assert alone(*task, 0, 1, folder=tmp_path, settles=False) == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "task",
    [
        ("libero_spatial", 3),
        ("libero_spatial", 4),
        ("libero_object", 2),
        ("libero_goal", 7),
        ("libero_10", 8),
        ("libero_90", 20),
        ("libero_spatial_object", 4),
    ],
)
def test_every_suite_plays_from_disk_as_without(tmp_path, task):
    states = (0, 1, 7)
    expected = alone(*task, *states)
    assert alone(*task, *states, folder=tmp_path) == expected
    assert alone(*task, *states, folder=tmp_path, settles=False) == expected


@pytest.mark.slow
def test_all_official_states_of_a_task_start_from_disk_in_a_new_process(tmp_path):
    """Physics, the pictures of both cameras and info, after the ten settling steps of an episode."""
    task, states = ("libero_spatial", 0), range(50)
    settled = alone(*task, *states, folder=tmp_path, plays=False)
    assert len(files(tmp_path)) == len({starts[0] for starts in settled.values()}) == 50
    assert alone(*task, *states, folder=tmp_path, settles=False, plays=False) == settled


@pytest.fixture
def env(libero_env, tmp_path):
    """An env with a cache, which shares the compiled model of the session's."""
    libero_env.unwrapped.reset(options={"init_state_id": 0, "task_id": 0})
    forget(libero_env.unwrapped)  # another test may have settled the same
    made = LiberoEnv(image_size=32, start_cache=tmp_path / "starts")
    yield made
    made.close()


def forget(env):
    """Drops the starts that are kept in memory."""
    env._simulator._compiled.starts.clear()


def look(env):
    observation = env.observe()
    control = env._simulator._control.snapshot()
    return env.physics_state(), env._simulator._take_moment().digest(), control, observation


def test_a_start_from_disk_is_what_settling_gives_to_the_bit(env, monkeypatch):
    env.reset(options={"init_state_id": 11})
    seen = [look(env)]
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 7))
    for action in actions:
        env.step_unrendered(action)
        seen.append(look(env))
    forget(env)
    monkeypatch.setattr(LiberoSimulator, "_settle", None)
    env.reset(options={"init_state_id": 11})
    again = [look(env)]
    for action in actions:
        env.step_unrendered(action)
        again.append(look(env))
    for one, other in zip(seen, again, strict=True):
        np.testing.assert_equal(other, one)


def test_a_damaged_file_is_settled_anew_and_mended(env, caplog):
    env.reset(options={"init_state_id": 12})
    before = env.physics_state()
    (file,) = files(env._start_cache)
    whole = file.read_bytes()
    for damaged in (whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], whole[:-1], b""):
        file.write_bytes(damaged)
        forget(env)
        caplog.clear()
        env.reset(options={"init_state_id": 12})
        assert [record.getMessage() for record in caplog.records] == [
            f"{file} is damaged. It is ignored, and written anew."
        ]
        assert np.array_equal(env.physics_state(), before)
        assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_used_costs_a_warning_and_no_episode(env, tmp_path, caplog):
    (tmp_path / "starts").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        for state in (13, 14):
            env.reset(options={"init_state_id": state})
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"The start cache {tmp_path / 'starts'} can't be read"
    ]


def test_the_folder_is_the_option_or_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv(START_CACHE_VARIABLE, raising=False)
    assert start_cache_folder(None) is None
    assert start_cache_folder("~/starts") == Path.home() / "starts"
    monkeypatch.setenv(START_CACHE_VARIABLE, str(tmp_path))
    assert start_cache_folder(None) == tmp_path
    assert LiberoEnv(start_cache=tmp_path / "other")._start_cache == tmp_path / "other"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Expected start_cache to name a folder, got the file"):
        LiberoEnv(start_cache=tmp_path / "file")
    monkeypatch.setenv(START_CACHE_VARIABLE, "")
    assert start_cache_folder(None) is None


def test_a_moment_survives_its_bytes_with_the_order_of_its_arrays():
    moment = settled(5)
    again = Moment.from_bytes(moment.to_bytes(BUILT), BUILT)
    assert again.digest() == moment.digest() != BUILT.digest()
    np.testing.assert_equal(again.control, moment.control)
    assert again.control["controller"]["goal"].flags.f_contiguous
    assert again.control["controller"]["fresh"] is False
    assert again.frames == {}


def test_the_key_changes_with_all_that_a_start_follows_from(monkeypatch):
    state = np.arange(3.0)
    other_order = {**BUILT.control["controller"], "kp": np.full(6, 150.0), "goal": np.zeros((2, 3))}
    transposed = {**other_order, "goal": np.zeros((2, 3), order="F")}
    built = [
        BUILT,
        *(replace(BUILT, control={**BUILT.control, "controller": c}) for c in (other_order, transposed)),
    ]
    keys = {
        start_key("model", BUILT, 10, state),
        start_key("other", BUILT, 10, state),
        start_key("model", BUILT, 9, state),
        start_key("model", BUILT, 10, state + 1),
        start_key("model", built[1], 10, state),
        start_key("model", built[2], 10, state),
    }
    monkeypatch.setattr(start_cache.importlib.metadata, "version", lambda name: "9")
    start_cache._arithmetic.cache_clear()
    keys.add(start_key("model", BUILT, 10, state))
    monkeypatch.undo()
    monkeypatch.setattr(start_cache.platform, "machine", lambda: "abacus")
    start_cache._arithmetic.cache_clear()
    keys.add(start_key("model", BUILT, 10, state))
    monkeypatch.undo()
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    start_cache._arithmetic.cache_clear()
    keys.add(start_key("model", BUILT, 10, state))
    start_cache._arithmetic.cache_clear()
    assert len(keys) == 9


def test_the_first_written_go_when_the_folder_is_full(tmp_path):
    size = 32 + len(settled(0).to_bytes(BUILT))
    StartCache(tmp_path).settled("a", BUILT, lambda: settled(0))
    StartCache(tmp_path).settled("b", BUILT, lambda: settled(1))
    os.utime(tmp_path / "b.start", (1, 1))
    left_over = tmp_path / ".partial-1-x.start"
    left_over.write_bytes(b"x" * size)
    os.utime(left_over, (0, 0))
    cache = StartCache(tmp_path, max_bytes=2 * size)
    cache.settled("c", BUILT, lambda: settled(2))
    assert [path.name for path in files(tmp_path)] == ["a.start", "c.start"]
    assert cache.num_bytes() == (2, 2 * size)


def write_and_read(folder, seed, number):
    """Works on the same few starts as the other processes; dies if one is not what it should be."""
    rng = np.random.default_rng(seed)
    cache = StartCache(folder, max_bytes=2000)
    for _ in range(number):
        key = int(rng.integers(4))
        moment = cache.settled(f"{key}", BUILT, lambda: settled(key))  # noqa: B023
        assert moment.digest() == settled(key).digest()
        if rng.random() < 0.3:
            (folder / f"{key}.start").unlink(missing_ok=True)


def test_processes_share_a_folder_and_none_sees_half_a_file(tmp_path):
    context = multiprocessing.get_context("fork")
    logging.getLogger().setLevel(logging.ERROR)
    processes = [context.Process(target=write_and_read, args=(tmp_path, seed, 150)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert not [path for path in files(tmp_path) if path.name.startswith(".partial")]
