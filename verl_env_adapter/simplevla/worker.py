"""SimpleVLA-RL's process of one trajectory, with a wrapped env in it: `env_worker`. Loads no trainer.

Proven against SimpleVLA-RL 7c51662 (2026-01-06). What it translates, and why:

- the policy's gripper (1 opens, 0 closes) -> LIBERO's (-1 opens, +1 closes), which this process has to do;
- pictures upright -> as MuJoCo renders them, since the trainer turns them itself; axis-angle -> quaternion (x, y, z,
  w), which the trainer turns back;
- `complete`: in training what the wrapper paid in the episode (1.0 for the critic's done, the value at the step
  limit), in validation the simulator's success. `verl_env_adapter.simplevla.plugin` keeps it a float on its way;
- the trainer waits 30 s for an action chunk and 120 s for the first picture: the critic's deadline stays below, and
  a failure is told at once instead of by that silence;
- the trainer has no mask for a lost episode: `critic.on_error: truncate` is refused;
- several servers in `critic.spec`: GPU worker R's trajectories ask the one at place R (modulo their number) first;
- the process is forked from one that may hold CUDA: a critic that would load a model in it is refused;
- validation renders every step for the trainer's video; training renders what policy and critic look at.
"""

__all__ = ["CHUNK_DEADLINE_S", "check_settings", "env_worker"]

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_env_adapter.common.conversion import check_actions
from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.env_report import EnvReport
from verl_env_adapter.common.policy_view import (
    policy_images,
    policy_state,
    refuse_env_resource,
    refuse_worlds,
    within_host_limit,
)
from verl_env_adapter.common.settings import (
    SETTINGS_VARIABLE,
    AdapterSettings,
    serving_advice,
    settings_from_environment,
)
from vlac_gym.errors import ConfigError
from vlac_gym.frames.convention import ImageConvention, convert_image
from vlac_gym.policies.gripper import GripperConvention, convert_gripper
from vlac_gym.specs.options import split_spec

logger = logging.getLogger(__name__)

CHUNK_DEADLINE_S = 30.0
"""``output_queues[idx].get(timeout=30)`` in `RobHFRollout._generate_minibatch_libero`."""

_FORK_SAFE = ("http", "https", "oracle", "noisy_oracle", "scripted")
_CAMERAS = {"agentview_image": "agentview_image", "robot0_eye_in_hand_image": "wrist_image"}


def check_settings(settings: AdapterSettings | None) -> AdapterSettings:
    """The settings, if this trainer can keep what they promise.

    Raises:
        ConfigError: None are given, or they need what this trainer does not have.
    """
    if settings is None:
        raise ConfigError(
            f"SimpleVLA-RL hands its env no configuration: name a settings file in {SETTINGS_VARIABLE}, in the "
            "env_vars of trainer.runtime_env."
        )
    refuse_env_resource(settings, "trainer.n_gpus_per_node and trainer.nnodes")
    refuse_worlds(
        settings, "SimpleVLA-RL plays each trajectory, of all tasks of a suite, in a process of its own"
    )
    if settings.critic.on_error.then == "truncate":
        raise ConfigError(
            "Expected critic.on_error: raise, got 'truncate': SimpleVLA-RL can't mask a lost episode and would learn "
            "from its reward of 0."
        )
    if settings.truncate_as_terminal:
        raise ConfigError(
            "truncate_as_terminal is for trainers that bootstrap; SimpleVLA-RL does not. Drop it."
        )
    unsafe = [spec for spec in settings.critic.specs if split_spec(spec)[0] not in _FORK_SAFE]
    if unsafe:
        raise ConfigError(
            f"Expected a critic server's URL, got critic.spec {unsafe[0]!r}: every trajectory is a process "
            "forked from a GPU worker, in which no model can be loaded. Start `vlac-gym serve`."
            f"{serving_advice(unsafe[0])}"
        )
    return settings


def env_worker(
    task_name: str,
    task_id: int,
    trial_id: int,
    config: Any,
    input_queue: Any,
    output_queue: Any,
    is_valid: bool,
    global_steps: int,
    max_steps: int,
) -> None:
    """Plays one trajectory; takes the place of `rob_rollout.env_worker`, with its arguments and messages.

    Args:
        task_name: LIBERO's suite.
        task_id: Task of the suite.
        trial_id: Initial state.
        config: The trainer's rollout config; not read.
        input_queue: Action chunks (T, A), or None for the end.
        output_queue: One `init` message, one `step` message for each chunk, `terminate`.
        is_valid: Does the trainer validate?
        global_steps: The trainer's step; not read.
        max_steps: Env steps that the trainer plays.
    """
    try:
        settings = check_settings(settings_from_environment())
        settings = _own_server_first(within_host_limit(settings, max_steps, "SimpleVLA-RL"), os.environ)
        trajectory = _Trajectory(settings, task_name, is_valid)
        try:
            trajectory.play(int(task_id), int(trial_id), input_queue, output_queue)
        finally:
            trajectory.pool.close()
    except Exception as e:
        # The trainer waits for a message that says 'init' or 'step', and asserts it: any other ends the wait now.
        logger.exception("trajectory of %s task %s, initial state %s failed", task_name, task_id, trial_id)
        output_queue.put({"type": "error", "message": f"{type(e).__name__}: {e}"})
        raise
    output_queue.put({"type": "terminate"})


def _own_server_first(settings: AdapterSettings, environ: Mapping[str, str]) -> AdapterSettings:
    """The settings with the servers turned by the GPU worker's number: a client keeps the first that answers."""
    spec = settings.critic.spec
    if not settings.critic.is_remote:
        return settings
    urls, mark, options = spec.partition("?")
    servers = urls.split(",")
    start = int(environ.get("RANK", "0")) % len(servers)
    turned = ",".join(servers[start:] + servers[:start]) + mark + options
    return replace(settings, critic=replace(settings.critic, spec=turned))


@dataclass
class _Trajectory:
    settings: AdapterSettings
    suite: str
    is_valid: bool

    def __post_init__(self) -> None:
        env = self.settings.env
        if env.is_libero and env.suite != self.suite:
            raise ConfigError(
                f"The trainer plays {self.suite!r} where env.suite says {env.suite!r}. Set data.task_suite_name and "
                "env.suite to the same."
            )
        self.pool = EnvPool(self.settings, 1, host_deadline_s=CHUNK_DEADLINE_S)
        self.mode = self.settings.mode_in("validate" if self.is_valid else "train")

    def play(self, task_id: int, trial_id: int, input_queue: Any, output_queue: Any) -> None:
        is_libero = self.settings.env.is_libero
        start = {"task_id": task_id, "init_state_id": trial_id} if is_libero else {"seed": trial_id}
        (report,) = self.pool.reset(mode=self.mode, options=[start])
        first = {
            "type": "init",
            "task_description": report.task,
            "task_file_name": f"{self.suite}_task_{task_id}_trial_{trial_id}",
        }
        output_queue.put({**first, **self._message(report), "valid_images": self._video([report])})
        while (actions := input_queue.get()) is not None:
            reports = self._execute(actions)
            message = self._message(reports[-1])
            output_queue.put({"type": "step", **message, "valid_images": self._video(reports)})

    def _execute(self, actions: Any) -> list[EnvReport]:
        chunk = check_actions(
            np.asarray(actions)[None],
            num_envs=1,
            action_size=self.pool.action_size,
            max_chunk=self.settings.env.chunk,
            where="SimpleVLA-RL's policy",
        )
        chunk = convert_gripper(chunk, GripperConvention.ONE_OPENS)
        if not self.is_valid:
            return list(self.pool.step_chunk(chunk).reports)
        reports: list[EnvReport] = []
        for t in range(chunk.shape[1]):
            reports += self.pool.step_chunk(chunk[:, t]).reports
            if reports[-1].is_over:
                break
        return reports

    def _message(self, report: EnvReport) -> dict[str, Any]:
        complete = bool(report.sim_success) if self.mode == "eval" else report.episode_return
        return {
            "obs": _raw_observation(report.observation),
            "active": not report.is_over,
            "complete": float(complete) if report.is_over else 0.0,
            "finish_step": report.episode_steps,
        }

    def _video(self, reports: list[EnvReport]) -> list[Any]:
        if not self.is_valid:
            return []
        table = {"picture": "agentview_image"}
        return [policy_images(report.observation, table, "SimpleVLA-RL")["picture"] for report in reports]


def _raw_observation(observation: dict[str, Any]) -> dict[str, Any]:
    """The keys of robosuite's observation that the trainer reads."""
    state = policy_state(observation, np.float64)
    raw = {
        "robot0_eef_pos": state[:3],
        "robot0_eef_quat": _quaternion(state[3:6]),
        "robot0_gripper_qpos": state[6:8],
    }
    for theirs, ours in _CAMERAS.items():
        if ours in observation:
            raw[theirs] = convert_image(observation[ours], ImageConvention.RAW)
    return raw


def _quaternion(axis_angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x, y, z, w) of an axis-angle vector in radians."""
    angle = float(np.linalg.norm(axis_angle))
    if angle == 0.0:
        return np.array([0.0, 0.0, 0.0, 1.0])
    return np.array([*(axis_angle / angle * np.sin(angle / 2)), np.cos(angle / 2)])
