"""Where a search plays: `SearchEnvs`; LIBERO in worker processes (`libero_envs`), a GPU's worlds (`scene_envs`)."""

__all__ = ["SearchEnvs", "libero_envs", "scene_envs"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vlac_gym.envs.libero.env import LiberoEnv
from vlac_gym.envs.libero.spaces import checked_cameras, whole_number
from vlac_gym.errors import ConfigError
from vlac_gym.rollout import EpisodeStart
from vlac_gym.vector import RolloutVectorEnv
from vlac_gym.vector.executor import EnvFactory
from vlac_gym.vector.warp_executor import warp_envs

Task = tuple[str, int, Sequence[int]]
"""Suite, task id and initial states."""


@dataclass(frozen=True, kw_only=True)
class SearchEnvs:
    """Envs, and the starts that are played in them.

    Attributes:
        fns: Makes each env, whose `terminated` says that the goal holds at this very step, as LIBERO's and the worlds'
            does.
        mode: What runs them: `RolloutVectorEnv`'s mode.
        starts: Where episodes begin, in turn; the search sets their seeds.
        in_lockstep: A step of one env costs as much as one of all, so that none should go ahead.
    """

    fns: Sequence[EnvFactory]
    mode: Any
    starts: Sequence[EpisodeStart]
    in_lockstep: bool = False

    def make(self) -> RolloutVectorEnv:
        """The envs, for an `AsyncRollout`."""
        return RolloutVectorEnv(list(self.fns), mode=self.mode, autoreset_mode="Disabled")


def libero_envs(
    tasks: Sequence[Task], num_envs: int, *, cameras: Sequence[str], image_size: int, step_limit: int
) -> SearchEnvs:
    """LIBERO's own envs; of more than one, each has its own process. An env plays all tasks of one suite.

    Args:
        tasks: Suite, task id and initial states of each.
        num_envs: At least as many as there are suites.
        cameras: Of the observation.
        image_size: Side of the pictures in pixels.
        step_limit: Env steps of an episode.

    Raises:
        ConfigError: There are fewer envs than suites, or no such cameras or pictures.
    """
    cameras, image_size = checked_cameras(cameras), whole_number("image_size", image_size, 16, 2048)
    suites = list(dict.fromkeys(suite for suite, _, _ in tasks))
    if num_envs < len(suites):
        raise ConfigError(
            f"Expected num_envs of {len(suites)} or more, one for each of {', '.join(suites)}, got {num_envs}."
        )
    firsts = {suite: next(task for name, task, _ in tasks if name == suite) for suite in suites}
    options: dict[str, Any] = {"cameras": cameras, "image_size": image_size, "max_episode_steps": step_limit}
    fns: list[EnvFactory] = [
        partial(LiberoEnv, suite, firsts[suite], **options)
        for suite in (suites[i % len(suites)] for i in range(num_envs))
    ]
    starts = [
        EpisodeStart(
            0,
            {"init_state_id": state, "task_id": task},
            range(suites.index(suite), num_envs, len(suites)),
        )
        for suite, task, state in _in_turn(tasks)
    ]
    return SearchEnvs(fns=fns, mode="sync" if num_envs == 1 else "async", starts=starts)


def scene_envs(
    scenes: Path,
    tasks: Sequence[Task],
    num_envs: int,
    *,
    cameras: Sequence[str],
    image_size: int,
    step_limit: int,
    device: str,
) -> SearchEnvs:
    """Worlds of mujoco-warp, whose pictures stay on their device as torch tensors; as many of each task.

    Args:
        scenes: Where `vlac-gym export-scenes` wrote the tasks.
        tasks: Suite, task id and initial states of each.
        num_envs: A multiple of the number of tasks.
        cameras: Of the observation.
        image_size: Side of the pictures in pixels.
        step_limit: Env steps of an episode.
        device: Warp's name of the device.

    Raises:
        ConfigError: Another number of envs, or a task was not exported.
    """
    share, rest = divmod(num_envs, len(tasks))
    if not share or rest:
        raise ConfigError(
            f"Expected num_envs as a multiple of {len(tasks)}, as many worlds of each task, got {num_envs}."
        )
    names = [(suite, task) for suite, task, _ in tasks]
    fns, mode = warp_envs(
        scenes, [name for name in names for _ in range(share)],
        cameras=cameras, image_size=image_size, max_episode_steps=step_limit, device=device, pictures="torch",
    )  # fmt: skip
    own = {name: range(i * share, (i + 1) * share) for i, name in enumerate(names)}
    starts = [
        EpisodeStart(0, {"init_state_id": state}, own[suite, task]) for suite, task, state in _in_turn(tasks)
    ]
    return SearchEnvs(fns=fns, mode=mode, starts=starts, in_lockstep=True)


def _in_turn(tasks: Sequence[Task]) -> list[tuple[str, int, int]]:
    """Suite, task id and initial state: the first state of each task, then the second, …"""
    longest = max(len(states) for _, _, states in tasks)
    return [
        (suite, task, states[i]) for i in range(longest) for suite, task, states in tasks if i < len(states)
    ]
