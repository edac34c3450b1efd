"""A policy of about a million parameters for RLinf: `ChunkPolicy`, registered as ``vlac_chunk_policy``.

It is small enough to be trained from a few demonstrations, and by RLinf on any machine; a vision-language-action model
takes its place by another `model_type`. What RLinf calls is `predict_action_batch` in the rollout and `default_forward`
in the update.
"""

__all__ = ["ChunkPolicy", "PolicyConfig", "build"]

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from verl_env_adapter.common.sources import RLINF
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

with needs("The RLinf adapter", get=RLINF):
    import torch
    from rlinf.models.embodiment.base_policy import BasePolicy
    from torch import nn
    from torch.distributions import Normal
    from torch.nn import functional

_TASK_SIZE = 16
_CHANNELS = 64


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Keys of ``actor.model`` that the policy reads.

    Attributes:
        num_action_chunks: T, steps of a chunk.
        action_dim: A, size of an action.
        state_dim: Size of the state.
        image_size: Side in pixels to which pictures are averaged down, a multiple of 8; what the batch stores.
        cameras: 1 for `main_images`, 2 for `wrist_images` beside it.
        hidden_size: Width of the two hidden layers.
        log_std: Logarithm of the actions' standard deviation, the same everywhere and not trained.
        add_value_head: PPO's value head, on features that its loss does not train; a value for each step of the chunk.
        model_path: File of weights to start from, the `full_weights.pt` of a training run; empty for none.
    """

    num_action_chunks: int = 8
    action_dim: int = 7
    state_dim: int = 8
    image_size: int = 128
    cameras: int = 1
    hidden_size: int = 256
    log_std: float = -2.5
    add_value_head: bool = True
    model_path: str = ""

    def __post_init__(self) -> None:
        if self.image_size % 8 or self.image_size < 8:
            raise ConfigError(f"Expected image_size as a multiple of 8, got {self.image_size!r}.")
        if self.cameras not in (1, 2):
            raise ConfigError(f"Expected cameras as 1 or 2, got {self.cameras!r}.")


class Encoder(nn.Module):
    """Pictures uint8 (N, S, S, 3) to the mean positions of 64 learned features, float32 (N, 128), in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 32, _CHANNELS, _CHANNELS)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.GroupNorm(8, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """See the class."""
        heat = self.layers(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        side = heat.shape[-1]
        weights = functional.softmax(heat.flatten(2), dim=-1).view(*heat.shape[:2], side, side)
        axis = torch.linspace(-1.0, 1.0, side, device=heat.device)
        return torch.cat([(weights.sum(2) * axis).sum(-1), (weights.sum(3) * axis).sum(-1)], dim=-1)


class ChunkPolicy(nn.Module, BasePolicy):  # type: ignore[misc]
    """A Gaussian over the next T actions, from pictures, state and task text.

    A task text enters as a fixed vector drawn from its digest: policies know tasks apart, and nothing about new ones.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleList(Encoder() for _ in range(config.cameras))
        width, size = config.hidden_size, 2 * _CHANNELS * config.cameras + config.state_dim + _TASK_SIZE
        self.trunk = nn.Sequential(
            nn.Linear(size, width), nn.LayerNorm(width), nn.SiLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(),
        )  # fmt: skip
        self.mean = nn.Linear(width, config.num_action_chunks * config.action_dim)
        if config.add_value_head:
            # RLinf knows the value's parameters, and asks for bootstrap values, by this name.
            self.value_head = nn.Sequential(
                nn.Linear(width, width), nn.SiLU(), nn.Linear(width, config.num_action_chunks)
            )

    def predict_action_batch(
        self, env_obs: Mapping[str, Any], do_sample: bool = True, **_: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Acts; the mean unless `do_sample`.

        Args:
            env_obs: `RolloutEnv`'s observation of N envs.
            do_sample: RLinf's ``sampling_params.do_sample`` in training; in evaluation, ``temperature_eval > 0``.

        Returns:
            Actions float32 (N, T, A) in [-1, 1], and what RLinf keeps: `prev_logprobs` (N, T, A), `prev_values` (N, T),
            and `forward_inputs` for `default_forward`.
        """
        inputs = self._inputs(env_obs)
        mean, features = self._act(inputs)
        actions = Normal(mean, self._std).sample() if do_sample else mean  # type: ignore[no-untyped-call]
        inputs["action"] = actions.flatten(1)
        return actions.clamp(-1.0, 1.0), {
            "prev_logprobs": self._log_probs(mean, actions),
            "prev_values": self._values(features),
            "forward_inputs": inputs,
        }

    def default_forward(
        self,
        forward_inputs: Mapping[str, torch.Tensor],
        compute_logprobs: bool = True,
        compute_entropy: bool = True,
        compute_values: bool = True,
        **_: Any,
    ) -> dict[str, torch.Tensor]:
        """Log-probabilities (N, T, A), entropy (N, T, A) and values (N, T) of recorded actions under this policy."""
        mean, features = self._act(forward_inputs)
        result = {}
        if compute_logprobs:
            result["logprobs"] = self._log_probs(mean, forward_inputs["action"].view_as(mean))
        if compute_entropy:
            entropy = Normal(mean, self._std).entropy()  # type: ignore[no-untyped-call]
            result["entropy"] = entropy.expand_as(mean)
        if compute_values:
            result["values"] = self._values(features)
        return result

    @property
    def _std(self) -> float:
        return math.exp(self.config.log_std)

    def _act(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        names = ("main_images", "wrist_images")
        seen = [encode(inputs[name]) for encode, name in zip(self.encoders, names, strict=False)]
        features = self.trunk(torch.cat([*seen, inputs["states"], inputs["task"]], dim=-1))
        mean = self.mean(features).unflatten(-1, (self.config.num_action_chunks, self.config.action_dim))
        return mean, features

    def _values(self, features: torch.Tensor) -> torch.Tensor:
        if not self.config.add_value_head:
            return torch.zeros(len(features), self.config.num_action_chunks, device=features.device)
        values: torch.Tensor = self.value_head(features.detach())
        return values

    def _log_probs(self, mean: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        log_probs: torch.Tensor = Normal(mean, self._std).log_prob(actions)  # type: ignore[no-untyped-call]
        return log_probs

    def _inputs(self, env_obs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        device = self.mean.weight.device
        names = ("main_images", "wrist_images")[: self.config.cameras]
        inputs = {name: _shrunk(env_obs[name].to(device), self.config.image_size) for name in names}
        inputs["states"] = env_obs["states"].float().to(device)
        inputs["task"] = torch.stack([task_vector(task) for task in env_obs["task_descriptions"]]).to(device)
        return inputs


def task_vector(task: str) -> torch.Tensor:
    """The fixed vector of a task text, float32 (16,), uniform in [-1, 1)."""
    digest = hashlib.blake2b(task.encode(), digest_size=_TASK_SIZE).digest()
    return torch.tensor([byte / 128.0 - 1.0 for byte in digest])


def build(cfg: Any, torch_dtype: Any = None) -> ChunkPolicy:
    """What RLinf calls for ``model_type: vlac_chunk_policy``, with ``actor.model``.

    Raises:
        ConfigError: A value does not fit, or `model_path` is no file of this policy's weights.
    """
    known = {field.name for field in fields(PolicyConfig)}
    config = PolicyConfig(**{key: cfg[key] for key in known if cfg.get(key) is not None})
    policy = ChunkPolicy(config)
    if config.model_path:
        try:
            policy.load_state_dict(torch.load(config.model_path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError) as e:
            raise ConfigError(f"Can't start from model_path {config.model_path!r}: {e}") from e
    return policy


def _shrunk(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 (N, H, W, 3) averaged down to (N, side, side, 3); smaller pictures are enlarged."""
    if pictures.shape[1:3] == (side, side):
        return pictures
    planes = pictures.permute(0, 3, 1, 2).float()
    planes = functional.interpolate(planes, (side, side), mode="area")
    return planes.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
