"""Records what N envs do, as a grid per batch and as raw copies: `EpisodeVideoWrapper`, for vector envs."""

__all__ = ["EpisodeVideoWrapper"]

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from vlac_gym.errors import ConfigError
from vlac_gym.frames.on_device import on_host
from vlac_gym.reporting.grid_video import EnvTile, GridVideo
from vlac_gym.reporting.mp4 import require_video_packages, write_mp4
from vlac_gym.stepping.frame_source import image_keys
from vlac_gym.stepping.sim_signals import reported_success
from vlac_gym.types import Frame
from vlac_gym.vector.infos import unstack_infos

logger = logging.getLogger(__name__)


@dataclass
class _Recording:
    """One env's running episode."""

    task: str = "task"
    is_over: bool = False
    outcome: bool | None = None
    success_prob: float | None = None
    shown: tuple[Frame, ...] = ()
    actions: list[Any] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def status(self) -> str:
        parts = [f"step {len(self.actions)}"]
        if self.success_prob is not None:
            parts.append(f"success_prob {self.success_prob:.2f}")
        if self.is_over:
            parts.append(_outcome(self.outcome))
        return " · ".join(parts)


class VideoOptions(TypedDict, total=False):
    """Keyword arguments of `EpisodeVideoWrapper`; see there."""

    save_video: bool
    info_on_video: bool
    cameras: Sequence[str] | None
    num_shown: int
    raw_envs: Sequence[int]
    max_steps_per_video: int
    fps: int


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """What an `EpisodeVideoWrapper` records, checked as far as no env is needed; described there.

    Raises:
        ConfigError: A number is below 1.
    """

    save_video: bool = True
    info_on_video: bool = True
    cameras: Sequence[str] | None = None
    num_shown: int = 16
    raw_envs: Sequence[int] = (0,)
    max_steps_per_video: int = 1000
    fps: int = 20

    def __post_init__(self) -> None:
        if min(self.num_shown, self.max_steps_per_video, self.fps) < 1:
            raise ConfigError(
                f"Expected num_shown, max_steps_per_video and fps >= 1, got {self.num_shown}, "
                f"{self.max_steps_per_video} and {self.fps}."
            )
        object.__setattr__(self, "raw_envs", tuple(self.raw_envs))  # the caller's may change


class EpisodeVideoWrapper(VectorWrapper):
    """Writes a video of all envs side by side per batch of steps; changes nothing that `reset` and `step` return.

    A batch ends with `flush_video`, a `reset` of all envs, `max_steps_per_video` or `close`. It is written as
    ``video_base_dir/batch-000000.mp4``: for each env the cameras, which env and task it is, step, the critic's opinion,
    the outcome, and the actions of its episode. The envs of `raw_envs` also get a copy of each finished episode as the
    first camera saw it, every pixel, which `vlac-gym score` reads:
    ``batch-000000/env-03_ep-000_put-the-bowl_success.raw.mp4``.
    The outcome is the simulator's; where it gives none, `done` or `timeout` by how the episode ended.

    Put it outermost: it records what `step` returns, with chunks a picture per chunk. The options are named as RLinf
    names them (`env.video_cfg`). The counterpart for one env is `vlac_gym.wrappers.EpisodeVideoWrapper`.

    Args:
        env: A vector env whose observations hold uint8 (N, H, W, 3) pictures.
        video_base_dir: Folder; made with the first video. A batch's number follows those that are there.
        save_video: False records nothing and costs nothing.
        info_on_video: Draw texts and action traces; False shows the cameras alone.
        cameras: Keys of the pictures; by default all ending in ``_image``, at most two.
        num_shown: Most envs in the grid, the first ones.
        raw_envs: Envs whose episodes are kept raw; their frames of one episode are held in memory.
        max_steps_per_video: Steps after which a batch is written anyway.
        fps: Pictures per second.

    Raises:
        ConfigError: An argument does not fit, or the observations hold no pictures.
        DependencyNotInstalled: ffmpeg, matplotlib or pillow is missing.

    Example:
        >>> env = EpisodeVideoWrapper(env, "videos", raw_envs=(0, 1))  # doctest: +SKIP
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        video_base_dir: str | Path,
        **options: Unpack[VideoOptions],
    ) -> None:
        super().__init__(env)
        config = self._config = VideoConfig(**options)
        if not all(0 <= i < env.num_envs for i in config.raw_envs):
            raise ConfigError(f"Expected raw_envs below {env.num_envs}, got {tuple(config.raw_envs)}.")
        self._keys = _camera_keys(env.single_observation_space, config.cameras) if config.save_video else ()
        if config.save_video:
            require_video_packages()
        self._folder = Path(video_base_dir)
        self._recordings: list[_Recording] = []
        self._grid = GridVideo(with_info=config.info_on_video)
        self._number: int | None = None
        self._num_raw = [0] * env.num_envs

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets; a reset of all envs ends the batch."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self.flush_video()
        observations, infos = self.env.reset(seed=seed, options=options)
        if self._config.save_video:
            if mask is None or not self._recordings:
                self._recordings = [_Recording() for _ in range(self.num_envs)]
                mask = np.ones(self.num_envs, bool)
            for i, info in enumerate(unstack_infos(infos, self.num_envs)):
                if mask[i]:
                    self._begin(i, observations, info)
            self._draw()
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps, and draws the next picture of the grid."""
        result = self.env.step(actions)
        if self._config.save_video and self._recordings:
            observations, _, terminations, truncations, infos = result
            singles = unstack_infos(infos, self.num_envs)
            finals = unstack_infos(infos.get("final_info", {}), self.num_envs)
            for i, recording in enumerate(self._recordings):
                is_last = bool(terminations[i] or truncations[i])
                if recording.is_over and not self._repeats_ends:
                    self._begin(i, observations, singles[i])  # the action had no effect
                elif not recording.is_over:
                    final = singles[i].get("final_obs") if is_last else None
                    seen = self._pictures(observations, i) if final is None else self._pictures_of(final)
                    self._continue(i, np.array(actions[i]), seen, finals[i] or singles[i])
                    if is_last:
                        self._end(i, bool(terminations[i]), finals[i] or singles[i])
            self._draw()
            for i, recording in enumerate(self._recordings):
                if recording.is_over and self._resets_at_once:
                    self._begin(i, observations, singles[i])
        return result

    def flush_video(self) -> Path | None:
        """Ends the batch and writes its grid; returns the path, or None if nothing was recorded."""
        if not len(self._grid):
            return None
        path = self._batch_folder.with_suffix(".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._grid.write(path, fps=self._config.fps)
        logger.info("wrote %s", path)
        self._grid, self._number = GridVideo(with_info=self._config.info_on_video), None
        self._num_raw = [0] * self.num_envs
        return path

    def close(self, **kwargs: Any) -> None:
        """Writes the batch, and closes the env."""
        self.flush_video()
        self.env.close(**kwargs)

    @property
    def _mode(self) -> Any:
        return self.env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)

    @property
    def _repeats_ends(self) -> bool:
        return bool(self._mode == AutoresetMode.DISABLED)

    @property
    def _resets_at_once(self) -> bool:
        return bool(self._mode == AutoresetMode.SAME_STEP)

    @property
    def _batch_folder(self) -> Path:
        """This batch's, without suffix: the first number that no earlier run took."""
        if self._number is None:
            taken = {path.name.split(".")[0] for path in self._folder.glob("batch-*")}
            self._number = next(n for n in itertools.count() if f"batch-{n:06d}" not in taken)
        return self._folder / f"batch-{self._number:06d}"

    def _begin(self, index: int, observations: Any, info: Mapping[str, Any]) -> None:
        self._recordings[index] = recording = _Recording(task=str(info.get("task", "task")))
        self._see(index, recording, self._pictures(observations, index))

    def _continue(self, index: int, action: Any, seen: tuple[Frame, ...], info: Mapping[str, Any]) -> None:
        recording = self._recordings[index]
        recording.actions.append(action if action.ndim == 1 else action[-1])
        recording.success_prob = info.get("critic", {}).get("success_prob", recording.success_prob)
        self._see(index, recording, seen)

    def _see(self, index: int, recording: _Recording, seen: tuple[Frame, ...]) -> None:
        recording.shown = seen
        if index in self._config.raw_envs:
            recording.frames.append(seen[0])

    def _end(self, index: int, terminated: bool, info: Mapping[str, Any]) -> None:
        recording = self._recordings[index]
        recording.is_over = True
        success = reported_success(info)
        recording.outcome = None if success is None else bool(success)
        if index in self._config.raw_envs:
            outcome = _outcome(recording.outcome, terminated=terminated)
            name = f"env-{index:02d}_ep-{self._num_raw[index]:03d}_{_slug(recording.task)}_{outcome}.raw.mp4"
            self._num_raw[index] += 1
            self._batch_folder.mkdir(parents=True, exist_ok=True)
            write_mp4(recording.frames, self._batch_folder / name, fps=self._config.fps, is_recording=True)
            recording.frames = []

    def _draw(self) -> None:
        shown = self._recordings[: self._config.num_shown]
        self._grid.add(
            [
                EnvTile(
                    r.shown, f"env {i} · {r.task}", r.status(), r.outcome if r.is_over else None, r.actions
                )
                for i, r in enumerate(shown)
            ]
        )
        if len(self._grid) > self._config.max_steps_per_video:
            self.flush_video()

    def _pictures(self, observations: Any, index: int) -> tuple[Frame, ...]:
        # Copies: the vector env may write its next observations into the same memory.
        return tuple(np.array(on_host(observations[key][index])) for key in self._keys)

    def _pictures_of(self, observation: Any) -> tuple[Frame, ...]:
        return tuple(np.array(on_host(observation[key])) for key in self._keys)


def _camera_keys(space: gym.Space[Any], cameras: Sequence[str] | None) -> tuple[str, ...]:
    known = image_keys(space)
    chosen = tuple(cameras if cameras is not None else sorted(known)[:2])
    if not chosen or not set(chosen) <= set(known):
        raise ConfigError(
            f"Expected cameras among {sorted(known)}, the pictures in the observation, got {chosen}."
        )
    return chosen


def _outcome(success: bool | None, *, terminated: bool = False) -> str:
    if success is None:
        return "done" if terminated else "timeout"
    return "success" if success else "failure"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48] or "task"
