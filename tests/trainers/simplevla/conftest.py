"""SimpleVLA-RL's own rollout, worker and rewards around our envs, from a checkout named by SIMPLEVLA_PATH."""

import ctypes
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

CHECKOUT = os.environ.get("SIMPLEVLA_PATH")


@pytest.fixture
def write_settings(tmp_path, monkeypatch, critic) -> Callable[..., None]:
    """Names a settings file with 10 steps of LIBERO in chunks of 4, judged by the critic server."""

    def write(*, done_interval: int = 1, **env: Any) -> None:
        given = {
            "suite": "libero_spatial",
            "cameras": ["agentview", "wrist"],
            "image_size": 64,
            "chunk": 4,
            "max_episode_steps": 10,
        }
        block = {
            "env": given | env,
            "critic": {"spec": critic.url},
            "rule": {"min_steps": 6, "value_stride": 2, "done_interval": done_interval},
        }
        file = tmp_path / "settings.json"
        file.write_text(json.dumps({"vlac_gym": block}))
        monkeypatch.setenv("VLAC_GYM_SETTINGS", str(file))

    return write


@pytest.fixture
def checkout(monkeypatch) -> str:
    """The checkout's folder, whose `verl` is the one that imports."""
    # The model's constants are read from it when they are first imported.
    monkeypatch.setenv("ROBOT_PLATFORM", "LIBERO")
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
        _load_mesa_before_tensorflow()
    import torch  # noqa: F401 (looks for tensorflow while it is imported)
    import transformers  # noqa: F401 (likewise)

    if importlib.util.find_spec("tensorflow") is None:
        # Its name is imported by the rollout module; only the picture's resizing calls it.
        _stand_in("tensorflow")
    return str(CHECKOUT)


@pytest.fixture
def flash_attn(checkout) -> None:
    """Four names that the actors import from a package of CUDA kernels; the robot's actor calls none of them."""
    if importlib.util.find_spec("flash_attn") is None:
        _stand_in("flash_attn")
        names = ("pad_input", "unpad_input", "rearrange", "index_first_axis")
        _stand_in("flash_attn.bert_padding", **dict.fromkeys(names))


def _load_mesa_before_tensorflow() -> None:
    """Both bring an LLVM; a software renderer that is loaded second crashes in its first picture."""
    for driver in (
        *Path("/usr/lib").glob("*/dri/swrast_dri.so"),
        *Path("/usr/lib").glob("*/libgallium-*.so"),
    ):
        ctypes.CDLL(str(driver), os.RTLD_NOW)


def _stand_in(name: str, **attributes: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__dict__.update(attributes)
    sys.modules[name] = module


@pytest.fixture
def rob_rollout(checkout, write_settings) -> Any:
    """The trainer's rollout module, with this package installed by the trainer's own `external_lib` hook."""
    write_settings()
    from verl.utils.import_utils import import_external_libs
    from verl.workers.rollout import rob_rollout

    assert rob_rollout.__file__.startswith(checkout)
    import_external_libs("verl_env_adapter.simplevla.plugin")
    return rob_rollout


@pytest.fixture
def rollout(rob_rollout) -> Callable[[], Any]:
    """The trainer's `RobHFRollout` with a policy that pushes down and opens the gripper in place of the model."""
    import torch
    from omegaconf import OmegaConf

    class Rollout(rob_rollout.RobHFRollout):
        def __init__(self) -> None:
            self.config = OmegaConf.create(
                {
                    "task_suite_name": "libero_spatial",
                    "action_chunks_len": 4,
                    "micro_batch_size": 2,
                    "val_micro_batch_size": 2,
                    "use_proprio": False,
                    "experiment_name": "vlac-gym-test",
                    "num_images_in_input": 2,
                }
            )
            self.module = SimpleNamespace(eval=lambda: None, train=lambda: None)
            self.max_steps = {"libero_spatial": 12}
            self.seen: list[Any] = []

        def _obs_to_input(self, obs: Any, is_robotwin: bool = False) -> Any:
            self.seen.append(obs)
            return obs

        def process_input(self, inputs: Any, task_descriptions: Any) -> dict[str, Any]:
            self.task_descriptions = task_descriptions
            return {"count": len(inputs)}

        def _generate_one_step(self, prompts: dict[str, Any]) -> dict[str, Any]:
            count = prompts["count"]
            actions = torch.zeros(count, 4, 7)
            actions[..., 2], actions[..., 6] = 0.5, 1.0
            tokens = torch.zeros(count, 4 * 7, dtype=torch.int64)
            pixels = torch.zeros(count, 1)
            return {
                "action": actions.numpy(),
                "responses": tokens,
                "input_ids": tokens,
                "attention_mask": tokens,
                "pixel_values": pixels,
            }

    return Rollout
