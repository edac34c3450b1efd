"""The control of an experiment: a critic whose answers have nothing to do with the pictures, `RandomCritic`.

A policy that improves on its reward improves for another reason than the critic.
"""

__all__ = ["RandomCritic"]

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlac_gym.checks import check_unit
from vlac_gym.critic.base import BaseCritic, check_frames, check_same_length, check_tasks, frame_digest
from vlac_gym.errors import ConfigError
from vlac_gym.specs.options import option_types, read_argument
from vlac_gym.types import CriticInfo, FloatArray, Frame


class RandomCritic(BaseCritic):
    """Answers by drawing from the frames' digests: any picture has one answer, as with every critic.

    `success_prob` is 1.0 with probability `done_rate`, else 0.0; `progress` is uniform in [-1, 1), and the value list
    uniform in [0, 1) but for its first entry, 0. Task texts and references are not read.

    Args:
        done_rate: Share of the done checks that say done, [0, 1]. An episode of n checks ends as done with probability
            ``1 - (1 - done_rate) ** n``: 0.034 ends half of the episodes of 20 checks.
        seed: Of the draws, >= 0.

    Raises:
        ConfigError: A parameter is out of its range.
    """

    def __init__(self, done_rate: float = 0.02, seed: int = 0) -> None:
        check_unit("random done_rate", done_rate)
        if seed < 0:
            raise ConfigError(f"Expected random seed >= 0, got {seed!r}.")
        self._done_rate, self._seed = done_rate, seed

    @classmethod
    def from_spec(cls, argument: str, **options: Any) -> "RandomCritic":
        """Builds `random:done_rate=0.05,seed=1`; every part is optional."""
        _, options = read_argument(argument, option_types(cls), "random", given=options, has_target=False)
        return cls(**options)

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """1.0 for a share of `done_rate` of all pictures, else 0.0."""
        check_frames(frames)
        check_tasks(tasks)
        check_same_length(frames=frames, tasks=tasks)
        return np.array([self._draw(b"done", frame) < self._done_rate for frame in frames], dtype=np.float32)

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """Uniform in [-1, 1), one draw per pair of pictures."""
        check_frames(before)
        check_frames(after)
        check_same_length(before=before, after=after, tasks=tasks)
        draws = [self._draw(b"progress", *pair) for pair in zip(before, after, strict=True)]
        return np.array([2.0 * draw - 1.0 for draw in draws], dtype=np.float32)

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """0 and then uniform in [0, 1), one draw per picture."""
        check_frames(frames)
        check_tasks([task])
        draws = [self._draw(b"value", frame) for frame in frames]
        return np.array([0.0, *draws[1:]][: len(draws)], dtype=np.float32)

    def describe(self) -> CriticInfo:
        """Names it with its parameters."""
        return CriticInfo(name="random", details={"done_rate": self._done_rate, "seed": self._seed})

    def _draw(self, question: bytes, *frames: Frame) -> float:
        """Uniform in [0, 1): 24 bits, which float32 holds."""
        digest = hashlib.blake2b(question + str(self._seed).encode(), digest_size=3)
        for frame in frames:
            digest.update(frame_digest(frame))
        return int.from_bytes(digest.digest(), "big") / 2**24
