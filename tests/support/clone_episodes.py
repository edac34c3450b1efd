"""Recorded episodes whose pictures and states say what to do next: `recorded`."""

import numpy as np

from vlac_gym.data.episodes import Episode, EpisodeMeta
from vlac_gym.frames.codec import EncodedFrames, encode_frame

SIDE = 16


def recorded(init_state_id: int, *, task_id: int = 0, succeeds: bool = True, stride: int = 1) -> Episode:
    """Nine steps: a bright square moves, the arm follows; success at step 7."""
    labels = np.zeros((9, 7), np.float32)
    labels[:, 0] = np.linspace(-0.9, 0.9, 9)
    labels[:, 1] = 0.1 * init_state_id * (-1) ** task_id
    labels[:, 6] = np.where(np.arange(9) < 4, -1.0, 1.0)
    states = np.zeros((10, 8), np.float32)
    states[:, 0] = np.arange(10) / 10
    frames = []
    for step in range(0, 10, stride):
        picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
        picture[step : step + 4, init_state_id : init_state_id + 4] = (250, 90, 20)
        frames.append(encode_frame(picture, "png"))
    pictures = EncodedFrames.from_bytes(frames)
    return Episode(
        meta=EpisodeMeta(
            "libero_spatial",
            task_id,
            "move",
            init_state_id,
            "expert",
            frame_stride_steps=stride,
        ),
        actions=np.clip(labels + 0.05, -1, 1),
        states=states,
        success=(np.arange(10) >= 7) & succeeds,
        goal_progress=((np.arange(10) >= 7) & succeeds).astype(np.float32),
        stages=np.full(10, ""),
        frame_steps=np.arange(0, 10, stride, dtype=np.int32),
        frames={"agentview": pictures, "wrist": pictures},
        clean_actions=labels,
    )
