"""The ways in which vector_scaling.py drives make_vec's envs, and what it measures of them: `WAYS`, `measure`.

Each way plays without end and tells `count` after every round how many env steps were executed in it; `Meter` ends it.
Each measurement has a number, from which its random actions follow, so that none shows another's pictures again but
those that episodes begin with.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import numpy as np
from env_parts import Stopwatch
from scaling_baseline import make_env
from scaling_critics import ClockedCritic, compiled_graphs

from vlac_gym.rollout import AsyncRollout, PipelinedRollout, PolicyRow
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper

Count = Callable[[int], None]
Rng = np.random.Generator
WARM_ROUNDS = 2
"""Chunks of each env before the clock starts."""

ASYNC_EPISODES = 10_000
"""More than one measurement plays."""


class TimeIsOver(Exception):
    """Ends a way of playing."""


class Meter:
    """Counts env steps for some seconds, from when every env has moved, and reads the clocks at the end.

    Args:
        envs: What is played.
        critic: What judges it, if anything.
        chunk: Env steps per chunk.
        args: The command line.
    """

    def __init__(
        self, envs: Sequence[Any], critic: ClockedCritic | None, chunk: int, args: argparse.Namespace
    ) -> None:
        self._critic, self._args = critic, args
        self._worker_pids = tuple(pid for env in envs for pid in env.unwrapped.worker_pids)
        self._warm_left = WARM_ROUNDS * chunk * sum(env.num_envs for env in envs)
        self._steps = 0
        self.result: dict[str, float] = {}

    def count(self, steps: int) -> None:
        """So many env steps were executed since the last call.

        Raises:
            TimeIsOver: `result` is complete.
        """
        if self._warm_left > 0:
            self._warm_left -= steps
            if self._warm_left <= 0:
                self._start()
            return
        self._steps += steps
        if self._main.read()["clock_s"] >= self._args.seconds:
            self.result = self._read()
            raise TimeIsOver

    def _start(self) -> None:
        if self._critic is not None:
            self._critic.restart()
        self._compiled = compiled_graphs()
        self._workers, self._main = Stopwatch(self._worker_pids), Stopwatch()

    def _read(self) -> dict[str, float]:
        main, workers = self._main.read(), self._workers.read()
        clock_s, worker_cpu_s = main["clock_s"], workers["cpu_s"] - main["cpu_s"]
        result = {
            "steps_per_s": self._steps / clock_s,
            "busy": worker_cpu_s / clock_s / self._args.cores,
            "cpu_ms_per_step": 1e3 * worker_cpu_s / max(1, self._steps),
            "main": main["cpu_s"] / clock_s,
            "compiled": compiled_graphs() - self._compiled,
        }
        if (critic := self._critic) is not None:
            every = critic.all_calls
            result |= {
                "critic": every.busy_s / clock_s,
                "frames_per_call": every.frames_per_call,
                "critic_ms": every.ms_per_call,
            }
            for kind, calls in critic.calls.items():
                result |= {
                    f"{kind}_share": calls.busy_s / clock_s,
                    f"{kind}_ms": calls.ms_per_call,
                    f"{kind}_frames": calls.frames_per_call,
                }
        return result


def play_sync(
    envs: Sequence[ActionChunk], chunk: int, args: argparse.Namespace, rng: Rng, count: Count
) -> None:
    """In lockstep."""
    (env,) = envs
    env.reset(seed=0)
    while True:
        time.sleep(args.policy_ms / 1e3)
        infos = env.step(rng.uniform(-1, 1, (env.num_envs, chunk, 7)))[4]
        count(int(infos["chunk"]["executed_steps"].sum()))


def play_ready(
    envs: Sequence[ActionChunk], chunk: int, args: argparse.Namespace, rng: Rng, count: Count
) -> None:
    """Each env at its own pace, by `send` and `recv`."""
    (env,) = envs
    env.reset(seed=0)
    env.send(rng.uniform(-1, 1, (env.num_envs, chunk, 7)), np.arange(env.num_envs))
    try:
        while True:
            batch = env.recv(args.min_ready)
            time.sleep(args.policy_ms / 1e3)
            env.send(rng.uniform(-1, 1, (len(batch.env_ids), chunk, 7)), batch.env_ids)
            count(int(batch.infos["chunk"]["executed_steps"].sum()))
    finally:
        env.recv(env.num_envs)


def play_async(
    envs: Sequence[ActionChunk], chunk: int, args: argparse.Namespace, rng: Rng, count: Count
) -> None:
    """Each env at its own pace, by an `AsyncRollout`, which keeps episodes and their order of numbers."""
    (env,) = envs
    seen: dict[int, int] = {}

    def policy(observations: Any, rows: Sequence[PolicyRow]) -> np.ndarray:
        executed = sum(row.env_steps - seen.get(row.episode, 0) for row in rows)
        seen.update({row.episode: row.env_steps for row in rows})
        count(executed)
        time.sleep(args.policy_ms / 1e3)
        return rng.uniform(-1, 1, (len(rows), chunk, 7))

    rollout = AsyncRollout(env, policy, min_ready=args.min_ready, keeps_observations=False)
    with closing(rollout.episodes(ASYNC_EPISODES, in_order=False)) as episodes:
        for episode in episodes:
            count(episode.finished.num_steps - seen.pop(episode.index))


def play_pipelined(
    envs: Sequence[ActionChunk], chunk: int, args: argparse.Namespace, rng: Rng, count: Count
) -> None:
    """As two groups that take turns."""

    def policy(observations: Any, infos: Any, group: int) -> np.ndarray:
        time.sleep(args.policy_ms / 1e3)
        return rng.uniform(-1, 1, (envs[group].num_envs, chunk, 7))

    with closing(PipelinedRollout(envs, policy).run(10**9, seed=0)) as steps:
        for step in steps:
            count(int(step.infos["chunk"]["executed_steps"].sum()))


WAYS: dict[str, Callable[[Sequence[ActionChunk], int, argparse.Namespace, Rng, Count], None]] = {
    "sync": play_sync,
    "ready": play_ready,
    "async": play_async,
    "pipelined": play_pipelined,
}

ENV_SETS: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("sync", "ready"), 1, "SameStep"),
    (("async",), 1, "Disabled"),
    (("pipelined",), 2, "SameStep"),
)
"""Ways that play the same envs, how many vector envs these are, and their autoreset mode."""


def make_vector_envs(
    args: argparse.Namespace, cameras: int, num_envs: int, groups: int, mode: str, niceness: int
) -> list[RolloutVectorEnv]:
    """As many groups, which share the envs and the workers."""
    count = num_envs // groups
    options: dict[str, Any] = {
        "autoreset_mode": mode,
        "envs_per_worker": max(1, num_envs // args.cores),
        "pin_workers": args.pin,
        "worker_niceness": niceness,
    }
    return [
        RolloutVectorEnv([partial(make_env, args, cameras, g * count + i) for i in range(count)], **options)
        for g in range(groups)
    ]


def measure(
    way: str,
    envs: Sequence[RolloutVectorEnv],
    chunk: int,
    critic: ClockedCritic | None,
    args: argparse.Namespace,
    number: int,
) -> dict[str, float]:
    """Plays one way for `--seconds`, after a while in which everything starts.

    Args:
        way: One of `WAYS`.
        envs: That it plays.
        chunk: Env steps per chunk.
        critic: Judges, if there is one.
        args: The command line.
        number: Of the measurement in its run; its actions follow from it.
    """
    judged = [_judged(env, critic, chunk, args, g * env.num_envs) for g, env in enumerate(envs)]
    meter = Meter(judged, critic, chunk, args)
    with suppress(TimeIsOver):
        WAYS[way](judged, chunk, args, np.random.default_rng(number), meter.count)
    return meter.result


def _judged(
    env: RolloutVectorEnv, critic: Any, chunk: int, args: argparse.Namespace, first: int
) -> ActionChunk:
    """The env in chunks, judged by a critic that ends no episode."""
    if critic is None:
        return ActionChunk(env, chunk)
    options = {"done_threshold": 1.0, "done_interval": args.done_interval, "value_stride": args.done_interval}
    wrapped = VLACRewardWrapper(
        env, critic, first_env_index=first, ask_window_s=args.window_ms / 1e3, **options
    )
    return ActionChunk(wrapped, chunk)
