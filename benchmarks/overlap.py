"""What `PipelinedRollout` saves, and what a vector env costs beside its simulators.

    python benchmarks/overlap.py                      # scripted envs that sleep; half a minute
    python benchmarks/overlap.py --env libero         # real simulators

Prints the serial loop's and the pipelined rollout's seconds per round of all groups with a policy and a critic of
given latency, whether both paid the same rewards; critic calls per vector step; a worker's memory; and
the time to move a batch of observations through shared memory and through pickle.
"""

import argparse
import hashlib
import multiprocessing
import pickle
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import vlac_gym
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.rollout import PipelinedRollout
from vlac_gym.types import CriticInfo
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.wrappers.vector import ActionChunk, VLACRewardWrapper


class SleepingEnv(ScriptedEnv):
    """A scripted env that takes `step_s` per step, as a simulator would."""

    def __init__(self, step_s: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step_s = step_s

    def step(self, action: Any) -> Any:
        time.sleep(self.step_s)
        return super().step(action)


class SleepingCritic:
    """Takes `latency_s` per call, whatever the batch, and answers from the picture's digest."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.num_calls = 0

    def success_prob(self, frames: Any, tasks: Any) -> np.ndarray:
        self._wait()
        return np.array([0.8 * _draw(frame) for frame in frames], np.float32)

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> np.ndarray:
        self._wait()
        return np.array([_draw(a) - _draw(b) for b, a in zip(before, after)], np.float32)

    def value(self, frames: Any, task: str, references: Any = None) -> np.ndarray:
        return self.values([frames], [task])[0]

    def values(self, episodes: Any, tasks: Any, references: Any = None) -> list[np.ndarray]:
        self._wait()
        return [np.array([_draw(frame) for frame in frames], np.float32) for frames in episodes]

    def describe(self) -> CriticInfo:
        return CriticInfo(name="sleeping")

    def close(self) -> None:
        pass

    def _wait(self) -> None:
        self.num_calls += 1
        time.sleep(self.latency_s)


def _draw(frame: np.ndarray) -> float:
    # The first channel of a scripted env counts its episodes, which go on from one measurement to the next.
    return hashlib.blake2b(frame[..., 1:].tobytes(), digest_size=1).digest()[0] / 255


class SleepingPolicy:
    def __init__(self, latency_s: float, chunk_size: int) -> None:
        self.latency_s, self.chunk_size = latency_s, chunk_size
        self.rng = np.random.default_rng(0)

    def __call__(self, observations: dict, infos: dict, group: int) -> np.ndarray:
        time.sleep(self.latency_s)
        return self.rng.uniform(-1, 1, (len(observations["state"]), self.chunk_size, 7)).astype(np.float32)


def make_groups(args: argparse.Namespace, critic: SleepingCritic) -> list[ActionChunk]:
    groups = []
    for first in range(0, args.num_envs, args.num_envs // args.groups):
        count = args.num_envs // args.groups
        if args.env == "libero":
            env = vlac_gym.make_vec(
                "libero_spatial", 0, count, cameras=("agentview",), image_size=args.image_size,
                autoreset_mode="SameStep",
            )  # fmt: skip
        else:
            fn = partial(SleepingEnv, args.step_ms / 1e3, max_episode_steps=100, image_size=args.image_size)
            env = RolloutVectorEnv([fn] * count, autoreset_mode="SameStep")
        judged = VLACRewardWrapper(
            env, critic, max_episode_steps=100, done_interval=args.chunk_size, first_env_index=first
        )
        groups.append(ActionChunk(judged, args.chunk_size))
    return groups


def measure(
    args: argparse.Namespace, groups: list[ActionChunk], critic: SleepingCritic, overlap: bool
) -> tuple:
    policy = SleepingPolicy(args.policy_ms / 1e3, args.chunk_size)
    rollout = PipelinedRollout(groups, policy, overlap=overlap)
    list(rollout.run(1, seed=0))  # start whatever starts on first use
    policy.rng = np.random.default_rng(0)
    critic.num_calls = 0
    steps = []
    run = rollout.run(args.rounds, seed=0)
    begin = time.perf_counter()
    steps = [(step.rewards.tolist(), step.terminations.tolist(), step.infos["lost"].any()) for step in run]
    seconds = (time.perf_counter() - begin) / args.rounds
    assert not any(lost for *_, lost in steps), "a worker died: the comparison is void"
    return seconds, steps, critic.num_calls / len(steps)


def memory_mib(pid: int) -> float:
    """Proportional set size: shared pages are counted once among the processes that share them."""
    line = next(x for x in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if x.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def transport_ms(num_envs: int, image_size: int) -> tuple[float, float]:
    """Milliseconds to bring N pictures from another process: written and copied, or pickled through a pipe."""
    batch = np.zeros((num_envs, image_size, image_size, 3), np.uint8)
    here, there = multiprocessing.Pipe()
    echo = multiprocessing.get_context("spawn").Process(target=_echo, args=(there,), daemon=True)
    echo.start()
    here.send(batch[0])
    here.recv()
    begin = time.perf_counter()
    for _ in range(20):
        for picture in batch:
            here.send(None)
            here.recv()
            picture.copy()
    pickled = (time.perf_counter() - begin) / 20
    memory = np.zeros_like(batch)
    begin = time.perf_counter()
    for _ in range(20):
        memory[:] = batch  # the worker's part
        memory.copy()
    shared = (time.perf_counter() - begin) / 20
    here.send("stop")
    echo.join()
    return shared * 1e3, pickled * 1e3


def _echo(pipe: Any) -> None:
    picture = None
    while not isinstance(item := pipe.recv(), str):
        picture = item if item is not None else picture
        pipe.send(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", choices=("scripted", "libero"), default="scripted")
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="vector steps per group")
    parser.add_argument("--chunk-size", type=int, default=8)
    parser.add_argument("--policy-ms", type=float, default=200.0)
    parser.add_argument("--critic-ms", type=float, default=60.0)
    parser.add_argument("--step-ms", type=float, default=15.0, help="of a scripted env")
    parser.add_argument("--image-size", type=int, default=128)
    args = parser.parse_args()

    critic = SleepingCritic(args.critic_ms / 1e3)
    groups = make_groups(args, critic)
    serial_s, expected, calls = measure(args, groups, critic, overlap=False)
    pipelined_s, got, _ = measure(args, groups, critic, overlap=True)
    print(f"{args.groups} groups of {args.num_envs // args.groups} {args.env} envs, chunks of {args.chunk_size}, "
          f"policy {args.policy_ms:g} ms, critic {args.critic_ms:g} ms")  # fmt: skip
    print(f"serial     {1e3 * serial_s:7.0f} ms per round")
    print(f"pipelined  {1e3 * pipelined_s:7.0f} ms per round, ratio {serial_s / pipelined_s:.2f}")
    print(f"rewards and ends identical: {got == expected}")
    print(f"critic calls per vector step of {args.num_envs // args.groups} envs: {calls:.2f}")
    workers = [pid for group in groups for pid in group.unwrapped.worker_pids]
    print(f"memory per worker: {', '.join(f'{memory_mib(pid):.0f}' for pid in workers)} MiB (PSS)")
    for group in groups:
        group.close()
    shared_ms, pickled_ms = transport_ms(16, 256)
    print(f"16 pictures of 256 x 256: shared memory {shared_ms:.2f} ms, pickled {pickled_ms:.2f} ms")
    report = pickle.dumps({"task": "put the bowl on the plate", "goal_progress": 0.5, "elapsed_steps": 7})
    print(f"what a worker pickles per step instead of pictures: about {len(report)} bytes")


if __name__ == "__main__":
    main()
