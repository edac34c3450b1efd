"""Keeps each finished episode's frames and curves, and writes them as mp4: `EpisodeVideoWrapper`, for one env."""

__all__ = ["EpisodeVideoWrapper"]

import contextlib
import itertools
import logging
import time
from pathlib import Path
from typing import Any, SupportsFloat, TypeVar, cast

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from vlac_gym.errors import ConfigError
from vlac_gym.reporting.trace import CriticTrace, EpisodeTrace, StepTrace
from vlac_gym.stepping.frame_source import FrameReader, FrameSource, image_keys
from vlac_gym.stepping.sim_signals import reported_success
from vlac_gym.types import CriticInfo, Frame, Mode

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")

_WRIST_KEY = "wrist_image"

logger = logging.getLogger(__name__)


class EpisodeVideoWrapper(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """Records frames and curves of each episode; changes nothing that `reset` and `step` return.

    Where the observation holds a `wrist_image` too, it is recorded and shown beside the frame.

    Put it directly outside of `VLACRewardWrapper`, whose ``info["critic"]`` and latency it reads, and inside of
    `ActionChunk`, so that it sees every env step (and renders each). Without a critic it records the
    simulator's signals alone. An episode that is left by `reset` or by an exception is dropped. The
    counterpart for N envs is `vlac_gym.wrappers.vector.EpisodeVideoWrapper`.

    Args:
        env: Any env that yields uint8 (H, W, 3) RGB frames.
        folder: Where to write `episode-000000.mp4`, …; made on the first video. A name that an earlier run or another
            env took becomes `episode-000000-2.mp4`. None writes nothing and only keeps `last_episode`.
        every_episodes: Write the first episode and each so-many-th after it; >= 1.
        frame: Where the frame is; see `FrameSource`.
        task: Task text; None takes ``info["task"]`` at reset, or says ``"task"`` if there is none.
        critic_info: The critic's name for titles; None asks the critic of the wrapped env.
        fps: Pictures per second of the videos; 20 is LIBERO's control rate.

    Attributes:
        last_episode: The episode finished last, None before.

    Raises:
        ConfigError: An argument does not fit; raised before the env is started.
        DependencyNotInstalled: `folder` is given and ffmpeg, matplotlib or pillow is missing (at the first video).

    Example:
        >>> env = EpisodeVideoWrapper(env, "videos", every_episodes=50)  # doctest: +SKIP
    """

    def __init__(
        self,
        env: gym.Env[ObsType, ActType],
        folder: str | Path | None = None,
        *,
        every_episodes: int = 1,
        frame: FrameSource | None = None,
        task: str | None = None,
        critic_info: CriticInfo | None = None,
        fps: int = 20,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            folder=folder,
            every_episodes=every_episodes,
            frame=frame,
            task=task,
            critic_info=critic_info,
            fps=fps,
        )
        gym.Wrapper.__init__(self, env)
        if every_episodes < 1 or fps < 1:
            raise ConfigError(f"Expected every_episodes and fps >= 1, got {every_episodes} and {fps}.")
        self.last_episode: EpisodeTrace | None = None
        self._folder = None if folder is None else Path(folder)
        self._every_episodes = every_episodes
        self._reader = FrameReader(env, frame)
        self._wrist = _wrist_reader(env, self._reader)
        self._task = task
        self._critic_info = critic_info
        self._fps = fps
        self._num_finished = 0
        self._frames: list[Frame] = []
        self._wrist_frames: list[Frame] = []
        self._steps: list[StepTrace] = []
        self._reset_info: dict[str, Any] = {}
        self._started_s = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Starts an episode and its recording; an unfinished recording is dropped."""
        observation, info = self.env.reset(seed=seed, options=options)
        # After reset: the first one may build a simulator, which says nothing about the episode.
        self._started_s = time.perf_counter()
        self._frames, self._wrist_frames, self._steps = [], [], []
        self._keep_frames(observation, info)
        self._reset_info = dict(info)
        return observation, info

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the env; at the episode's end sets `last_episode` and writes the video."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._frames:
            self._keep_frames(observation, info)
            latency_ms = self.env.get_wrapper_attr("critic_latency_ms") if "critic" in info else None
            self._steps.append(
                _step_trace(len(self._frames) - 1, action, reward, terminated, truncated, info, latency_ms)
            )
            if terminated or truncated:
                self._finish(info)
        return observation, reward, terminated, truncated, info

    def _keep_frames(self, observation: ObsType, info: dict[str, Any]) -> None:
        self._frames.append(np.array(self._reader.read(self.env, observation, info)))
        if self._wrist is not None:
            self._wrist_frames.append(np.array(self._wrist.read(self.env, observation, info)))

    def _finish(self, info: dict[str, Any]) -> None:
        facts = self._reset_info
        episode = EpisodeTrace(
            task=self._task or str(facts.get("task", "task")),
            mode=self._current_mode(),
            steps=tuple(self._steps),
            critic=self._critic_trace(info),
            frames=tuple(self._frames),
            wrist_frames=tuple(self._wrist_frames),
            task_suite=facts.get("task_suite"),
            task_id=_optional_int(facts.get("task_id")),
            init_state_id=_optional_int(facts.get("init_state_id")),
            wall_s=time.perf_counter() - self._started_s,
        )
        self.last_episode = episode
        self._frames, self._wrist_frames, self._steps = [], [], []
        number = self._num_finished
        self._num_finished += 1
        if self._folder is not None and number % self._every_episodes == 0:
            self._write(episode, self._folder, f"episode-{number:06d}")

    def _write(self, episode: EpisodeTrace, folder: Path, stem: str) -> None:
        from vlac_gym.reporting.episode_picture import picture_of_trace
        from vlac_gym.reporting.video import write_video

        folder.mkdir(parents=True, exist_ok=True)
        path = _reserve(folder, stem)
        try:
            subtitle = f"{episode.mode} mode · critic {episode.critic.label}"
            write_video(picture_of_trace(episode), path, subtitle=subtitle, fps=self._fps)
        finally:
            if not path.stat().st_size:
                path.unlink()
        logger.info("wrote %s", path)

    def _current_mode(self) -> Mode:
        # Without a reward wrapper the simulator's own signals come through, which is what eval mode means.
        has_mode = self.env.has_wrapper_attr("mode")
        return cast(Mode, self.env.get_wrapper_attr("mode")) if has_mode else "eval"

    def _critic_trace(self, info: dict[str, Any]) -> CriticTrace:
        report = info.get("critic")
        who = self._critic_info
        if report is None:
            return (
                CriticTrace() if who is None else CriticTrace(name=who.name, is_privileged=who.is_privileged)
            )
        if who is None:
            who = cast(CriticInfo, self.env.get_wrapper_attr("critic").describe())
        latencies = [s.latency_ms for s in self._steps if s.latency_ms is not None]
        return CriticTrace(
            name=who.name,
            is_privileged=who.is_privileged,
            calls=report["calls"],
            failures=report["failures"] - self._reset_info["critic"]["failures"],
            latency_ms_mean=sum(latencies) / len(latencies) if latencies else None,
            # A wrapper in between may cut an episode short that goes on for the critic: no values, no reason.
            values=tuple(float(v) for v in report.get("values", ())),
            value_frame_steps=tuple(int(s) for s in report.get("value_frame_steps", ())),
            values_for="reward" if report.get("values") else "none",
            stopped_by=report.get("stopped_by"),
            threshold=float(self.env.get_wrapper_attr("rule").done_threshold),
        )


def _wrist_reader(env: gym.Env[Any, Any], shown: FrameReader) -> FrameReader | None:
    is_there = _WRIST_KEY in image_keys(env.observation_space) and shown.camera != "wrist"
    return FrameReader(env, _WRIST_KEY) if is_there else None


def _reserve(folder: Path, stem: str) -> Path:
    """An empty file of this name, or of the next one that neither an earlier run nor another env took."""
    for copy in itertools.count(1):
        path = folder / (f"{stem}.mp4" if copy == 1 else f"{stem}-{copy}.mp4")
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            break
    return path


def _step_trace(
    step: int,
    action: Any,
    reward: SupportsFloat,
    terminated: bool,
    truncated: bool,
    info: dict[str, Any],
    latency_ms: float | None,
) -> StepTrace:
    critic = info.get("critic", {})
    progress = info.get("goal_progress", info.get("sim_goal_progress"))
    return StepTrace(
        step=step,
        action=tuple(float(a) for a in np.ravel(np.asarray(action, dtype=np.float64))),
        reward=float(reward),
        terminated=bool(terminated),
        truncated=bool(truncated),
        success_prob=critic.get("success_prob"),
        latency_ms=latency_ms,
        sim_success=bool(reported_success(info)),
        goal_progress=None if progress is None else float(progress),
    )


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)
