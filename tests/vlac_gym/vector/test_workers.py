"""Envs in worker processes: what survives a crash, and what is left behind (nothing)."""

import contextlib
import gc
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from vector_envs import FaultyEnv, ShadedEnv, SingleEnvs, SlowEnv, as_singles

from vlac_gym.errors import SimulatorError
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.commands import CallCommand, Command, ResetCommand, StepCommand
from vlac_gym.vector.worker import _serve

WAIT_S = 60.0


def actions(count: int, *length: int) -> np.ndarray:
    return np.zeros((count, *length, 7), np.float32)


@pytest.fixture
def build() -> Iterator[Callable[..., RolloutVectorEnv]]:
    built = []

    def make(env_fns: list, **options: Any) -> RolloutVectorEnv:
        built.append(RolloutVectorEnv(env_fns, **options))
        return built[-1]

    yield make
    for env in built:
        env.close()


def pids(env: RolloutVectorEnv) -> list[int]:
    return list(env.worker_pids)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose parent is gone too waits for init; it runs no more.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + WAIT_S
    while any(is_alive(pid) for pid in processes):
        assert time.monotonic() < deadline, "a worker outlived its vector env"
        time.sleep(0.05)


@pytest.mark.parametrize(("context", "envs_per_worker"), [("spawn", 2), ("forkserver", 1)])
def test_workers_step_as_single_envs_do(build, context, envs_per_worker):
    fns = [partial(ShadedEnv, shade=i, max_episode_steps=2 + i) for i in range(3)]
    env = build(fns, autoreset_mode="SameStep", context=context, envs_per_worker=envs_per_worker)
    singles = SingleEnvs([fn() for fn in fns], "SameStep")
    env.reset(seed=3)
    singles.reset(seed=3)
    for _ in range(5):
        assert as_singles(env.step(actions(3)), [False] * 3) == singles.step(actions(3))
    assert len(set(pids(env))) == (2 if envs_per_worker == 2 else 3)


class NotedSlot:
    """Notes when it moved and when it was looked at."""

    def __init__(self, number: int, notes: list[str]) -> None:
        self.number, self.notes = number, notes

    def start(self, command: Command) -> Callable[[], str]:
        self.notes.append(f"{self.number} moved")

        def look() -> str:
            self.notes.append(f"{self.number} looked")
            return f"{type(command).__name__} of {self.number}"

        return look


def received(pipe: Connection, count: int) -> list[Any]:
    """The next messages."""
    messages = []
    for _ in range(count):
        assert pipe.poll(WAIT_S), f"nothing came after {messages}"
        messages.append(pipe.recv())
    return messages


@pytest.fixture
def noted() -> Iterator[tuple[Connection, list[str]]]:
    """The pipe to a worker of three slots, and their notes."""
    notes: list[str] = []
    here, there = multiprocessing.Pipe()
    serving = threading.Thread(target=_serve, args=(there, {i: NotedSlot(i, notes) for i in range(3)}))
    serving.start()
    yield here, notes
    here.send((0, None))
    serving.join(WAIT_S)
    assert not serving.is_alive()


def test_an_env_moves_while_the_one_before_it_is_drawn(noted):
    pipe, notes = noted
    pipe.send((1, {i: StepCommand([]) for i in range(3)}))
    replies = [(1, i, f"StepCommand of {i}") for i in range(3)]
    # Each that waits behind the next env is announced, so that the deadline of that one begins.
    announced = [(1, 0, None), (1, 1, None)]
    assert received(pipe, 5) == [
        announced[0],
        replies[0],
        announced[1],
        replies[1],
        replies[2],
    ]
    assert notes == ["0 moved", "1 moved", "0 looked", "2 moved", "1 looked", "2 looked"]
    pipe.send((2, {1: StepCommand([])}))  # alone, it waits for nobody
    assert received(pipe, 1) == [(2, 1, replies[1][2])]
    notes.clear()
    pipe.send((3, {1: StepCommand([]), 2: StepCommand([])}))
    pipe.send((4, {2: StepCommand([])}))  # behind its own: it does not move before it was looked at
    assert [message[:2] for message in received(pipe, 4)] == [(3, 1), (3, 1), (3, 2), (4, 2)]
    assert notes.index("2 looked") < len(notes) - 1 - notes[::-1].index("2 moved")


@pytest.mark.parametrize("other", [ResetCommand(), CallCommand("close")])
def test_no_step_waits_for_another_envs_reset_or_call(noted, other):
    pipe, notes = noted
    pipe.send((1, {0: StepCommand([]), 1: other, 2: StepCommand([])}))
    assert [i for _, i, _ in received(pipe, 4)] == [0, 1, 1, 2]
    assert notes == ["0 moved", "0 looked", "1 moved", "2 moved", "1 looked", "2 looked"]


def test_each_env_of_a_worker_has_the_deadline_of_a_step(build):
    env = build([partial(SlowEnv, 4.0)] * 2, step_timeout_s=7.0, envs_per_worker=2)
    env.reset(seed=0)
    *_, infos = env.step(actions(2))
    assert not infos["lost"].any()


def test_killed_worker_loses_its_episode_and_no_other(build):
    env = build([partial(ShadedEnv, shade=i) for i in range(2)], autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(actions(2))
    before = pids(env)
    os.kill(before[1], signal.SIGKILL)
    observations, rewards, terminations, truncations, infos = env.step(actions(2))
    assert infos["lost"].tolist() == [False, True]
    assert infos["lost_reason"][1] == "the worker process died with exit code -9"
    assert (rewards.tolist(), terminations.tolist(), truncations.tolist()) == (
        [0.0, 0.0],
        [False, False],
        [False, True],
    )
    assert infos["_success"].tolist() == [True, False]
    assert observations["state"].ravel().tolist() == [2.0, 1.0]
    assert pids(env)[0] == before[0]
    assert pids(env)[1] != before[1]
    env.reset(options={"reset_mask": np.array([False, True])})
    _, _, _, truncations, infos = env.step(actions(2))
    assert infos["elapsed_steps"].tolist() == [3, 1]
    assert not truncations.any()
    wait_until_gone([before[1]])


def test_dead_hanging_and_failing_envs_are_replaced_in_the_same_step(build):
    fns = [
        partial(FaultyEnv, fault, at_step=2, shade=i) for i, fault in enumerate(["die", "hang", "physics"])
    ]
    env = build([*fns, partial(ShadedEnv, shade=3)], autoreset_mode="SameStep", step_timeout_s=5.0)
    env.reset(seed=0)
    before = pids(env)
    env.step(actions(4))
    observations, rewards, _, truncations, infos = env.step(actions(4))
    assert infos["lost"].tolist() == [True, True, True, False]
    assert infos["final_info"]["lost_reason"].tolist() == [
        "the worker process died with exit code 7",
        "no reply before the deadline",
        "the physics became unstable",
        None,
    ]
    assert truncations.tolist() == [True, True, True, False]
    assert rewards.tolist() == [0.0] * 4
    assert observations["state"].ravel().tolist() == [0.0, 0.0, 0.0, 2.0]
    assert [old == new for old, new in zip(before, pids(env))] == [False, False, True, True]
    wait_until_gone(before[:2])


def test_all_envs_of_a_dead_worker_are_lost_also_those_that_were_idle(build):
    fns = [partial(FaultyEnv, "die", at_step=2), partial(ShadedEnv, shade=1)]
    env = build(fns, envs_per_worker=2)
    env.reset(seed=0)
    env.step(actions(2))
    assert env.step(actions(2))[4]["lost"].tolist() == [True, True]
    env.reset()
    replies = env.execute({0: StepCommand(actions(2))})  # the first dies alone
    assert type(replies[0]).__name__ == "Lost"
    replies = env.execute({1: StepCommand(actions(1))})
    assert replies[1].reason == "its worker was replaced, or its simulator failed, since the episode began"


def test_successor_of_a_worker_draws_from_a_seed_that_follows(build):
    env = build([partial(FaultyEnv, "die", at_step=1)], autoreset_mode="SameStep")
    env.reset(seed=4)
    drawn = [int(env.step(actions(1))[4]["draw"][0]) for _ in range(2)]
    seeds = [int(np.random.SeedSequence((4, losses)).generate_state(1)[0]) for losses in (1, 2)]
    assert drawn == [ShadedEnv().reset(seed=seed)[1]["draw"] for seed in seeds]


def test_worker_that_dies_at_every_reset_is_given_up(build):
    env = build([partial(FaultyEnv, "die at reset")], max_restarts=1)
    with pytest.raises(
        SimulatorError, match=r"envs \[0\] failed 2 times in a row, .* exit code 3\. .*__main__"
    ):
        env.reset()


def test_exception_in_a_worker_is_raised_here_with_its_trace(build):
    env = build([partial(FaultyEnv, "bug", at_step=1), ShadedEnv])
    env.reset(seed=0)
    with pytest.raises(SimulatorError, match=r"(?s)Env 0 raised KeyError: 'a bug'\n.*in step_unrendered"):
        env.step(actions(2))
    env.reset()


def test_observations_do_not_go_through_the_pipe(build):
    env = build([partial(ShadedEnv, image_size=256)], copy=False)
    observations, _ = env.reset(seed=0)
    reply = env.execute({0: StepCommand(actions(1))})[0]
    assert len(pickle.dumps(reply)) < 2000
    # The worker has written into this process's array.
    assert observations["agentview_image"][0, 0, 0].tolist() == [1, 0, 1]
    assert observations["agentview_image"].shape == (1, 256, 256, 3)


def test_reset_after_an_interrupted_step_drops_the_old_answer(build):
    env = build([partial(ShadedEnv, shade=i) for i in range(2)])
    env.reset(seed=0)

    collect = env._executor.collect
    env._executor.collect = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        env.step(actions(2))
    env._executor.collect = collect
    observations, _ = env.reset()
    assert observations["state"].ravel().tolist() == [0.0, 0.0]
    assert env.step(actions(2))[4]["elapsed_steps"].tolist() == [1, 1]


def test_interrupt_in_the_middle_of_a_reply_replaces_the_worker(build):
    env = build([partial(ShadedEnv, shade=i) for i in range(2)])
    env.reset(seed=0)
    before = env.worker_pids
    pipe = env._executor._workers[0]._pipe

    def interrupted():
        os.read(pipe.fileno(), 3)
        raise KeyboardInterrupt

    pipe.recv = interrupted
    with pytest.raises(KeyboardInterrupt):
        env.step(actions(2))
    with pytest.raises(ResetNeeded, match=r"Envs \[0, 1\] have no episode"):
        env.step(actions(2))
    env.reset()
    assert env.step(actions(2))[4]["elapsed_steps"].tolist() == [1, 1]
    assert [old == new for old, new in zip(before, env.worker_pids)] == [False, True]


def open_things() -> dict[str, Any]:
    """What a process could leak: children, file descriptors, mapped and named shared memory."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone since it was listed
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                children.append(stat.parent.name)
    return {
        "children": sorted(children),
        "fds": len(os.listdir("/proc/self/fd")),
        "mapped": Path("/proc/self/maps").read_text().count("/pym-"),
        "named": [name for name in os.listdir("/dev/shm") if str(os.getpid()) in name],
    }


def test_nothing_is_left_behind():
    def use(crash: bool) -> None:
        env = RolloutVectorEnv([partial(ShadedEnv, image_size=600)] * 2)
        env.reset(seed=0)
        if crash:
            os.kill(pids(env)[0], signal.SIGKILL)
            env.step(actions(2))
        env.close()

    use(crash=False)  # starts multiprocessing's own helpers, which stay
    gc.collect()  # of earlier tests: what they left would be closed at any time from here on
    before = open_things()
    use(crash=True)
    assert open_things() == before


def test_forgotten_env_takes_its_workers_along():
    env = RolloutVectorEnv([ShadedEnv])
    env.reset(seed=0)
    workers = pids(env)
    del env
    wait_until_gone(workers)


SCRIPT = """
import signal, sys, time
from functools import partial
from multiprocessing.connection import Connection
import numpy as np
from vector_envs import SlowEnv
from vlac_gym.vector import RolloutVectorEnv

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
    env = RolloutVectorEnv([partial(SlowEnv, {step_s})] * 2)
    env.reset(seed=0)
    print(*env.worker_pids, flush=True)
    {then}
"""


@pytest.mark.parametrize(
    ("then", "signal_number", "status", "last_words"),
    [
        ("while True: env.step(np.zeros((2, 7)))", signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"),
        ("while True: env.step(np.zeros((2, 7)))", signal.SIGKILL, -signal.SIGKILL, ""),
        ("raise RuntimeError('the trainer failed')", None, 1, "the trainer failed"),
    ],
)
def test_workers_end_with_their_process_however_it_ends(tmp_path, then, signal_number, status, last_words):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(step_s=0.2, then=then))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    if signal_number == signal.SIGINT:
        os.killpg(process.pid, signal_number)  # as a terminal does on Ctrl-C
    elif signal_number is not None:
        os.kill(process.pid, signal_number)
    try:
        _, errors = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == status, errors
    assert last_words in errors
    assert errors.count("Traceback") <= 1, errors
    wait_until_gone(workers)


def test_slow_env_is_not_taken_for_a_dead_one(build):
    env = build([partial(SlowEnv, 1.0), ShadedEnv], step_timeout_s=30.0)
    env.reset(seed=0)
    began = time.monotonic()
    env.step_async(actions(2))
    assert time.monotonic() - began < 0.9
    assert env.step_wait()[4]["lost"].tolist() == [False, False]
    assert time.monotonic() - began >= 1.0


def test_workers_keep_to_one_core_each_on_demand_and_to_one_thread(build, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    allowed = sorted(os.sched_getaffinity(0))
    env = build([ShadedEnv] * 3, pin_workers=True, envs_per_worker=2)
    env.reset(seed=0)
    cores = [os.sched_getaffinity(pid) for pid in pids(env)]
    assert cores == [{allowed[k % len(allowed)]} for k in range(2)]
    assert env.call("environment_variable", "OPENBLAS_NUM_THREADS") == ("1",) * 3
    assert env.call("environment_variable", "MKL_NUM_THREADS") == ("3",) * 3
    assert "OPENBLAS_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("options", "more"), [({}, 0), ({"worker_niceness": 2}, 2)])
def test_workers_are_less_urgent_than_this_process_on_demand(build, options, more):
    env = build([ShadedEnv] * 2, **options)
    env.reset(seed=0)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids(env)] == [min(19, own + more)] * 2


UNGUARDED = """
from vlac_gym.vector import {import_name}
env = {make}
env.reset(seed=0)
"""


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    ("import_name", "make"),
    [
        ("RolloutVectorEnv", "RolloutVectorEnv([ScriptedEnv] * 2, context={context!r})"),
        # Its spaces are larger than what a pipe holds.
        ("make_vec", "make_vec('libero_spatial', 0, num_envs=2, context={context!r})"),
    ],
)
def test_a_script_that_workers_cannot_import_is_refused(tmp_path, import_name, make, context):
    script = tmp_path / "script.py"
    lines = UNGUARDED.format(import_name=import_name, make=make.format(context=context))
    script.write_text("from vlac_gym.envs.scripted import ScriptedEnv\n" + lines)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=WAIT_S,
    )
    assert done.returncode == 1
    assert re.search(
        "ConfigError: Expected worker processes to start, .* exit code 1; .*"
        r"put what makes and uses the env under `if __name__ == '__main__':`.*$",
        done.stderr.strip(),
    )
