"""The env's part of the settings: `EnvSettings`."""

__all__ = ["EnvSettings"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vlac_gym import LIBERO_ENV_ID
from vlac_gym.checks import check_choice, check_int
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.specs.ids import parse_ids

_ANY = 1_000_000  # larger than any initial state's number


@dataclass(frozen=True, kw_only=True)
class EnvSettings:
    """The environment.

    Attributes:
        id: A Gymnasium id, or ``module:id`` to import its module first.
        suite: LIBERO's task suite; without effect for other ids.
        backend: What simulates LIBERO: `mujoco` in processes, or `warp`, all envs as worlds of one GPU in the process
            that steps them; see docs/gpu_simulation.md. A world keeps its task: only trainers whose env chooses its
            starts (RLinf) play several then, each in as many envs.
        scenes: For `warp`, the folder that ``vlac-gym export-scenes`` wrote. LIBERO itself is not needed then.
        tasks: Task ids of the suite, or None for all of them.
        init_states: Initial states that are played, ``{"train": "0-39", "eval": "40-49"}``, so that an evaluation
            starts where training never did; a phase that is missing, or None, plays all. Only for trainers whose env
            chooses its starts (RLinf).
        cameras: Pictures in the observation; the critic needs `agentview` at least to exist, not to be here.
        image_size: Side of the pictures in pixels.
        chunk: Longest action chunk, in env steps.
        max_episode_steps: Step limit, or None for the suite's (the env's) own.
        frame: Where the critic's frame is; see `vlac_gym.stepping.frame_source.FrameSource`; None finds it.
        on_sim_terminated: See `VLACRewardWrapper`; `truncate` for simulators that can't be stepped on.
        kwargs: More keyword arguments of the env; for worlds `device` alone, warp's name of it (``cuda:0``).
    """

    id: str = LIBERO_ENV_ID
    suite: str = "libero_spatial"
    backend: Literal["mujoco", "warp"] = "mujoco"
    scenes: str | None = None
    tasks: tuple[int, ...] | None = None
    init_states: Mapping[str, str] | None = None
    cameras: tuple[str, ...] = ("agentview",)
    image_size: int = 256
    chunk: int = 8
    max_episode_steps: int | None = None
    frame: str | None = None
    on_sim_terminated: Literal["ignore", "truncate"] = "ignore"
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_int("env.chunk", self.chunk, minimum=1)
        check_int("env.image_size", self.image_size, minimum=1)
        if self.max_episode_steps is not None:
            check_int("env.max_episode_steps", self.max_episode_steps, minimum=1)
        check_choice("env.on_sim_terminated", self.on_sim_terminated, ("ignore", "truncate"))
        check_choice("env.backend", self.backend, ("mujoco", "warp"))
        if self.tasks is not None:
            if not self.tasks:
                raise ConfigError("Expected env.tasks as a list of task ids or null, got an empty list.")
            for task_id in self.tasks:
                check_int("env.tasks[…]", task_id, minimum=0)
        self._check_init_states()
        self._check_worlds()
        if not self.cameras or not all(isinstance(camera, str) for camera in self.cameras):
            raise ConfigError(f"Expected env.cameras as a list of names, got {list(self.cameras)!r}.")

    @property
    def is_libero(self) -> bool:
        """Does the id mean this package's LIBERO?"""
        return self.id == LIBERO_ENV_ID

    def tasks_of_worlds(self, num_envs: int) -> list[int]:
        """The task of each of `num_envs` worlds (``backend: warp``): neighbours share one, as many for each.

        Raises:
            ConfigError: They cannot be shared out evenly.
        """
        tasks = self.tasks or ()
        if not tasks or num_envs % len(tasks):
            raise ConfigError(
                f"Expected a multiple of the {len(tasks)} env.tasks {list(tasks)} as number of worlds, each of which "
                f"keeps its task, got {num_envs}."
            )
        return [task for task in tasks for _ in range(num_envs // len(tasks))]

    def init_states_in(self, phase: Literal["train", "eval"]) -> frozenset[int] | None:
        """Numbers of the initial states that a phase of the trainer plays; None for all."""
        text = (self.init_states or {}).get(phase, "all")
        return None if text == "all" else frozenset(parse_ids(text, _ANY, "env.init_states"))

    def _check_worlds(self) -> None:
        if (self.backend == "warp") != (self.scenes is not None):
            raise ConfigError(
                f"Expected env.scenes with env.backend: warp and only there, got {self.backend!r} and {self.scenes!r}."
            )
        if self.scenes is None:
            return
        if not self.is_libero:
            raise ConfigError(
                f"Expected LIBERO with env.backend: warp, got env.id {self.id!r}. Drop one of them."
            )
        if self.tasks is None or len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(
                f"Expected different env.tasks with env.backend: warp, got {self.tasks and list(self.tasks)}: a world "
                "keeps its task. Name those that were exported."
            )
        for name in self.kwargs:
            if name != "device":
                raise unknown_name("key in env.kwargs with env.backend: warp", str(name), ("device",))

    def _check_init_states(self) -> None:
        if self.init_states is None:
            return
        if not isinstance(self.init_states, Mapping):
            raise ConfigError(
                f"Expected env.init_states as {{train: 0-39, eval: 40-49}} or null, got {self.init_states!r}."
            )
        for phase, text in self.init_states.items():
            check_choice("key in env.init_states", phase, ("train", "eval"))
            if not isinstance(text, str):
                raise ConfigError(f"Expected env.init_states.{phase} as a text such as '0-39', got {text!r}.")
            parse_ids("0" if text == "all" else text, _ANY, f"env.init_states.{phase}")
