"""Policies made by a factory of the user's own: `adopt_policy`, `FunctionPolicy`."""

__all__ = ["FunctionPolicy", "adopt_policy"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.policies.base import Action, Policy
from vlac_gym.policies.preset_policy import PresetPolicy, preset_named
from vlac_gym.specs.own_code import bound_factory

_RESERVED: dict[str, type] = {"preset": str, "chunk_steps": int}


class FunctionPolicy:
    """A function of observation and info, in the env's own convention.

    Args:
        function: Returns an action (A,); drawing random numbers, it should draw the same at the same observation.
        where: Where it is from, for messages.
    """

    def __init__(self, function: Callable[[Any, Mapping[str, Any]], ArrayLike], where: str) -> None:
        self._function = function
        self._where = where

    def reset(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        """Remembers the shape of an action."""
        self._shape = env.action_space.shape

    def act(self, obs: Any, info: Mapping[str, Any]) -> Action:
        """What the function says.

        Raises:
            PolicyError: Not a finite action of the env's shape.
        """
        action = np.asarray(self._function(obs, info), np.float32)
        if action.shape != self._shape or not np.isfinite(action).all():
            raise PolicyError(
                f"Expected a finite action of shape {self._shape} from {self._where}, got {action.tolist()}. A model "
                "with chunks or a convention of its own needs ?preset=…."
            )
        return action


class _CallableModel:
    """One call per input, which returns a chunk or a map with ``actions``; all at once if it has `infer_batch`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def infer_batch(self, inputs: Sequence[dict[str, Any]]) -> Sequence[ArrayLike]:
        if hasattr(self._model, "infer_batch"):
            chunks: Sequence[ArrayLike] = self._model.infer_batch(inputs)
            return chunks
        replies = [getattr(self._model, "infer", self._model)(element) for element in inputs]
        return [reply["actions"] if isinstance(reply, Mapping) else reply for reply in replies]

    def close(self) -> None:
        if hasattr(self._model, "close"):
            self._model.close()


def adopt_policy(module: str, argument: str, given: Mapping[str, Any] | None = None) -> Policy:
    """Builds what ``module:factory?key=value`` names.

    With ``preset=NAME`` (and ``chunk_steps=N``) the factory returns a model: it, or its `infer`, is called with an
    input as the preset makes them, and returns a chunk or a map with ``actions``; `infer_batch`, if it has one, takes
    all envs' inputs at once and returns their chunks. Without, it returns a `Policy`, or a function of observation and
    info.

    Raises:
        ConfigError: No such factory, its options do not fit, or it made neither.
    """
    make, options = bound_factory(module, argument, given, reserved=_RESERVED)
    where = f"{module}:{argument}"
    if "preset" in options:
        preset = preset_named(options["preset"], options.get("chunk_steps"))
        model = make()
        if not callable(model) and not hasattr(model, "infer") and not hasattr(model, "infer_batch"):
            raise ConfigError(f"Expected a model with infer from {where}, got {model!r}.")
        return PresetPolicy(_CallableModel(model), preset)
    if "chunk_steps" in options:
        raise ConfigError(f"Expected chunk_steps beside preset=… only, got {where}.")
    made = make()
    if isinstance(made, Policy) and not isinstance(made, type):
        return made
    if callable(made) and not isinstance(made, type):
        return FunctionPolicy(made, where)
    raise ConfigError(
        f"Expected a policy (reset, act) or a function of observation and info from {where}, got {made!r}."
    )
