"""Running one planned episode in an env and recording it: `record_episode`, `RecordSettings`."""

__all__ = ["RecordSettings", "RecordableEnv", "policy_cameras", "record_episode"]

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from vlac_gym.checks import check_unit
from vlac_gym.data.episodes import Episode
from vlac_gym.data.plans import EpisodePlan
from vlac_gym.data.recorder import EpisodeRecorder
from vlac_gym.data.sequels import History, make_sequel
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.frames.codec import FRAME_ENCODINGS, FrameEncoding
from vlac_gym.policies import Policy, StagedPolicy
from vlac_gym.types import FloatArray, Frame

_TAIL_STEPS = (8, 25)
_REST_STEPS = (10, 30)
_STILL_STAGES = ("stop", "idle", "done")


@dataclass(frozen=True, kw_only=True)
class RecordSettings:
    """How episodes are recorded.

    Attributes:
        cameras: Which views to keep: `"agentview"`, `"wrist"`, or one of them under another light, as
            `"agentview@shadow"` (see `vlac_gym.envs.libero.lighting`). Judging shows the first unless told otherwise.
        image_size: Height and width of the frames, pixels.
        frame_stride_steps: Keep a frame every so many steps, and the last one; >= 1.
        encoding: `"jpeg"` or `"png"`.
        quality: JPEG quality, 1 to 100.
        max_episode_steps: Step limit; None for the suite's.
        action_noise: Standard deviation of Gaussian noise on the motion (all of the action but the gripper, in action
            units) that is executed while the policy drives, in [0, 1]. Above 0, an episode keeps the policy's own
            actions too, as `clean_actions`: labels that lead back from where the noise led (DART, Laskey et al., 2017).

    Raises:
        ConfigError: A value is out of its range.
    """

    cameras: tuple[str, ...] = ("agentview",)
    image_size: int = 256
    frame_stride_steps: int = 2
    encoding: FrameEncoding = "jpeg"
    quality: int = 95
    max_episode_steps: int | None = None
    action_noise: float = 0.0

    def __post_init__(self) -> None:
        if not self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise ConfigError(f"Expected one or more different cameras, got {list(self.cameras)}.")
        if self.frame_stride_steps < 1:
            raise ConfigError(f"Expected frame_stride_steps >= 1, got {self.frame_stride_steps}.")
        if self.encoding not in FRAME_ENCODINGS:
            raise unknown_name("frame encoding", self.encoding, FRAME_ENCODINGS)
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"Expected quality from 1 to 100, got {self.quality}.")
        check_unit("action_noise", self.action_noise)

    def check_match(self, episode: Episode) -> None:
        """Raises `ConfigError` unless `episode` was recorded with these settings."""
        meta, (view, *_) = episode.meta, episode.frames.values()
        found: dict[str, Any] = {
            "cameras": tuple(episode.frames),
            "image_size": view[0].shape[0],
            "frame_stride_steps": meta.frame_stride_steps,
            "encoding": meta.encoding,
            "action_noise": meta.details.get("action_noise", 0.0),
            **{name: meta.details[name] for name in ("quality", "max_episode_steps") if name in meta.details},
        }
        wrong = [
            f"{name} was {had!r}, is {getattr(self, name)!r}"
            for name, had in found.items()
            if had != getattr(self, name)
        ]
        if wrong:
            raise ConfigError(
                f"Expected the settings that episode {meta.episode_id} was recorded with: {'; '.join(wrong)}. "
                "Ask for the same, or collect into another folder."
            )


class RecordableEnv(Protocol):
    """What recording needs of an env; `vlac_gym.envs.libero.LiberoEnv` has it."""

    metadata: dict[str, Any]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Starts an episode from `options["task_id"]` and `options["init_state_id"]`."""
        ...

    def step_unrendered(self, action: Any) -> tuple[float, bool, bool]:
        """One step without pictures: reward, terminated, truncated."""
        ...

    def current_info(self) -> dict[str, Any]:
        """`info` of the present state."""
        ...

    def proprioception(self) -> FloatArray:
        """The robot's state."""
        ...

    def render_camera(self, camera: str) -> Frame:
        """One view's picture of the present state."""
        ...


def record_episode(
    env: RecordableEnv, policy: Policy, plan: EpisodePlan, settings: RecordSettings
) -> Episode:
    """Runs a plan to its end and returns what happened.

    The plan's sequel takes over 8 to 25 steps after success, or at the stage that the plan names; then the
    arm stands still for 10 to 30 steps. Where nothing takes over, the episode ends 10 to 30 steps after the
    policy stands still, or at the step limit.

    `details["wall_s"]` of the episode's meta data is the time in seconds that the policy, the physics, the
    simulator's labels and the rendering of the first view took, much as in a rollout; the reset, further views and
    compression are not in it. `details["max_episode_steps"]` and, of JPEG frames, `details["quality"]` are those of
    the settings, as is `details["action_noise"]` where there is any, and `details["renderer"]` names what drew the
    pictures, if the env's `metadata` does.

    Args:
        env: An env of the plan's suite that no wrapper hides.
        policy: Drives the arm; reset here. It sees `info`, the state and the pictures of its `cameras` (of both, if it
            names none), each of which is rendered when it is looked at; a privileged one sees no pictures.
        plan: What to do.
        settings: What to keep.

    Raises:
        SimulatorError: The simulator failed; nothing of the episode is kept.
    """
    _, info = env.reset(
        seed=plan.seed, options={"task_id": plan.task_id, "init_state_id": plan.init_state_id}
    )
    policy.reset(cast(Any, env), seed=plan.seed)
    recorder = EpisodeRecorder(
        plan.meta(info["task"], settings.frame_stride_steps, settings.encoding), settings.quality
    )
    script = _Script(policy, plan, settings.action_noise)
    cameras = policy_cameras(policy)
    recorder.add(env.proprioception(), info, _frames(env, settings.cameras))
    step, is_over, wall_s = 0, False, 0.0
    while not is_over:
        begun = time.perf_counter()
        action, clean_action, stage = script.act(_Observation(env, cameras), info)
        _, _, truncated = env.step_unrendered(action)
        info = env.current_info()
        step += 1
        script.see_success(bool(info["success"]))
        is_over = truncated or script.is_over
        keeps_frame = is_over or step % settings.frame_stride_steps == 0
        frames = _frames(env, settings.cameras[:1]) if keeps_frame else None
        wall_s += time.perf_counter() - begun
        if frames is not None:
            frames |= _frames(env, settings.cameras[1:])
        recorder.add(env.proprioception(), info, frames, stage, action, clean_action)
    facts: dict[str, Any] = {
        "wall_s": round(wall_s, 4),
        "max_episode_steps": settings.max_episode_steps,
        "renderer": env.metadata.get("renderer"),
    }
    if settings.action_noise:
        facts["action_noise"] = settings.action_noise
    if settings.encoding == "jpeg":
        facts["quality"] = settings.quality
    return recorder.finish(**facts)


def policy_cameras(policy: Policy) -> tuple[str, ...]:
    """The cameras whose pictures a policy sees: none for a privileged one."""
    if getattr(policy, "is_privileged", False):
        return ()
    return tuple(getattr(policy, "cameras", ("agentview", "wrist")))


class _Observation(Mapping[str, Any]):
    """The env's present state, whose pictures are rendered when somebody looks: chunk policies rarely do."""

    def __init__(self, env: RecordableEnv, cameras: Sequence[str]) -> None:
        self._cameras = {f"{camera}_image": camera for camera in cameras}
        self._env = env
        self._seen: dict[str, Any] = {"state": env.proprioception()}

    def __getitem__(self, key: str) -> Any:
        if key not in self._seen:
            self._seen[key] = self._env.render_camera(self._cameras[key])
        return self._seen[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._cameras, "state"))

    def __len__(self) -> int:
        return len(self._cameras) + 1


class _Script:
    """The policy, then the sequel, then rest."""

    def __init__(self, policy: Policy, plan: EpisodePlan, action_noise: float) -> None:
        self._policy = policy
        self._plan = plan
        self._action_noise = action_noise
        self._rng = np.random.default_rng((plan.seed, plan.task_id, plan.init_state_id))
        # Of its own, so that noise changes no other draw.
        self._noise_rng = np.random.default_rng((plan.seed, plan.task_id, plan.init_state_id, 1))
        self._history = History()
        self._sequel: Iterator[FloatArray] | None = None
        self._until_sequel: int | None = None
        self._until_end: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the rest is over."""
        return self._until_end == 0

    def see_success(self, success: bool) -> None:
        """Takes the simulator's verdict on the state that the last action led to."""
        if success and self._until_sequel is None and self._sequel is None:
            self._until_sequel = self._draw(_TAIL_STEPS)
            self._until_end = None

    def act(self, obs: Any, info: Mapping[str, Any]) -> tuple[FloatArray, FloatArray | None, str]:
        """The next action, the same without noise (None if no action has any), and what it belongs to."""
        self._history.states.append(np.array(obs["state"], np.float32))
        clean_action, stage = self._follow_sequel() or self._follow_policy(obs, info)
        action = clean_action
        if self._action_noise and self._sequel is None:
            action = self._with_noise(clean_action)
        self._history.actions.append(action)
        self._until_sequel = _count_down(self._until_sequel)
        self._until_end = _count_down(self._until_end)
        return action, clean_action if self._action_noise else None, stage

    def _with_noise(self, action: FloatArray) -> FloatArray:
        noisy = action.copy()
        noisy[:-1] += self._noise_rng.normal(0.0, self._action_noise, action.size - 1).astype(np.float32)
        return np.clip(noisy, -1.0, 1.0)

    def _follow_sequel(self) -> tuple[FloatArray, str] | None:
        if self._sequel is None and self._until_sequel == 0:
            self._begin_sequel()
        if self._sequel is None:
            return None
        action = next(self._sequel, None)
        if action is not None:
            return action, self._plan.sequel
        if self._until_end is None:
            self._until_end = self._draw(_REST_STEPS)
        return self._still(), "rest"

    def _follow_policy(self, obs: Any, info: Mapping[str, Any]) -> tuple[FloatArray, str]:
        action = np.array(self._policy.act(obs, info), np.float32)
        stage = self._policy.stage if isinstance(self._policy, StagedPolicy) else ""
        if stage and stage == self._plan.sequel_at:
            self._begin_sequel()
            return self._follow_sequel() or (action, stage)
        if stage in _STILL_STAGES and self._until_sequel is None and self._until_end is None:
            self._until_end = self._draw(_REST_STEPS)
        return action, stage

    def _begin_sequel(self) -> None:
        self._sequel = make_sequel(self._plan.sequel)(self._history, self._rng)
        self._until_end = None

    def _still(self) -> FloatArray:
        last = self._history.actions[-1]
        action = np.zeros_like(last)
        action[-1] = np.sign(last[-1])
        return action

    def _draw(self, span: tuple[int, int]) -> int:
        return int(self._rng.integers(span[0], span[1] + 1))


def _count_down(steps: int | None) -> int | None:
    return None if steps is None else max(0, steps - 1)


def _frames(env: RecordableEnv, cameras: Sequence[str]) -> dict[str, Frame]:
    return {camera: env.render_camera(camera) for camera in cameras}
