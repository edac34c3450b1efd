"""A policy that lerobot trained and saved, in this process: `LerobotModel`, `from_spec`."""

__all__ = ["LerobotModel", "from_spec"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.hub import find_model
from vlac_gym.policies.preset_policy import PresetPolicy, preset_named
from vlac_gym.policies.presets import get_preset
from vlac_gym.specs.options import read_argument

_GET_LEROBOT = (
    'Run: pip install "lerobot>=0.4", in an environment of its own: it pins other versions of PyTorch'
)
_PRESET = "lerobot"


class LerobotModel:
    """A saved lerobot policy with its own processors, which normalise what it sees and unnormalise what it says.

    Args:
        path: Folder that `PreTrainedPolicy.save_pretrained` wrote, with its processors, or its id on the hub
            (`find_model`).
        device: PyTorch's name of the device.

    Attributes:
        chunk_steps: The policy's `n_action_steps`, 1 if it has none.

    Raises:
        ConfigError: No such folder; or a policy that looks at several past frames, or at pictures that LIBERO has not.
        DependencyNotInstalled: lerobot, or what this policy needs of it, is missing.
    """

    def __init__(self, path: str, device: str = "cpu") -> None:
        path = str(find_model(path).folder)
        if not (Path(path) / "config.json").is_file():
            raise ConfigError(f"Expected a folder with a lerobot policy's config.json, got {path!r}.")
        with needs("A lerobot policy", get=_GET_LEROBOT):
            import lerobot.policies  # noqa: F401 (registers the kinds of policies)
            import torch
            from lerobot.configs.policies import PreTrainedConfig
            from lerobot.policies.factory import get_policy_class, make_pre_post_processors

            config = PreTrainedConfig.from_pretrained(path)
            kind = get_policy_class(config.type)
        _check(config, path)
        self.chunk_steps = int(getattr(config, "n_action_steps", 1))
        config.device = device
        self._torch = torch
        self._policy = kind.from_pretrained(path, config=config).to(device).eval()
        overrides = {"device_processor": {"device": device}}
        self._before, self._after = make_pre_post_processors(
            config, pretrained_path=path, preprocessor_overrides=overrides
        )

    def infer_batch(self, inputs: Sequence[dict[str, Any]]) -> Sequence[NDArray[np.float32]]:
        """All inputs in one forward pass; the first `chunk_steps` actions of each."""
        torch, preset = self._torch, get_preset(_PRESET)
        batch: dict[str, Any] = {preset.task: [element[preset.task] for element in inputs]}
        for name in preset.images:
            pictures = torch.from_numpy(np.stack([element[name] for element in inputs]))
            batch[name] = pictures.permute(0, 3, 1, 2).float() / 255
        batch[preset.state] = torch.from_numpy(np.stack([element[preset.state] for element in inputs]))
        with torch.inference_mode():
            chunks = self._policy.predict_action_chunk(self._before(batch))[:, : self.chunk_steps]
            steps = [self._after(chunks[:, step]).float().cpu() for step in range(chunks.shape[1])]
        return list(torch.stack(steps, dim=1).numpy())

    def close(self) -> None:
        """Nothing to do: the model goes with its last reference."""


def from_spec(argument: str) -> PresetPolicy:
    """Builds a policy from what follows `lerobot:`, as in `lerobot:PATH?device=cuda,chunk_steps=10`.

    Raises:
        ConfigError: No such policy, or an option that does not fit.
        DependencyNotInstalled: lerobot is missing.
    """
    kinds = {"device": str, "chunk_steps": int}
    path, options = read_argument(argument, kinds, "lerobot:PATH")
    given = options.pop("chunk_steps", None)
    preset = preset_named(_PRESET, given)
    model = LerobotModel(path, **options)
    return PresetPolicy(model, preset if given is not None else preset_named(_PRESET, model.chunk_steps))


def _check(config: Any, path: str) -> None:
    if getattr(config, "n_obs_steps", 1) != 1:
        raise ConfigError(
            f"Expected a lerobot policy that looks at one frame, got {path} of type {config.type} with n_obs_steps="
            f"{config.n_obs_steps}."
        )
    known = get_preset(_PRESET).images
    strange = sorted(set(config.image_features) - set(known))
    if strange:
        raise ConfigError(
            f"Expected a lerobot policy with the pictures {', '.join(known)}, as the LIBERO data sets have them, got "
            f"{path} with {', '.join(strange)}."
        )
