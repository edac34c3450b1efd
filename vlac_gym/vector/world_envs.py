"""Envs as worlds that move together: `WorldEnvs`, `Worlds`."""

__all__ = ["WorldEnvs", "Worlds"]

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from vlac_gym.envs.libero.tasks import CAMERAS
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.vector.commands import (
    CallCommand,
    CallReply,
    Command,
    Failure,
    Lost,
    Reply,
    ResetCommand,
    ResetReply,
    StepCommand,
    StepReply,
)
from vlac_gym.vector.observations import copy_row, stack_rows

logger = logging.getLogger(__name__)

_OPTIONS = ("task_id", "init_state_id")


class Worlds(Protocol):
    """What simulates envs that move together; see `vlac_gym.envs.warp.worlds.WarpWorlds`.

    `step` may return before the step is done; all that reads waits for it. Pictures are uint8 (N, H, W, 3), arrays or
    torch tensors.
    """

    num_worlds: int

    def start(self, rows: NDArray[np.int32]) -> None: ...

    def step(self, actions: NDArray[Any], active: NDArray[np.bool_]) -> None: ...

    def success(self) -> NDArray[np.bool_]: ...

    def failed(self) -> NDArray[np.bool_]: ...

    def crowded(self) -> NDArray[np.bool_]: ...

    def proprioception(self) -> NDArray[np.float32]: ...

    def pictures(self, cameras: Sequence[str]) -> list[Any]: ...


@dataclass
class _Episode:
    """An env's episode.

    Attributes:
        init_state_id: Its start; -1 before the first.
        elapsed_steps: Env steps since.
        success: Whether the goal holds.
        is_running: False before the first reset and after its world failed.
    """

    init_state_id: int = -1
    elapsed_steps: int = 0
    success: bool = False
    is_running: bool = False


@dataclass
class _Progress:
    """What a step command has come to."""

    command: StepCommand
    rewards: list[float] = field(default_factory=list)
    successes: list[bool | None] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    is_lost: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it has no action left, or stops early."""
        command = self.command
        stops = (command.stops_at_terminated and self.terminated) or (
            command.stops_at_truncated and self.truncated
        )
        return bool(stops) or self.is_lost or len(self.rewards) >= len(command.actions)


class WorldEnvs:
    """The envs of worlds that move together, by their row among them.

    Args:
        tasks: Each row's `SceneFiles.task`, with its `num_starts`.
        worlds: One per env.
        cameras: Of the observation.
        step_limit: Env steps at which an episode is truncated; None for the task's own.
        observed: Takes what was seen: called with a key of the observation, rows, and their values (rows, …).
    """

    def __init__(
        self,
        tasks: Sequence[Mapping[str, Any]],
        worlds: Worlds,
        cameras: Sequence[str],
        step_limit: int | None,
        observed: Callable[[str, NDArray[np.intp], Any], None],
    ) -> None:
        self._tasks = tuple(tasks)
        self._limits = [task["max_episode_steps"] if step_limit is None else step_limit for task in tasks]
        self._worlds, self._cameras, self._observed = worlds, tuple(cameras), observed
        self._episodes = [_Episode() for _ in range(worlds.num_worlds)]
        self._starts: dict[tuple[str, int, int], dict[str, Any]] = {}  # what is seen of tasks' initial states
        self._drawn: dict[str, Any] = {}  # pictures of the present states
        self._has_warned = False
        self._rngs = [seeding.np_random(None)[0] for _ in range(worlds.num_worlds)]
        self._seeds = [-1] * worlds.num_worlds

    def run(self, commands: Mapping[int, Command]) -> Generator[None, None, dict[int, Reply]]:
        """Carries out one command per row, and returns the replies by row; yields while an env step is under way."""
        replies: dict[int, Reply] = {}
        steps = {row: command for row, command in commands.items() if isinstance(command, StepCommand)}
        resets = {row: command for row, command in commands.items() if isinstance(command, ResetCommand)}
        if resets:
            replies |= self._reset(resets)
        if steps:
            replies |= yield from self._step(steps)
        for row, command in commands.items():
            if isinstance(command, CallCommand):
                replies[row] = self._call(row, command)
        return replies

    def _reset(self, commands: Mapping[int, ResetCommand]) -> dict[int, Reply]:
        replies: dict[int, Reply] = {}
        rows = np.full(self._worlds.num_worlds, -1, np.int32)
        for row, command in commands.items():
            try:
                rows[row] = self._chosen_start(row, command)
            except ConfigError as e:
                replies[row] = Failure.of(e)
        chosen = np.flatnonzero(rows >= 0)
        if chosen.size:
            self._worlds.start(rows)
            self._drawn = {}
            for row in chosen.tolist():
                self._episodes[row] = _Episode(int(rows[row]), is_running=True)
            self._look_at_starts(chosen)
        for row in chosen.tolist():
            replies[row] = ResetReply(self._info(row))
        return replies

    def _chosen_start(self, row: int, command: ResetCommand) -> int:
        options = command.options or {}
        for name in options:
            if name not in _OPTIONS:
                raise unknown_name("reset option", str(name), _OPTIONS)
        if command.seed is not None:
            self._rngs[row], self._seeds[row] = seeding.np_random(command.seed)
        task = self._tasks[row]
        if options.get("task_id", task["task_id"]) != task["task_id"]:
            raise ConfigError(
                f"Expected task_id {task['task_id']}, got {options['task_id']!r}: a world keeps its task. "
                "Leave it out, or make an env of that task."
            )
        count = task["num_starts"]
        chosen = options.get("init_state_id")
        if chosen is None:
            return int(self._rngs[row].integers(count))
        if not isinstance(chosen, int | np.integer) or not 0 <= chosen < count:
            raise ConfigError(
                f"Expected an initial state of 0 to {count - 1} of {_name(task)}, got {chosen!r}. "
                "Export more starts of the task or choose another."
            )
        return int(chosen)

    def _step(self, commands: Mapping[int, StepCommand]) -> Generator[None, None, dict[int, Reply]]:
        under_way = {
            row: _Progress(command) for row, command in commands.items() if self._episodes[row].is_running
        }
        moving = dict(under_way)
        while moving := {row: progress for row, progress in moving.items() if not progress.is_over}:
            self._begin_step(moving)
            yield
            self._end_step(moving)
        self._warn_of_crowds()
        self._look_after(under_way)
        lost = Lost("its world's numbers stopped being finite, or it had no episode")
        return {
            row: self._reply(row, under_way[row]) if row in under_way and not under_way[row].is_lost else lost
            for row in commands
        }

    def _begin_step(self, moving: Mapping[int, _Progress]) -> None:
        """Begins one env step of the worlds whose commands are not over."""
        count = self._worlds.num_worlds
        actions, active = np.zeros((count, 7), np.float32), np.zeros(count, np.bool_)
        for row, progress in moving.items():
            actions[row] = progress.command.actions[len(progress.rewards)]
            active[row] = True
        self._worlds.step(actions, active)
        self._drawn = {}

    def _end_step(self, moving: Mapping[int, _Progress]) -> None:
        """Waits for it, and notes what came of it."""
        success, failed = self._worlds.success(), self._worlds.failed()
        for row, progress in moving.items():
            episode = self._episodes[row]
            if failed[row]:
                progress.is_lost, episode.is_running = True, False
                continue
            episode.elapsed_steps += 1
            episode.success = bool(success[row])
            progress.rewards.append(float(episode.success))
            progress.successes.append(episode.success)
            progress.terminated = episode.success
            progress.truncated = episode.elapsed_steps >= self._limits[row]

    def _warn_of_crowds(self) -> None:
        """Says once that objects may pass through each other."""
        if self._has_warned or not (crowded := self._worlds.crowded()).any():
            return
        self._has_warned = True
        tasks = dict.fromkeys(_name(self._tasks[row]) for row in np.flatnonzero(crowded))
        logger.warning(
            "More contacts or constraints than there is room for were dropped in %d of %d worlds, of %s: objects may "
            "pass through each other there. This is said once; docs/gpu_simulation.md has the room.",
            int(crowded.sum()),
            len(crowded),
            ", ".join(tasks),
        )

    def _look_after(self, under_way: Mapping[int, _Progress]) -> None:
        """Has the envs looked at: all of an observation, or one picture where no more is wanted."""
        kept = {row: progress for row, progress in under_way.items() if not progress.is_lost}
        by_key: dict[str | None, list[int]] = {}
        for row, progress in kept.items():
            is_cut = len(progress.rewards) < len(progress.command.actions)
            by_key.setdefault(None if is_cut else progress.command.key, []).append(row)
        if None in by_key:  # then everything is drawn anyway
            self._look(np.array(sorted(kept), np.intp), None)
            return
        for key, rows in by_key.items():
            self._look(np.array(sorted(rows), np.intp), key)

    def _look(self, rows: NDArray[np.intp], key: str | None) -> None:
        for each, values in self._seen(key).items():
            self._observed(each, rows, values if len(rows) == len(values) else values[rows])

    def _look_at_starts(self, rows: NDArray[np.intp]) -> None:
        """As `_look`, of worlds that were just started: a start that was seen before is not drawn again."""
        starts = [self._start_of(row) for row in rows.tolist()]
        unseen = {start: row for row, start in zip(rows, starts, strict=True) if start not in self._starts}
        if unseen:
            seen = self._seen(None)
            self._starts |= {start: copy_row(seen, row) for start, row in unseen.items()}
        for key, values in stack_rows([self._starts[start] for start in starts]).items():
            self._observed(key, rows, values)

    def _start_of(self, row: int) -> tuple[str, int, int]:
        task = self._tasks[row]
        return task["suite"], task["task_id"], self._episodes[row].init_state_id

    def _seen(self, key: str | None) -> dict[str, Any]:
        """The present observations of all worlds, or one picture: arrays (N, …), valid until the next step or start."""
        keys = [f"{camera}_image" for camera in self._cameras] if key is None else [key]
        if missing := [each for each in keys if each not in self._drawn]:
            names = [CAMERAS[each.removesuffix("_image")] for each in missing]
            self._drawn |= zip(missing, self._worlds.pictures(names), strict=True)
        seen = {each: self._drawn[each] for each in keys}
        return seen if key is not None else seen | {"state": self._worlds.proprioception()}

    def _reply(self, row: int, progress: _Progress) -> StepReply:
        rewards = np.array(progress.rewards, np.float64)
        info = self._info(row) if progress.rewards else {}
        return StepReply(rewards, tuple(progress.successes), progress.terminated, progress.truncated, info)

    def _info(self, row: int) -> dict[str, Any]:
        task, episode = self._tasks[row], self._episodes[row]
        return {
            "task": task["task"],
            "task_suite": task["suite"],
            "task_id": task["task_id"],
            "init_state_id": episode.init_state_id,
            "success": episode.success,
            "elapsed_steps": episode.elapsed_steps,
        }

    def _call(self, row: int, command: CallCommand) -> Reply:
        known: dict[str, Any] = {
            "max_episode_steps": self._limits[row],
            "np_random": self._rngs[row],
            "np_random_seed": self._seeds[row],
        }
        if command.name in known:
            return CallReply(known[command.name])
        if command.name == "set_wrapper_attr":
            return Failure.of(
                ConfigError(f"Expected no attribute to be set in worlds on a GPU, got {command.args[0]!r}.")
            )
        return Failure.of(unknown_name("attribute of an env on the GPU", command.name, tuple(known)))


def _name(task: Mapping[str, Any]) -> str:
    return f"{task['suite']} {task['task_id']}"
