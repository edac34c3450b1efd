"""A search's wrong stops as files, in pictures and as recorded episodes: `WrongStops`, `forget_round`."""

__all__ = ["KEPT_FOLDER", "WrongStops", "forget_round"]

import base64
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.data.episodes import Episode, EpisodeMeta, read_meta, write_episode
from vlac_gym.data.verdicts import HAS_VERDICT
from vlac_gym.files.atomic import write_json
from vlac_gym.frames.codec import EncodedFrames, encode_frame
from vlac_gym.frames.on_device import on_host
from vlac_gym.rollout import PlayedEpisode

KEPT_FOLDER = "kept"
"""Folder of the recorded episodes."""

_STRIP = 8
_QUALITY = 95


class WrongStops:
    """Takes a round's wrong stops, in any order; holds one of them at most.

    Args:
        out: The search's folder.
        number: The round's, from 0.
        first_episode: Number of the round's first episode.
        frame: The observation's picture that the critic is shown.
        keeps_episodes: Write each as a recorded episode into `out/kept`.
        facts: More facts of those episodes.
    """

    def __init__(
        self,
        out: Path,
        number: int,
        first_episode: int,
        frame: str,
        *,
        keeps_episodes: bool,
        facts: dict[str, Any],
    ) -> None:
        self._out, self._number, self._first_episode, self._frame = out, number, first_episode, frame
        self._keeps_episodes, self._facts = keeps_episodes, facts
        self._first: PlayedEpisode | None = None

    def add(self, episode: PlayedEpisode) -> None:
        """Takes one."""
        if self._keeps_episodes:
            write_episode(self._out / KEPT_FOLDER, _recorded(episode, self._frame, self._facts))
        if self._first is None or episode.index < self._first.index:
            self._first = episode

    def write_first(self) -> None:
        """Writes the pictures of the one with the smallest number, if there is one."""
        if self._first is not None:
            write_json(self._out / f"round-{self._number:03d}.json", self._pictures(self._first))

    def _pictures(self, episode: PlayedEpisode) -> dict[str, Any]:
        steps = _looks(episode)
        shown = np.unique(np.linspace(0, len(steps) - 1, min(_STRIP, len(steps))).round().astype(int))
        return {
            "episode_id": f"round {self._number + 1}, episode {episode.index - self._first_episode + 1}",
            "text": f"ended as done at step {steps[-1]}, in round {self._number + 1} of imitation",
            "strip": [
                {
                    "step": steps[i],
                    "jpeg": base64.b64encode(
                        encode_frame(on_host(episode.observations[i][self._frame]), "jpeg", 85)
                    ).decode(),
                    "success_prob": episode.infos[i]["critic"].get("success_prob"),  # a None is left out
                    "success": bool(episode.infos[i]["sim_success"]),
                    "is_event": bool(i == len(steps) - 1),
                }
                for i in shown.tolist()
            ],
        }


def forget_round(out: Path, number: int, first_seed: int) -> None:
    """Removes what a round left that was cut short: played again, it may have other wrong stops.

    Args:
        out: The search's folder.
        number: The round's, from 0.
        first_seed: Seed of the start of its first episode; those of later episodes are higher.
    """
    (out / f"round-{number:03d}.json").unlink(missing_ok=True)
    for path in (out / KEPT_FOLDER / "episodes").glob("*.npz"):
        if read_meta(path)[0].seed >= first_seed:
            path.unlink()


def _looks(episode: PlayedEpisode) -> list[int]:
    """The env step of each observation."""
    return [0, *np.cumsum(episode.executed_steps).tolist()]


def _recorded(episode: PlayedEpisode, frame: str, facts: dict[str, Any]) -> Episode:
    """A wrong stop as a recorded episode, with a frame wherever the policy looked, the last of them at the stop.

    The simulator saw success at none of its steps. State and goal progress of the steps between two looks are those of
    the look before; an env that tells no goal progress leaves an episode with `HAS_VERDICT`.
    """
    steps, info = _looks(episode), episode.infos[0]
    since = np.searchsorted(steps, np.arange(steps[-1] + 1), side="right") - 1
    has_progress = "sim_goal_progress" in info
    progress = [float(each["sim_goal_progress"]) if has_progress else 0.0 for each in episode.infos]
    details = {**facts, "quality": _QUALITY} | ({} if has_progress else {HAS_VERDICT: True})
    meta = EpisodeMeta(
        task_suite=info["task_suite"],
        task_id=info["task_id"],
        task=info["task"],
        init_state_id=info["init_state_id"],
        policy="filtered_imitation",
        seed=episode.start.seed,
        frame_stride_steps=max(int(executed) for executed in episode.executed_steps),
        details=details,
    )
    pictures = [encode_frame(on_host(seen[frame]), "jpeg", _QUALITY) for seen in episode.observations]
    return Episode(
        meta=meta,
        actions=np.concatenate(
            [
                np.asarray(chunk, np.float32)[:executed]
                for chunk, executed in zip(episode.actions, episode.executed_steps, strict=True)
            ]
        ),
        states=np.stack([np.asarray(seen["state"], np.float32) for seen in episode.observations])[since],
        success=np.zeros(len(since), np.bool_),
        goal_progress=np.array(progress, np.float32)[since],
        stages=np.full(len(since), ""),
        frame_steps=np.array(steps, np.int32),
        frames={frame.removesuffix("_image"): EncodedFrames.from_bytes(pictures)},
    )
