"""Seeds and options of a vector env's reset, one command per env: `EpisodeStarts`."""

__all__ = ["EpisodeStarts"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.vector.commands import ResetCommand

EpisodeOptions = Callable[[int], Mapping[str, Any]]
"""Env index to the options of that env's next automatic reset, e.g. which task to play."""


class EpisodeStarts:
    """Decides with which seed and options each env starts its episodes.

    Args:
        num_envs: Number of envs.
        group_size: Consecutive envs that share seeds and options.
        episode_options: Asked before every automatic reset; None resets without options.

    Raises:
        ConfigError: `group_size` does not divide `num_envs`.
    """

    def __init__(self, num_envs: int, group_size: int, episode_options: EpisodeOptions | None) -> None:
        if group_size < 1 or num_envs % group_size:
            raise ConfigError(f"Expected group_size to divide num_envs {num_envs}, got {group_size}.")
        self._num_envs = num_envs
        self._group_size = group_size
        self.episode_options = episode_options
        self._seeds: list[int | None] = [None] * num_envs
        self._num_losses = [0] * num_envs
        self._is_reseeded = [False] * num_envs

    def chosen(
        self,
        seed: int | Sequence[int | None] | None,
        options: dict[str, Any] | None,
        rng: np.random.Generator,
    ) -> dict[int, ResetCommand]:
        """Orders of a reset that the caller asked for.

        Args:
            seed: Env i gets ``seed + i // group_size``, or the i-th of a list (of all envs, or one per group).
            options: ``reset_mask`` (bool (num_envs,)) leaves out envs; a list, tuple or array with one
                entry per env or per group is dealt out, None entries left out; all else goes to every env.
            rng: Draws the seeds that a group shares if none are given.

        Raises:
            ConfigError: A wrong length, a mask that selects nothing, or a group that would not agree.
        """
        rest = dict(options or {})
        mask = self._mask(rest.pop("reset_mask", None))
        seeds = self._dealt_seeds(seed, rng)
        dealt = {key: self._deal(key, value) for key, value in rest.items()}
        commands = {}
        for i in np.flatnonzero(mask).tolist():
            own = {key: values[i] for key, values in dealt.items() if values[i] is not None}
            commands[i] = ResetCommand(self._take_seed(i, seeds[i]), own or None)
        return commands

    def single(self, index: int, seed: int | None, options: Mapping[str, Any] | None) -> ResetCommand:
        """The command of one env's reset that the caller asked for."""
        return ResetCommand(self._take_seed(index, seed), dict(options) if options else None)

    def automatic(self, indices: Sequence[int]) -> dict[int, ResetCommand]:
        """Orders of an automatic reset: no seed, as in Gymnasium, so that the env's own draws go on."""
        commands = {}
        for i in indices:
            options = dict(self.episode_options(i)) if self.episode_options is not None else None
            commands[i] = ResetCommand(self._take_seed(i, None), options or None)
        return commands

    def note_loss(self, index: int) -> None:
        """An env was replaced, and its generator with it: its next reset gets a seed that follows from the last."""
        self._num_losses[index] += 1
        self._is_reseeded[index] = True

    def _take_seed(self, i: int, seed: int | None) -> int | None:
        if seed is not None:
            self._seeds[i], self._num_losses[i] = seed, 0
        elif self._is_reseeded[i] and (last := self._seeds[i]) is not None:
            seed = int(np.random.SeedSequence((last, self._num_losses[i])).generate_state(1)[0])
        self._is_reseeded[i] = False
        return seed

    def _dealt_seeds(
        self, seed: int | Sequence[int | None] | None, rng: np.random.Generator
    ) -> Sequence[int | None]:
        if seed is None:
            if self._group_size == 1:
                return [None] * self._num_envs
            seed = rng.integers(2**31, size=self._num_envs // self._group_size).tolist()
        if isinstance(seed, int | np.integer):
            return [int(seed) + i // self._group_size for i in range(self._num_envs)]
        return self._deal("seed", seed)

    def _deal(self, key: str, value: Any) -> Sequence[Any]:
        if not isinstance(value, list | tuple | np.ndarray):
            return [value] * self._num_envs
        items = value.tolist() if isinstance(value, np.ndarray) else list(value)
        num_groups = self._num_envs // self._group_size
        if len(items) == num_groups:
            return [items[i // self._group_size] for i in range(self._num_envs)]
        if len(items) != self._num_envs:
            per_group = f" or {num_groups} (one per group)" if num_groups != self._num_envs else ""
            raise ConfigError(
                f"Expected {self._num_envs} entries{per_group} in reset's {key!r}, got {len(items)}."
            )
        for first in range(0, self._num_envs, self._group_size):
            group = items[first : first + self._group_size]
            if any(item != group[0] for item in group):
                raise ConfigError(f"Expected one {key!r} for the group from env {first} on, got {group}.")
        return items

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self._num_envs, np.bool_)
        chosen = np.asarray(mask)
        if chosen.dtype != np.bool_ or chosen.shape != (self._num_envs,) or not chosen.any():
            raise ConfigError(
                f"Expected reset_mask as bool ({self._num_envs},) with at least one True, got {mask!r}."
            )
        return chosen
