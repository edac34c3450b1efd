"""What a search leaves of its episodes, in pictures and as recorded episodes: `KeptEpisodes`, `forget_round`."""

__all__ = ["KEPT_FOLDER", "KeptEpisodes", "forget_round"]

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


class KeptEpisodes:
    """Takes a round's episodes, in any order; holds one of them at most.

    Args:
        out: The search's folder.
        number: The round's, from 0.
        first_episode: Number of the round's first episode.
        frame: The observation's picture that the critic is shown.
        records: Write what can teach a critic as recorded episodes into `out/kept`: every wrong stop, and every
            episode in which the simulator saw success, whether the critic ended it or missed it. Without successes a
            critic would learn that such pictures are never done.
        facts: More facts of those episodes.
    """

    def __init__(
        self, out: Path, number: int, first_episode: int, frame: str, *, records: bool, facts: dict[str, Any]
    ) -> None:
        self._out, self._number, self._first_episode, self._frame = out, number, first_episode, frame
        self._records, self._facts = records, facts
        self._first: PlayedEpisode | None = None

    def add(self, episode: PlayedEpisode) -> None:
        """Takes one that was not lost."""
        succeeded = bool(episode.finished.sim_success)
        is_wrong_stop = bool(episode.finished.critic_said_done) and not succeeded
        if self._records and (is_wrong_stop or succeeded):
            write_episode(self._out / KEPT_FOLDER, _recorded(episode, self._frame, self._facts))
        if is_wrong_stop and (self._first is None or episode.index < self._first.index):
            self._first = episode

    def write_first(self) -> None:
        """Writes the pictures of the wrong stop with the smallest number, if there is one."""
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
    """Removes what a round left that was cut short: played again, it may have other episodes.

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
    """A recorded episode, with a frame wherever the policy looked, the last of them at the episode's end.

    The goal holds at the looks at which the env itself would end the episode as a success. State, goal progress and
    success of the steps between two looks are those of the look before, but that a success that was over at the next
    look is put at the step before it, of which there is no frame. An env that tells no goal progress leaves an episode
    with `HAS_VERDICT`.
    """
    steps, info = _looks(episode), episode.infos[0]
    since = np.searchsorted(steps, np.arange(steps[-1] + 1), side="right") - 1
    holds = [_goal_holds(each) for each in episode.infos]
    has_progress = "sim_goal_progress" in info
    at_looks = [float(each["sim_goal_progress"]) for each in episode.infos] if has_progress else holds
    success, progress = np.array(holds)[since], np.array(at_looks, np.float32)[since]
    for look in _brief_successes(episode.infos, holds):
        success[steps[look] - 1], progress[steps[look] - 1] = True, 1.0
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
        success=success,
        goal_progress=progress,
        stages=np.full(len(since), ""),
        frame_steps=np.array(steps, np.int32),
        frames={frame.removesuffix("_image"): EncodedFrames.from_bytes(pictures)},
    )


def _goal_holds(info: dict[str, Any]) -> bool:
    """The simulator sees success at this very step: `sim_success` alone says that it has seen it so far."""
    return bool(info["sim_success"]) and bool(info.get("sim_terminated", True))


def _brief_successes(infos: list[dict[str, Any]], holds: list[bool]) -> list[int]:
    """The looks before which the simulator saw its first success, which was over when they came."""
    so_far = [bool(info["sim_success"]) for info in infos]
    return [i for i in range(1, len(infos)) if so_far[i] and not so_far[i - 1] and not holds[i]]
