"""A policy of 0.6 M parameters for a few tasks, without pretraining: `ClonePolicy`, and its files."""

__all__ = ["ClonePolicy", "load_policy", "load_weights", "save_policy", "untrained_policy"]

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.extras import needs
from vlac_gym.files.atomic import write_bytes, write_json

with needs("A clone policy", "vlac"):
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

STATE_SIZE, ACTION_SIZE = 8, 7
"""LIBERO's `state` and action."""

_CLOCK_ZERO, _CLOCK_UNIT, _CLOCK_END, _CLOCK_WEIGHT = 80.0, 50.0, 160.0, 4.0
"""Time in an episode as the offset reads it: -1.6 to 1.6 in its first 160 env steps, and 1.6 after them, so that a
longer episode, as those of LIBERO's own limits, is nothing that training never saw. The weight sets how far a step of
an optimiser moves what is read off the clock (docs/training.md has what was tried)."""

_WIDTH = 512
"""Features."""

_CONFIG, _WEIGHTS = "config.json", "policy.pt"


class ClonePolicy(nn.Module):
    """Pictures, arm state and task in, a chunk of actions out, and a value.

    Each camera has a convolutional encoder of its own, whose channels are read out by their mean and by where they are
    strongest (spatial soft-argmax: Levine et al., 2016). With the normalised state and the task's one-hot they go
    through two layers of 512. The value head reads the same features without a gradient into them, so that learning
    values never moves the actions.

    Args:
        tasks: Names of the tasks, as ``suite:id``; the one-hot's order.
        chunk_size: Actions per decision, T >= 1.
        image_size: Side to which pictures are averaged down before the encoder, >= 16.
        cameras: Names of the pictures.
        has_offset: Begin with a correction, see `add_offset`.

    Attributes:
        offset: A layer that reads one correction for all actions of the chunk off the features, the task and the time
            in the episode, or None.
        feature_mean: Buffer (512,), the features' mean over what was imitated. The offset reads what differs from it:
            features are positive, so that every step of an optimiser would move all actions alike.
        log_std: Parameter (7,), of the noise that `examples/train_ppo.py` explores with.
        value: The value head.
        state_mean, state_std: Buffers (8,), what a state is normalised with.

    Raises:
        ConfigError: An argument does not fit.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        chunk_size: int = 8,
        image_size: int = 128,
        cameras: Sequence[str] = ("agentview", "wrist"),
        has_offset: bool = False,
    ) -> None:
        super().__init__()
        if not tasks or len(set(tasks)) < len(tasks) or chunk_size < 1 or image_size < 16 or not cameras:
            raise ConfigError(
                f"Expected different tasks, chunk_size >= 1, image_size >= 16 and a camera, got {list(tasks)}, "
                f"{chunk_size}, {image_size} and {list(cameras)}."
            )
        self.tasks, self.cameras = tuple(tasks), tuple(cameras)
        self.chunk_size, self.image_size = chunk_size, image_size
        self.encoders = nn.ModuleDict({camera: _Encoder(image_size) for camera in self.cameras})
        width = len(self.cameras) * _Encoder.OUT + STATE_SIZE + len(self.tasks)
        self.trunk = nn.Sequential(*_layer(width, _WIDTH), *_layer(_WIDTH, _WIDTH))
        self.mean = nn.Linear(_WIDTH, chunk_size * ACTION_SIZE)
        self.value = nn.Sequential(nn.Linear(_WIDTH, 256), nn.ReLU(), nn.Linear(256, 1))
        self.log_std = nn.Parameter(torch.full((ACTION_SIZE,), -2.5))
        self.state_mean: Tensor
        self.state_std: Tensor
        self.register_buffer("state_mean", torch.zeros(STATE_SIZE))
        self.register_buffer("state_std", torch.ones(STATE_SIZE))
        self.feature_mean: Tensor
        self.register_buffer("feature_mean", torch.zeros(_WIDTH))
        nn.init.normal_(self.mean.weight, std=0.01)
        nn.init.zeros_(self.mean.bias)
        self.offset: nn.Linear | None = None
        if has_offset:
            self.add_offset()

    def add_offset(self) -> nn.Linear:
        """Adds the correction, which changes nothing at first; one that is there stays.

        Reinforcement learning that moves so little of a policy needs fewer episodes and cannot undo what imitation
        taught (residual learning: Silver et al., arXiv 1812.06298; Ankile et al., arXiv 2407.16677).
        """
        if self.offset is None:
            inputs = _WIDTH + 3 * len(self.tasks)
            self.offset = nn.Linear(inputs, ACTION_SIZE, device=self.mean.weight.device)
            nn.init.zeros_(self.offset.weight)
            nn.init.zeros_(self.offset.bias)
        return self.offset

    @property
    def reads_time(self) -> bool:
        """Whether an offset has learned from the clock: it reads something else where nobody knows the time."""
        if self.offset is None:
            return False
        of_clock = self.offset.weight[:, _WIDTH:].reshape(ACTION_SIZE, len(self.tasks), 3)
        return bool(of_clock[..., 1:].any())

    def task_index(self, info: Mapping[str, Any], where: str = "this policy") -> int:
        """The place of an episode's task, as its `info` names it, in the one-hot.

        Args:
            info: With `task_suite` and `task_id`.
            where: Where the policy is from, for the message.

        Raises:
            PolicyError: It was not trained on that task.
        """
        name = f"{info.get('task_suite')}:{info.get('task_id')}"
        if name not in self.tasks:
            raise PolicyError(
                f"Expected a task that {where} was trained on ({', '.join(self.tasks)}), got {name}."
            )
        return self.tasks.index(name)

    def one_hot(self, numbers: Tensor) -> Tensor:
        """Places of tasks, int64 (B,), as `forward` takes them: float32 (B, tasks), on the same device."""
        return functional.one_hot(numbers, len(self.tasks)).float()

    def read_infos(
        self, infos: Sequence[Mapping[str, Any]], where: str = "this policy"
    ) -> tuple[Tensor, Tensor | None]:
        """What `forward` wants to know of B episodes beside their observations, on the policy's device.

        Args:
            infos: Each with `task_suite` and `task_id`, and for an offset `elapsed_steps`.
            where: Where the policy is from, for the message.

        Returns:
            `task` and `env_steps`; None for the latter without an offset.

        Raises:
            PolicyError: It was not trained on a task, or an info does not tell what an offset needs.
        """
        device = self.log_std.device
        numbers = torch.tensor([self.task_index(info, where) for info in infos], device=device)
        if self.offset is None:
            return self.one_hot(numbers), None
        for info in infos:
            if "elapsed_steps" not in info:
                raise PolicyError(
                    f"Expected elapsed_steps in each info, since the offset of {where} has a clock, got "
                    f"{', '.join(info)}. Let the env report its steps since the reset, as LiberoEnv does."
                )
        return self.one_hot(numbers), torch.tensor(
            [int(info["elapsed_steps"]) for info in infos], device=device
        )

    def features(self, images: Mapping[str, Tensor], state: Tensor, task: Tensor) -> Tensor:
        """What everything is read off, float32 (B, 512), >= 0; the arguments are those of `forward`."""
        seen = [self.encoders[camera](images[camera]) for camera in self.cameras]
        features: Tensor = self.trunk(
            torch.cat([*seen, (state - self.state_mean) / self.state_std, task], dim=-1)
        )
        return features

    def forward(
        self, images: Mapping[str, Tensor], state: Tensor, task: Tensor, env_steps: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Looks and decides.

        Args:
            images: Camera -> uint8 (B, H, W, 3).
            state: float32 (B, 8).
            task: float32 (B, tasks), one-hot.
            env_steps: (B,), how old the episodes are. Only an offset reads it; None where nobody knows, in training as
                afterwards: the offset is then read off the rest.

        Returns:
            Means of the actions, float32 (B, T, 7), not bounded; the logarithm of their standard deviation, (7,);
            values, (B,).
        """
        features = self.features(images, state, task)
        means = self.mean(features).view(-1, self.chunk_size, ACTION_SIZE)
        if self.offset is not None:
            means = means + self.offset(self._offset_inputs(features.detach(), task, env_steps))[:, None]
        return means, self.log_std, self.value(features.detach()).squeeze(-1)

    def _offset_inputs(self, features: Tensor, task: Tensor, env_steps: Tensor | None) -> Tensor:
        """The features without their mean, and 1, t and t squared for the task at hand, 0 for others."""
        age = torch.full_like(task[:, 0], _CLOCK_ZERO) if env_steps is None else env_steps.to(task)
        t = (age.clamp(max=_CLOCK_END) - _CLOCK_ZERO) / _CLOCK_UNIT
        clock = torch.stack([torch.ones_like(t), t, t**2], dim=-1) * _CLOCK_WEIGHT
        return torch.cat(
            [features - self.feature_mean, (task[:, :, None] * clock[:, None]).flatten(1)], dim=-1
        )


class _Encoder(nn.Module):
    """A picture to `OUT` numbers."""

    CHANNELS = 64
    OUT = 3 * CHANNELS

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        layers: list[nn.Module] = []
        channels, side = 3, image_size
        for width in (32, self.CHANNELS, self.CHANNELS):
            stride = 2 if side >= 32 else 1  # down to 16 x 16 positions
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.GroupNorm(8, width), nn.ReLU()]
            channels, side = width, side // stride
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float32 (B, OUT)."""
        small = functional.adaptive_avg_pool2d(pictures.permute(0, 3, 1, 2).float() / 255.0, self.image_size)
        features = self.layers(small)
        height, width = features.shape[2:]
        weights = features.flatten(2).softmax(dim=-1)
        x = torch.linspace(-1.0, 1.0, width, device=features.device).repeat(height)
        y = torch.linspace(-1.0, 1.0, height, device=features.device).repeat_interleave(width)
        return torch.cat([(weights * x).sum(-1), (weights * y).sum(-1), features.mean(dim=(2, 3))], dim=-1)


def save_policy(policy: ClonePolicy, folder: str | os.PathLike[str]) -> None:
    """Writes `config.json` and `policy.pt`; the folder is made if it is missing."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    write_bytes(path / _WEIGHTS, buffer.getvalue())
    config = {"tasks": policy.tasks, "chunk_size": policy.chunk_size, "image_size": policy.image_size}
    has_offset = policy.offset is not None
    write_json(path / _CONFIG, {**config, "cameras": policy.cameras, "has_offset": has_offset})


def untrained_policy(
    tasks: Sequence[str], chunk_size: int, image_size: int, cameras: Sequence[str], *, seed: int
) -> ClonePolicy:
    """A policy whose weights follow from the seed alone, in every process; torch's random state is left as it was.

    Raises:
        ConfigError: As `ClonePolicy`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClonePolicy(tasks, chunk_size, image_size, cameras)


def load_policy(folder: str | os.PathLike[str]) -> ClonePolicy:
    """Reads what `save_policy` wrote; on the CPU.

    Raises:
        ConfigError: The folder holds no such policy.
    """
    path = Path(folder)
    try:
        policy = ClonePolicy(**json.loads((path / _CONFIG).read_text(encoding="utf-8")))
        weights = torch.load(path / _WEIGHTS, map_location="cpu", weights_only=True)
    except (OSError, ValueError, TypeError, RuntimeError) as e:
        raise ConfigError(f"Expected a policy's {_CONFIG} and {_WEIGHTS} in {path}: {e}") from e
    load_weights(policy, weights, path)
    return policy


def load_weights(policy: ClonePolicy, weights: Mapping[str, Tensor], where: object) -> None:
    """Gives a policy the weights of its `state_dict`.

    Args:
        policy: Changed in place.
        weights: Of one like it.
        where: Where they are from, for the message.

    Raises:
        ConfigError: They are another policy's, or older than `feature_mean`.
    """
    if "mean.weight" in weights and "feature_mean" not in weights:
        raise ConfigError(
            f"Expected feature_mean, the mean of the policy's features, among the weights in {where}, got weights "
            "saved before policies kept it. Clone again, or add it with the same vlac-gym clone command and --resume; "
            "begin anew, in a new folder, what was trained from there."
        )
    try:
        policy.load_state_dict(weights)
    except (RuntimeError, TypeError) as e:
        raise ConfigError(f"Expected weights of the same policy in {where}: {e}") from e


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU()
