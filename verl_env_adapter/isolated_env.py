"""Envs in processes of their own behind `EpisodeEnv`'s interface, for an `EnvPool`: `IsolatedEnv`."""

__all__ = ["IsolatedEnv"]

from typing import Any

from numpy.typing import NDArray

from verl_env_adapter.env_process import EnvProcess
from verl_env_adapter.episode_env import EnvReport, build_env
from verl_env_adapter.settings import AdapterSettings
from vlac_gym.types import Mode


class IsolatedEnv:
    """An `EnvProcess` that remembers its last report, and is replaced at the next reset if it died.

    Args:
        settings: The trainer's block.

    Raises:
        ConfigError: The settings do not fit the env.
    """

    def __init__(self, settings: AdapterSettings) -> None:
        # Built here, and never started, so that settings that do not fit fail now and in this process.
        env = build_env(settings, settings.critic.spec, "eval")
        self.action_size = int(env.action_space.shape[-1])  # type: ignore[index]
        env.close()
        self._settings = settings
        self._process: EnvProcess | None = None
        self._report: EnvReport | None = None

    @property
    def report(self) -> EnvReport | None:
        """The last report; None before the first reset and after a lost episode."""
        return self._report

    def reset(self, *, mode: Mode, **start: int | None) -> EnvReport:
        """See `EpisodeEnv.reset`."""
        if self._process is None or not self._process.is_alive:
            self._process = EnvProcess(self._settings)
        self._report = None
        self._report = self._process.reset(mode=mode, **start)
        return self._report

    def step_chunk(self, actions: NDArray[Any]) -> EnvReport:
        """See `EpisodeEnv.step_chunk`; the process must have been reset."""
        assert self._process is not None
        self._report = None
        self._report = self._process.step_chunk(actions)
        return self._report

    def close(self) -> None:
        """Ends the process; safe to call twice."""
        if self._process is not None:
            self._process.close()
