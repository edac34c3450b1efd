"""Replays recorded actions: `ReplayPolicy`, `load_actions`."""

__all__ = ["ReplayPolicy", "load_actions"]

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.policies.base import Action
from vlac_gym.specs.options import read_argument

ACTIONS_KEY = "actions"


class ReplayPolicy:
    """Gives out the actions of a file in order; after the last one, no motion with the gripper as it was.

    Args:
        actions: float (T, A), T >= 1, finite.

    Raises:
        ConfigError: Wrong shape, or a value that is not finite.
    """

    cameras = ("agentview",)

    def __init__(self, actions: Action) -> None:
        array = np.asarray(actions)
        if array.ndim != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.number):
            raise ConfigError(
                f"Expected actions as numbers (T, A) with T >= 1, got {array.dtype} {array.shape}."
            )
        self._actions = array.astype(np.float32)
        if not np.isfinite(self._actions).all():
            row = int(np.argwhere(~np.isfinite(self._actions))[0][0])
            raise ConfigError(f"Expected finite actions, got {self._actions[row].tolist()} in row {row}.")
        self._next = 0

    @classmethod
    def from_spec(cls, argument: str) -> "ReplayPolicy":
        """Builds it from the path of an action file, as in `replay:steps.jsonl?episode=2`; see `load_actions`."""
        if not argument:
            raise ConfigError(
                "Policy 'replay' needs an action file: write 'replay:PATH' (.npy, .npz or a rollout's steps.jsonl)."
            )
        path, options = read_argument(argument, {"episode": int}, "replay:PATH?episode=0")
        return cls(load_actions(path, **options))

    def reset(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        """Starts again at the first action.

        Raises:
            ConfigError: The actions do not fit the action space.
        """
        shape = env.action_space.shape
        if shape != self._actions.shape[1:]:
            raise ConfigError(
                f"Expected actions of shape {shape} for this environment, got {self._actions.shape[1:]}."
            )
        self._next = 0

    def act(self, obs: Any, info: Mapping[str, Any]) -> Action:
        """The next recorded action."""
        if self._next < len(self._actions):
            self._next += 1
            action: Action = self._actions[self._next - 1].copy()
            return action
        still: Action = np.zeros_like(self._actions[-1])
        still[-1] = self._actions[-1, -1]
        return still


def load_actions(path: str | Path, *, episode: int | None = None) -> Action:
    """Reads an action file: a .npy array (T, A), a .npz with the array under ``actions``, or a rollout's steps.jsonl.

    Args:
        path: The file.
        episode: Which episode of a steps.jsonl; None if it holds one only.

    Raises:
        ConfigError: No such file, another format, no ``actions`` in it, or no such episode.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(
            f"No action file at {str(file)!r}. Give the path of a .npy, .npz or steps.jsonl file."
        )
    if file.suffix == ".jsonl":
        return _rollout_actions(file, episode)
    if episode is not None:
        raise ConfigError(f"Expected a rollout's steps.jsonl for episode={episode}, got {str(file)!r}.")
    try:
        loaded = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as e:
        raise ConfigError(
            f"Expected {str(file)!r} to be a .npy or .npz file of numbers, or a rollout's steps.jsonl; it is neither."
        ) from e
    if isinstance(loaded, np.ndarray):
        return cast(Action, loaded)
    with loaded:
        if ACTIONS_KEY not in loaded.files:
            found = ", ".join(loaded.files) or "nothing"
            raise ConfigError(f"Expected an array {ACTIONS_KEY!r} in {str(file)!r}, found {found}.")
        return cast(Action, loaded[ACTIONS_KEY])


def _rollout_actions(file: Path, episode: int | None) -> Action:
    by_episode: dict[int, list[list[float]]] = {}
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            by_episode.setdefault(int(row["episode"]), []).append(row["action"])
        actions = {number: np.array(rows, np.float32) for number, rows in by_episode.items()}
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigError(
            f"Expected {str(file)!r} to be a rollout's steps.jsonl, but it is not: {e!r}."
        ) from e
    if episode is None and len(actions) == 1:
        (episode,) = actions
    if episode not in actions:
        wanted = "which episode" if episode is None else f"episode {episode}"
        held = ", ".join(map(str, sorted(actions))) or "none"
        raise ConfigError(
            f"Expected {wanted} of {str(file)!r}, which holds {held}. Write replay:{file}?episode=NUMBER."
        )
    return actions[episode]
