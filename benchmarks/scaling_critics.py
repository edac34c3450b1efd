"""vector_scaling.py's critics, clocked and warm before anything is measured: `make_critics`, `ClockedCritic`."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from timed_critic import TimedCritic

from vlac_gym.critic import make_critic
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.types import CriticInfo

MAX_PASSES = 4


class ConstantCritic:
    """Never sees success, and takes no time."""

    def success_prob(self, frames: Any, tasks: Any) -> np.ndarray:
        return np.full(len(frames), 0.1, np.float32)

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> np.ndarray:
        return np.zeros(len(after), np.float32)

    def value(self, frames: Any, task: str, references: Any = None) -> np.ndarray:
        return np.full(len(frames), 0.5, np.float32)

    def describe(self) -> CriticInfo:
        return CriticInfo("constant")

    def close(self) -> None:
        """Holds nothing."""


@dataclass
class Calls:
    """Of one kind of question: how long they took, how many there were, and how many pictures they brought."""

    busy_s: float = 0.0
    count: int = 0
    frames: int = 0

    @property
    def ms_per_call(self) -> float:
        """0 if there was none."""
        return 1e3 * self.busy_s / max(1, self.count)

    @property
    def frames_per_call(self) -> float:
        """0 if there was none."""
        return self.frames / max(1, self.count)


class ClockedCritic:
    """A critic, and what its calls took, by kind: done checks and value lists.

    Attributes:
        calls: Since the last restart, ``"done"`` and ``"values"``.
    """

    def __init__(self, critic: Any) -> None:
        self.critic = critic
        self.restart()

    def restart(self) -> None:
        """Counts from zero."""
        self.calls = {"done": Calls(), "values": Calls()}

    @property
    def all_calls(self) -> Calls:
        """The sum of both kinds."""
        kinds = self.calls.values()
        return Calls(sum(k.busy_s for k in kinds), sum(k.count for k in kinds), sum(k.frames for k in kinds))

    def success_prob(self, frames: Any, tasks: Any) -> np.ndarray:
        with self._clock("done", len(frames)):
            return self.critic.success_prob(frames, tasks)

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> np.ndarray:
        raise AssertionError("the rule of this benchmark asks for no pairs")

    def value(self, frames: Any, task: str, references: Any = None) -> np.ndarray:
        with self._clock("values", len(frames)):
            return self.critic.value(frames, task, references)

    def __getattr__(self, name: str) -> Any:
        if name != "values":
            return getattr(self.critic, name)
        values = self.critic.values  # no attribute where the critic has none

        def clocked(episodes: Any, tasks: Any, references: Any = None) -> Any:
            with self._clock("values", sum(map(len, episodes))):
                return values(episodes, tasks, references)

        return clocked

    @contextmanager
    def _clock(self, kind: str, num_frames: int) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        calls = self.calls[kind]
        calls.busy_s += time.perf_counter() - begin
        calls.count, calls.frames = calls.count + 1, calls.frames + num_frames


def make_critics(args: argparse.Namespace) -> dict[str, ClockedCritic | None]:
    """The critics of `--critics` by name; nano is warm, "none" is None."""
    makers: Mapping[str, Callable[[], Any]] = {
        "none": lambda: None,
        "scripted": ConstantCritic,
        "sleep": lambda: TimedCritic(args.sleep),
        "nano": lambda: _warm_nano(args),
    }
    made = {name: makers[name]() for name in args.critics}
    return {name: None if critic is None else ClockedCritic(critic) for name, critic in made.items()}


def compiled_graphs() -> int:
    """How many graphs torch has compiled in this process so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])


def _warm_nano(args: argparse.Namespace) -> Any:
    critic = make_critic(args.nano_spec)
    begin = time.perf_counter()
    critic.warm_up()
    on_cpu = critic.describe().device == "cpu"  # where nothing is compiled, and many questions take minutes
    count = 1 if on_cpu else max(args.envs)
    task = get_task(args.suite, args.task).language
    lengths = [1 + -(-limit // args.done_interval) for limit in args.limits]
    last = warm(critic, task, count, lengths, args.image_size)
    print(
        f"{args.nano_spec}: warm after {time.perf_counter() - begin:.0f} s and batches of up to {count}, "
        f"{compiled_graphs()} graphs compiled, {last} in the last pass",
        flush=True,
    )
    return critic


def warm(critic: Any, task: str, count: int, lengths: list[int], image_size: int) -> int:
    """Asks what the rule asks, in every size, until a pass compiles nothing or `MAX_PASSES` are over.

    Args:
        critic: Has `success_prob` and `values`.
        task: Instruction text.
        count: Done checks come in batches of 1 to so many frames, value lists for 1 to so many episodes.
        lengths: Frames of the episodes' value lists.
        image_size: Of the frames, in pixels.

    Returns:
        How many graphs the last pass compiled.
    """
    last = 0
    for number in range(MAX_PASSES):
        before = compiled_graphs()
        _ask(critic, task, count, lengths, image_size, np.random.default_rng(number))
        last = compiled_graphs() - before
        if not last:
            break
    return last


def _ask(
    critic: Any, task: str, count: int, lengths: list[int], image_size: int, rng: np.random.Generator
) -> None:
    frames: list[np.ndarray] = []
    for size in range(1, count + 1):  # frames not seen before, as in play
        frames = list(rng.integers(0, 256, (size, image_size, image_size, 3), np.uint8))
        critic.success_prob(frames, [task] * size)
    groups = [[min(lengths)], [max(lengths)], lengths]  # episodes of one length, and of all
    for size in _list_counts(count):
        for group in groups:
            listed = [
                [frames[(i + k) % len(frames)] for k in range(group[i % len(group)])] for i in range(size)
            ]
            critic.values(listed, [task] * size)


def _list_counts(count: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, … and the largest."""
    found = {size for n in range(count.bit_length()) for size in (2**n, 3 * 2**n) if size <= count}
    return sorted(found | {count})
