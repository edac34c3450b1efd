"""verl-vla with a critic, without a fork: `VLACLiberoConfig`, named by hydra's ``_target_`` on the simulator's config.

    cluster:
      env:
        env_worker:
          modes: [train, eval]
          simulator:
            libero:
              _target_: verl_env_adapter.verl_vla.plugin.VLACLiberoConfig
              vlac_gym: {critic: {spec: "http://critic:8400"}, env: {suite: libero_spatial, chunk: 8}}

Importing this module is the installation: the controller imports it when hydra builds the config, and each env
worker when Ray unpickles it. From then on verl-vla's workers start `env.VLACLiberoEnv` in place of their own
`LiberoEnv`, and the stages of one worker overlap (`overlap`).

Proven against verl-vla 8a18e3f (v0.1.0, 2026-08-22) on verl 0.7.1. Works with every workflow that collects with
`TrainCluster`: ``vvla-train-sac`` (SAC, TD3-BC, CQL, DSRL), RECAP's collection, ``vvla-eval``. Beside what
`simulator` lists:

- a TD target bootstraps after truncation: ``truncate_as_terminal`` is true here unless the block says otherwise, so
  that the critic's value at the step limit is not counted twice;
- an episode that is cut because its critic failed travels as NaN, and none of its transitions is kept (`unjudged`);
- verl-vla replaces LIBERO's init-state loader when its own env module is imported; that module is never imported
  here, and if something imports it, LIBERO's loader is put back;
- settling after a reset keeps the gripper open (-1), where verl-vla's own env sends 0;
- ``action_execution.mode: async`` is refused: verl-vla reports every reward in it as zero;
- verl-vla's own ``vvla-train-ppo`` does not start at this commit; nothing here changes that.
"""

__all__ = ["VLACLiberoConfig", "install"]

from dataclasses import dataclass, field, fields
from typing import Any

from verl_env_adapter.common.import_hooks import after_import, replace_class
from verl_env_adapter.common.libero_loader import preserved_init_state_loader
from verl_env_adapter.common.policy_view import host_settings
from verl_env_adapter.common.settings import AdapterSettings, to_plain
from verl_env_adapter.common.sources import VERL_VLA
from verl_env_adapter.verl_vla.unjudged import leave_out
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs

with needs("verl_env_adapter.verl_vla.plugin", get=VERL_VLA):
    from verl_vla.envs.libero.config import LiberoSimulatorConfig

_HOST_FIELDS = {
    "suite": "task_suite_name",
    "tasks": "task_ids",
    "image_size": "camera_heights",
    "max_episode_steps": "max_episode_steps",
}

_WITHOUT_EFFECT = {
    "reset_warmup_steps": "vlac_gym.env.kwargs.settle_steps",
    "camera_depths": "pictures: there are no depths",
    "camera_names": "vlac_gym.env.cameras",
}


@dataclass
class VLACLiberoConfig(LiberoSimulatorConfig):  # type: ignore[misc]
    """verl-vla's LIBERO config with the settings block that all adapters share.

    The trainer's own keys (`task_suite_name`, `task_ids`, `camera_heights`, `max_episode_steps`) fill what the
    block's `env` does not say.

    Attributes:
        vlac_gym: See `verl_env_adapter.common.settings`.
    """

    vlac_gym: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vlac_gym", to_plain(self.vlac_gym))
        self._refuse_what_has_no_effect()
        self.settings()

    def settings(self) -> AdapterSettings:
        """The parsed block.

        Raises:
            ConfigError: It does not parse, or contradicts the trainer's own keys.
        """
        standard = _standard_values()
        host = {ours: (getattr(self, theirs), standard[theirs]) for ours, theirs in _HOST_FIELDS.items()}
        defaults = {"truncate_as_terminal": True, "env.cameras": ["agentview", "wrist"]}
        return host_settings(self.vlac_gym, host, defaults=defaults, where="simulator.libero")

    def _refuse_what_has_no_effect(self) -> None:
        standard = _standard_values()
        for theirs, instead in _WITHOUT_EFFECT.items():
            value = to_plain(getattr(self, theirs))
            if value != standard[theirs]:
                raise ConfigError(f"simulator.libero.{theirs}={value!r} has no effect here. Use {instead}.")
        if self.camera_widths != self.camera_heights:
            raise ConfigError(
                f"Expected square pictures, got camera_heights={self.camera_heights} and "
                f"camera_widths={self.camera_widths}."
            )


def _standard_values() -> dict[str, Any]:
    return {
        item.name: item.default_factory() if callable(item.default_factory) else item.default
        for item in fields(LiberoSimulatorConfig)
    }


def install() -> None:
    """Puts this package's classes in verl-vla's place in this process; safe to call twice."""
    replace_class(
        "verl_vla.envs.libero.libero_env", "LiberoEnv", _env_class, around=preserved_init_state_loader
    )
    after_import("verl_vla.train_cluster.cluster", _overlap_stages)
    after_import("verl_vla.trainer.sac.sac_ray_trainer", leave_out)


def _env_class() -> type:
    from verl_env_adapter.verl_vla.env import VLACLiberoEnv

    return VLACLiberoEnv


def _overlap_stages(module: Any) -> None:
    from verl_env_adapter.verl_vla.overlap import overlap_stages

    overlap_stages(module)


install()
