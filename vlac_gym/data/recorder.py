"""Collecting one episode step by step: `EpisodeRecorder`."""

__all__ = ["EpisodeRecorder"]

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from vlac_gym.data.episodes import Episode, EpisodeMeta
from vlac_gym.errors import ConfigError
from vlac_gym.frames.codec import EncodedFrames, FrameEncoding, encode_frame
from vlac_gym.types import FloatArray, Frame


class EpisodeRecorder:
    """Collects one episode step by step.

    Args:
        meta: What the episode is; its `encoding` says how frames are compressed.
        quality: JPEG quality, 1 to 100.
    """

    def __init__(self, meta: EpisodeMeta, quality: int = 95) -> None:
        self._meta = meta
        self._encoding = cast(FrameEncoding, meta.encoding)
        self._quality = quality
        self._actions: list[FloatArray] = []
        self._clean_actions: list[FloatArray] = []
        self._rows: list[tuple[FloatArray, bool, float, str]] = []
        self._frame_steps: list[int] = []
        self._frames: dict[str, list[bytes]] = {}

    def add(
        self,
        state: FloatArray,
        info: Mapping[str, Any],
        frames: Mapping[str, Frame] | None,
        stage: str = "",
        action: FloatArray | None = None,
        clean_action: FloatArray | None = None,
    ) -> None:
        """Appends a step: the reset first, without an action, then one call per action.

        `clean_action` is what the policy asked for, where noise was added to it: with each action, or with none.
        """
        if (action is None) != (not self._rows):
            raise ConfigError(
                "Expected the reset first, without an action, and an action with every later step."
            )
        if action is not None:
            self._actions.append(np.array(action, dtype=np.float32))
        if clean_action is not None:
            self._clean_actions.append(np.array(clean_action, dtype=np.float32))
        self._rows.append(
            (np.array(state, np.float32), bool(info["success"]), float(info["goal_progress"]), stage)
        )
        if frames is not None:
            self._frame_steps.append(len(self._rows) - 1)
            for camera, frame in frames.items():
                self._frames.setdefault(camera, []).append(encode_frame(frame, self._encoding, self._quality))

    def finish(self, **details: Any) -> Episode:
        """The whole episode, with `details` added to its meta data."""
        states, success, progress, stages = zip(*self._rows)
        width = self._actions[0].shape[0] if self._actions else 0
        return Episode(
            meta=dataclasses.replace(self._meta, details={**self._meta.details, **details}),
            actions=np.stack(self._actions) if self._actions else np.zeros((0, width), np.float32),
            states=np.stack(states),
            success=np.array(success),
            goal_progress=np.array(progress, np.float32),
            stages=np.array(stages),
            frame_steps=np.array(self._frame_steps, np.int32),
            frames={camera: EncodedFrames.from_bytes(pieces) for camera, pieces in self._frames.items()},
            clean_actions=np.stack(self._clean_actions) if self._clean_actions else None,
        )
