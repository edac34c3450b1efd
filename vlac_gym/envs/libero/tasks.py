"""LIBERO's suites and tasks as data: `list_suites`, `list_tasks`, `get_task`, `LiberoTask`, `CAMERAS`.

Nothing here imports LIBERO, robosuite or MuJoCo: suites are read from the installed files.
"""

__all__ = [
    "CAMERAS",
    "STANDARD_SUITES",
    "LiberoTask",
    "check_init_state",
    "get_task",
    "list_suites",
    "list_tasks",
    "step_limit",
]

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlac_gym.envs.libero.install import (
    INSTALL_HINT,
    LiberoInstall,
    count_init_states,
    find_libero,
    read_init_states,
)
from vlac_gym.errors import ConfigError, unknown_name

STANDARD_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")

STEP_LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Control steps after settling: openpi examples/libero/main.py and OpenVLA-OFT run_libero_eval.py, which took the
longest demonstration of each suite (193, 254, 270, 505, 373 steps). Others differ: lerobot 280 for
libero_spatial, SimpleVLA-RL 512 for all."""

DEFAULT_STEP_LIMIT = 400
"""For suites that vary none of the standard ones: libero_90's, whose kind of short task they hold."""

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
"""Our camera name -> the camera's name in LIBERO's model."""

_LANGUAGE_IN_BDDL = ("_lan", "_task")
_SCENE_PREFIX = re.compile(r"^[A-Z_]+_SCENE\d+_")
_BDDL_LANGUAGE = re.compile(r"\(:language\s+([^)]*)\)", re.IGNORECASE)

# Categories that some LIBERO-PRO suites name although no distribution carries their meshes.
_OPTIONAL_CATEGORIES = ("red_sticker", "blue_red_sticker", "red_box", "libero_mug_yellow", "libero_mug_green")
_PLUS_VARIANT = re.compile(r"_(view|language|light|table|add)_[\d_]*\d")
"""What LIBERO-Plus (Fei et al., 2025) adds to names: ``_view_0_0_100_0_0_initstate_3``, ``_light_7``, …."""

_CATEGORY = re.compile(r"-\s+(" + "|".join(_OPTIONAL_CATEGORIES) + r")\s")


@dataclass(frozen=True)
class LiberoTask:
    """One task of a suite.

    Attributes:
        suite: Suite name, e.g. ``"libero_spatial"``.
        task_id: Position in LIBERO's default order.
        name: File name without suffix, e.g. ``"put_the_bowl_on_the_plate"``.
        language: The instruction: LIBERO's own ``Task.language``, except in LIBERO-PRO's ``_lan`` and ``_task``
            suites (and libero_study_table), whose changed instruction stands in the BDDL file.
        max_episode_steps: Default step limit, settling steps not counted.
        num_init_states: Number of official initial states.
        bddl_file: The task definition.
        init_states_file: The ``.pruned_init`` path; on disk it may have ``.npz`` appended.
    """

    suite: str
    task_id: int
    name: str
    language: str
    max_episode_steps: int
    num_init_states: int
    bddl_file: Path
    init_states_file: Path

    def load_init_states(self) -> NDArray[np.float64]:
        """Reads the initial states: float64 (num_init_states, 1 + nq + nv): time, positions, velocities."""
        return read_init_states(self.init_states_file)


def list_suites() -> tuple[str, ...]:
    """Names of the installed suites that are complete: the standard ones first, then the others by name.

    A suite is complete if each of its tasks has a definition, initial states and every mesh.

    Raises:
        DependencyNotInstalled: LIBERO is not installed.
    """
    return _complete_suites(find_libero())


def list_tasks(suite: str) -> tuple[LiberoTask, ...]:
    """Describes a suite's tasks, in LIBERO's default order, without starting a simulator.

    Args:
        suite: A name from `list_suites`.

    Raises:
        ConfigError: The suite is unknown or incomplete.
        DependencyNotInstalled: LIBERO is not installed.
    """
    install = find_libero()
    names = _complete_suites(install)
    if suite in names:
        return _read_tasks(install, suite)
    for name in install.suites().get(suite, ()):
        missing = _what_is_missing(install, suite, name)
        if missing is not None:
            raise ConfigError(
                f"The suite {suite} of the LIBERO at {install.package} is incomplete: {missing}.{_plus_hint(name)} "
                f"Complete suites: {', '.join(names) or 'none'}. Reinstall with {INSTALL_HINT}, or correct the "
                f"paths in {install.config_file}."
            )
    raise unknown_name("task suite", suite, names)


def get_task(suite: str, task_id: int) -> LiberoTask:
    """Describes one task.

    Raises:
        ConfigError: The suite or the id is unknown.
        DependencyNotInstalled: LIBERO is not installed.
    """
    tasks = list_tasks(suite)
    if not (isinstance(task_id, (int, np.integer)) and 0 <= task_id < len(tasks)):
        raise ConfigError(f"Expected task_id in 0..{len(tasks) - 1} for {suite}, got {task_id!r}.")
    return tasks[task_id]


def check_init_state(task: LiberoTask, init_state_id: int) -> int:
    """The number of one of the task's initial states.

    Raises:
        ConfigError: It has no such state.
    """
    if not (isinstance(init_state_id, (int, np.integer)) and 0 <= init_state_id < task.num_init_states):
        raise ConfigError(
            f"Expected init_state_id in 0..{task.num_init_states - 1} for {task.suite} task {task.task_id}, "
            f"got {init_state_id!r}."
        )
    return int(init_state_id)


def step_limit(suite: str) -> int:
    """The default step limit of a suite; a LIBERO-PRO variant has the limit of the suite it varies."""
    for name, limit in STEP_LIMITS.items():
        if suite == name or suite.startswith(name + "_"):
            return limit
    return DEFAULT_STEP_LIMIT


@functools.lru_cache(maxsize=4)
def _complete_suites(install: LiberoInstall) -> tuple[str, ...]:
    complete = [
        suite
        for suite, names in install.suites().items()
        if names and all(_what_is_missing(install, suite, name) is None for name in names)
    ]
    standard = [suite for suite in STANDARD_SUITES if suite in complete]
    return (*standard, *sorted(set(complete) - set(standard)))


def _what_is_missing(install: LiberoInstall, suite: str, name: str) -> str | None:
    """What a task lacks that it cannot be played without; None if it has all."""
    bddl = install.bddl_files / suite / f"{name}.bddl"
    states = install.init_states / suite / f"{name}.pruned_init"
    if not bddl.is_file():
        return f"there is no definition {bddl}"
    if count_init_states(states) == 0:
        return f"there are no initial states {states}"
    categories = set(_CATEGORY.findall(bddl.read_text(encoding="utf-8") + "\n"))
    meshes = install.assets / "custom_objects"
    for category in sorted(categories):
        if not (meshes / category / f"{category}.xml").is_file():
            return f"there is no mesh {meshes / category / category}.xml"
    return None


def _plus_hint(name: str) -> str:
    """Says so if a task's name is one of LIBERO-Plus, whose own `ControlEnv` reads the change out of it."""
    if _PLUS_VARIANT.search(name) is None:
        return ""
    return (
        " This LIBERO is LIBERO-Plus: its variants share the base task's files, and only its own env applies what "
        "their names say, so they cannot be played here. Install LIBERO or LIBERO-PRO in an environment of its own."
    )


@functools.lru_cache(maxsize=64)
def _read_tasks(install: LiberoInstall, suite: str) -> tuple[LiberoTask, ...]:
    tasks = []
    for task_id, name in enumerate(install.suites()[suite]):
        bddl = install.bddl_files / suite / f"{name}.bddl"
        states = install.init_states / suite / f"{name}.pruned_init"
        tasks.append(
            LiberoTask(
                suite=suite,
                task_id=task_id,
                name=name,
                language=_language(suite, name, bddl),
                max_episode_steps=step_limit(suite),
                num_init_states=count_init_states(states),
                bddl_file=bddl,
                init_states_file=states,
            )
        )
    return tuple(tasks)


def _language(suite: str, name: str, bddl: Path) -> str:
    if suite.endswith(_LANGUAGE_IN_BDDL) or suite == "libero_study_table":
        found = _BDDL_LANGUAGE.search(bddl.read_text(encoding="utf-8"))
        if found:
            return found.group(1).strip()
    return _SCENE_PREFIX.sub("", name).replace("_", " ")
