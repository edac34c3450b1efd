"""Hand-made episodes for the reporting tests."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from vlac_gym.reporting.episode_picture import EpisodePicture, picture_of_trace
from vlac_gym.reporting.trace import CriticTrace, EpisodeTrace, StepTrace
from vlac_gym.reporting.video import VIDEO_SIZE
from vlac_gym.types import Frame


def solid_frame(level: int, height: int = 32, width: int = 32) -> Frame:
    """A grey picture."""
    return np.full((height, width, 3), level, dtype=np.uint8)


def build_train_trace(num_steps: int = 4, *, is_privileged: bool = True, task: str = "stack") -> EpisodeTrace:
    """The critic says done at the last step, one step after the simulator; values were asked for the plot."""
    steps = tuple(
        StepTrace(
            step=t,
            action=(0.5, -1.0),
            reward=1.0 if t == num_steps else 0.0,
            terminated=t == num_steps,
            success_prob=0.95 if t == num_steps else 0.1,
            latency_ms=2.0,
            sim_success=t >= num_steps - 1,
            goal_progress=t / num_steps,
        )
        for t in range(1, num_steps + 1)
    )
    critic = CriticTrace(
        name="oracle",
        is_privileged=is_privileged,
        calls=num_steps,
        latency_ms_mean=2.0,
        values=(0.0, 0.75),
        value_frame_steps=(0, num_steps),
        values_for="plot",
        stopped_by="success_prob",
        threshold=0.9,
    )
    return EpisodeTrace(
        task=task,
        mode="train",
        steps=steps,
        critic=critic,
        frames=tuple(solid_frame(40 * t % 256) for t in range(num_steps + 1)),
        task_suite="libero_spatial",
        task_id=0,
        init_state_id=3,
        wall_s=1.5,
    )


def build_eval_trace(num_steps: int = 4) -> EpisodeTrace:
    """An eval episode that runs into its limit; the critic is not asked."""
    steps = tuple(StepTrace(step=t, action=(0.0,), truncated=t == num_steps) for t in range(1, num_steps + 1))
    return EpisodeTrace(
        task="stack",
        mode="eval",
        steps=steps,
        critic=CriticTrace(name="oracle", is_privileged=True),
        frames=tuple(solid_frame(9) for _ in range(num_steps + 1)),
        task_suite="libero_spatial",
        task_id=0,
        init_state_id=0,
    )


@pytest.fixture
def train_trace() -> Callable[..., EpisodeTrace]:
    """`build_train_trace`."""
    return build_train_trace


@pytest.fixture
def eval_trace() -> Callable[..., EpisodeTrace]:
    """`build_eval_trace`."""
    return build_eval_trace


@pytest.fixture
def train_picture() -> Callable[..., EpisodePicture]:
    """What is drawn of `build_train_trace`."""
    return lambda *args, **options: picture_of_trace(build_train_trace(*args, **options))


@pytest.fixture
def eval_picture() -> Callable[..., EpisodePicture]:
    """What is drawn of `build_eval_trace`."""
    return lambda: picture_of_trace(build_eval_trace())


@pytest.fixture
def read_mp4() -> Callable[[Path], np.ndarray]:
    """Decodes a whole mp4 of `VIDEO_SIZE` (imageio's own reader leaves its pipes open)."""

    def read(path: Path) -> np.ndarray:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
        raw = subprocess.run(
            [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
        )
        return np.frombuffer(raw.stdout, np.uint8).reshape(-1, VIDEO_SIZE[1], VIDEO_SIZE[0], 3)

    return read
