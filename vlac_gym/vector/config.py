"""How a `RolloutVectorEnv` runs its envs: `VectorConfig`, and its keyword form `VectorOptions`."""

__all__ = ["VectorConfig", "VectorOptions", "split_options"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from gymnasium.vector import AutoresetMode

from vlac_gym.checks import check_choice
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.vector.executor import ExecutorFactory
from vlac_gym.vector.reset_commands import EpisodeOptions


class VectorOptions(TypedDict, total=False):
    """Keyword arguments of `RolloutVectorEnv`; see `VectorConfig`."""

    mode: Literal["async", "sync"] | ExecutorFactory
    autoreset_mode: AutoresetMode | str
    group_size: int
    envs_per_worker: int
    context: Literal["spawn", "forkserver"]
    start_timeout_s: float
    step_timeout_s: float
    max_restarts: int
    render_devices: Sequence[int] | None
    pin_workers: bool
    worker_niceness: int
    episode_options: EpisodeOptions | None
    copy: bool


@dataclass(frozen=True, kw_only=True)
class VectorConfig:
    """How a `RolloutVectorEnv` runs its envs, checked; described there.

    Raises:
        ConfigError: An option can't be that.
    """

    mode: Literal["async", "sync"] | ExecutorFactory = "async"
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP
    group_size: int = 1
    envs_per_worker: int = 1
    context: Literal["spawn", "forkserver"] = "spawn"
    start_timeout_s: float = 600.0
    step_timeout_s: float = 120.0
    max_restarts: int = 3
    render_devices: Sequence[int] | None = None
    pin_workers: bool = False
    worker_niceness: int = 0
    episode_options: EpisodeOptions | None = None
    copy: bool = True

    def __post_init__(self) -> None:
        for name, low in (("envs_per_worker", 1), ("max_restarts", 0), ("worker_niceness", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"Expected {name} >= {low}, got {getattr(self, name)}.")
        for name in ("start_timeout_s", "step_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected {name} above 0, got {getattr(self, name)}.")
        if not callable(self.mode):
            check_choice("mode", self.mode, ("async", "sync"))
        check_choice("context", self.context, ("spawn", "forkserver"))
        if self.mode != "async" and self.render_devices is not None:
            raise ConfigError(
                "Expected render_devices with mode='async' only: elsewhere set MUJOCO_EGL_DEVICE_ID."
            )
        for name in ("pin_workers", "worker_niceness"):
            if self.mode != "async" and getattr(self, name):
                raise ConfigError(
                    f"Expected {name} with mode='async' only: there are no worker processes here."
                )
        try:
            AutoresetMode(self.autoreset_mode)
        except ValueError as e:
            known = [mode.value for mode in AutoresetMode]
            raise unknown_name("autoreset mode", str(self.autoreset_mode), known) from e


def split_options(options: Mapping[str, Any]) -> tuple[VectorOptions, dict[str, Any]]:
    """Those of the vector env, and the others."""
    names = {field.name for field in fields(VectorConfig)}
    own = {name: value for name, value in options.items() if name in names}
    return VectorOptions(**own), {k: v for k, v in options.items() if k not in names}  # type: ignore[typeddict-item]
