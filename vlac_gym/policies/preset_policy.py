"""A model behind a preset as a policy: `PresetPolicy`, `Model`."""

__all__ = ["Model", "PresetPolicy", "preset_named"]

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
from numpy.typing import ArrayLike

from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.policies.base import Action
from vlac_gym.policies.presets import PolicyPreset, get_preset


class Model(Protocol):
    """What answers with chunks, in the preset's convention."""

    def infer_batch(self, inputs: Sequence[dict[str, Any]]) -> Sequence[ArrayLike]:
        """One chunk (T, 7) for each input, as `PolicyPreset.model_input` makes them."""
        ...

    def close(self) -> None:
        """Frees the model, or ends the connection to it; safe to call twice."""
        ...


class PresetPolicy:
    """Asks a model in its own convention and hands out actions in the env's; a `ChunkPolicy`.

    Args:
        model: The model.
        preset: Its convention.

    Attributes:
        preset: As given.
        cameras: The env's cameras that the model needs.
    """

    def __init__(self, model: Model, preset: PolicyPreset) -> None:
        self.preset = preset
        self.cameras = preset.cameras
        self._model = model
        self._queue: deque[Action] = deque()

    def reset(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        """Forgets what is left of the last chunk.

        Raises:
            ConfigError: The actions do not fit the env's.
        """
        if env.action_space.shape != (7,):
            raise ConfigError(
                f"Preset {self.preset.name} has actions of 7 numbers, the env's are of shape {env.action_space.shape}."
            )
        self._queue.clear()

    def act(self, obs: Any, info: Mapping[str, Any]) -> Action:
        """The next action of the present chunk; asks the model for another where it is over."""
        if not self._queue:
            self._queue.extend(self.plan([obs], [info])[0])
        return self._queue.popleft()

    def plan(self, observations: Sequence[Any], infos: Sequence[Mapping[str, Any]]) -> list[Action]:
        """One chunk for each env; see `ChunkPolicy`."""
        inputs = [self.preset.model_input(o, i) for o, i in zip(observations, infos, strict=True)]
        chunks = self._model.infer_batch(inputs)
        if len(chunks) != len(inputs):
            raise PolicyError(
                f"Expected {len(inputs)} chunks from the model of preset {self.preset.name}, got {len(chunks)}."
            )
        return [self.preset.actions(chunk) for chunk in chunks]

    def close(self) -> None:
        """Closes the model."""
        self._model.close()


def preset_named(preset: str, chunk_steps: int | None = None) -> PolicyPreset:
    """A preset by the names that a spec gives; to be found before a model is loaded.

    Args:
        preset: Its name.
        chunk_steps: Actions executed before the next look, 1 or more, or None for the preset's.

    Raises:
        ConfigError: No such preset, or no such number.
    """
    found = get_preset(preset)
    return found if chunk_steps is None else dataclasses.replace(found, chunk_steps=chunk_steps)
