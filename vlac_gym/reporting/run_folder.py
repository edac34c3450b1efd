"""A folder that holds one run: `RunFolder` writes summary.json, steps.jsonl, recordings, videos, plots, index.html.

Every file is whole or absent at any moment, so a run that is cut keeps each episode it finished.
"""

__all__ = ["RUN_FILES", "RunFolder", "RunStatus", "recorded_episodes"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vlac_gym import __version__
from vlac_gym.errors import ConfigError
from vlac_gym.files.atomic import append_text, write_json, write_text
from vlac_gym.metrics.episodes import CRITIC_FAILURES, EpisodeMetrics
from vlac_gym.reporting.critic_facts import critic_facts, critic_title
from vlac_gym.reporting.curves import save_curves_png
from vlac_gym.reporting.episode_picture import picture_of_trace
from vlac_gym.reporting.mp4 import write_mp4
from vlac_gym.reporting.page import render_page
from vlac_gym.reporting.trace import PRIVILEGED_NOTE, EpisodeTrace
from vlac_gym.reporting.video import write_video
from vlac_gym.types import CriticInfo

RunStatus = Literal["running", "complete", "interrupted", "failed"]

RUN_FILES = (
    "summary.json", "steps.jsonl", "index.html", "episode-*", "config.yaml", "metrics.jsonl", "tensorboard", "wandb",
)  # fmt: skip
"""Names (shell patterns) of all that such a folder holds."""

_FORMAT = 1
_FPS = 20  # LIBERO's control rate, Hz
_MAY_CHANGE = ("episodes", "video", "frames")  # settings that may differ between a run and its continuation


class RunFolder:
    """The files of one run.

    Args:
        path: Folder; made if absent, parents too.
        run: Settings of the run, JSON-serialisable; needs `task_suite`, `task_id`, `policy`, `critic`, `mode`,
            `episodes` and `seed`.
        critic: What the critic says about itself.
        resume: Continue the run that `path` holds. Without it, a folder that holds episodes is refused.

    Raises:
        ConfigError: The folder holds a run and `resume` is off, or its settings differ, or it can't be written.
    """

    def __init__(
        self, path: Path, *, run: Mapping[str, Any], critic: CriticInfo, resume: bool = False
    ) -> None:
        self.path = path
        self._run = _as_written(run)
        self._critic = critic
        self._episodes = recorded_episodes(path, run, resume=resume)
        if self._episodes:
            self._check_same_critic()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._trim_steps()
            self.finish("running")
        except OSError as e:
            raise ConfigError(f"Can't write the run to {path}: {e}. Choose another --out.") from e

    @property
    def num_episodes(self) -> int:
        """Episodes recorded so far; the next one gets this number."""
        return len(self._episodes)

    @property
    def summary(self) -> dict[str, Any]:
        """Content of `summary.json` as of the last write."""
        return self._summary

    def add_episode(
        self, trace: EpisodeTrace, *, with_video: bool, with_frames: bool = False, extra: Mapping[str, Any]
    ) -> None:
        """Records a finished episode: pictures first, then steps, then the summary that names them.

        Args:
            trace: The episode.
            with_video: Write an annotated mp4; needs frames.
            with_frames: Write the frames themselves, without loss, as `episode-NNN.raw.mp4`; needs frames.
            extra: More facts for the episode's entry in the summary.
        """
        number = self.num_episodes
        stem = f"episode-{number:03d}"
        subtitle, picture = self._subtitle(trace), picture_of_trace(trace)
        video = f"{stem}.mp4" if with_video else None
        if video is not None:
            write_video(picture, self.path / video, subtitle=subtitle)
        frames = f"{stem}.raw.mp4" if with_frames else None
        if frames is not None:
            write_mp4(trace.frames, self.path / frames, fps=_FPS, is_recording=True)
        save_curves_png(picture, self.path / f"{stem}.png", title=subtitle)
        rows = [json.dumps({"episode": number, **row}, allow_nan=False) for row in trace.step_rows()]
        append_text(self._steps_path, "\n".join(rows) + "\n")
        files = {"video": video, "frames": frames, "plot": f"{stem}.png"}
        entry = {"episode": number, **extra, **trace.summary(), **files}
        self._episodes.append(entry)
        self.finish("running")

    def finish(self, status: RunStatus, error: str | None = None, *, critic_failures: int = 0) -> None:
        """Writes summary and page with a new status.

        Args:
            status: How the run stands.
            error: Why it failed, if it did.
            critic_failures: Requests without a usable answer in an episode that they ended before its time, so
                that it is none of the recorded ones.
        """
        self._summary = {
            "format": _FORMAT,
            "vlac_gym": __version__,
            "status": status,
            "error": error,
            "run": self._run,
            "critic": {
                **critic_facts(self._critic),
                "note": PRIVILEGED_NOTE if self._critic.is_privileged else None,
            },
            "metrics": _metrics(self._episodes, critic_failures),
            "episodes": list(self._episodes),
        }
        write_json(self.path / "summary.json", self._summary)
        write_text(self.path / "index.html", render_page(self._summary))

    @property
    def _steps_path(self) -> Path:
        return self.path / "steps.jsonl"

    def _subtitle(self, trace: EpisodeTrace) -> str:
        critic = critic_title(self._critic)
        if self._critic.is_privileged:
            critic += f" ({PRIVILEGED_NOTE})"
        parts = [f"{trace.mode} mode", f"critic {critic}", f"policy {self._run['policy']}"]
        if trace.init_state_id is not None:
            parts.append(f"init state {trace.init_state_id}")
        return " · ".join(parts)

    def _check_same_critic(self) -> None:
        """A spec such as a URL can lead to another critic than before."""
        before = json.loads((self.path / "summary.json").read_text())["critic"]
        now = critic_facts(self._critic)
        if before.get("fingerprint", now["fingerprint"]) != now["fingerprint"]:
            raise ConfigError(
                f"Can't continue the run in {self.path} with another critic: it was {before['title']} "
                f"(fingerprint {before['fingerprint']}), now it is {now['title']} ({now['fingerprint']})."
            )

    def _trim_steps(self) -> None:
        """Drops steps of an episode that was cut between its steps and its summary."""
        if not self._steps_path.exists():
            return
        lines = self._steps_path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["episode"] < self.num_episodes]
        if len(kept) != len(lines):
            write_text(self._steps_path, "".join(line + "\n" for line in kept))


def recorded_episodes(path: Path, run: Mapping[str, Any], *, resume: bool) -> list[dict[str, Any]]:
    """The finished episodes that `path` holds, if a run with the settings `run` may be written there.

    Raises:
        ConfigError: The folder holds a run and `resume` is off, or its settings differ.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"Expected a folder for the run, got the file {path}. Choose another --out.")
    found = path / "summary.json"
    if not found.exists():
        if any(path.glob("episode-*")) or (path / "steps.jsonl").exists():
            raise ConfigError(f"{path} holds episodes without a summary.json. Choose another --out.")
        return []
    try:
        before = json.loads(found.read_text())
        episodes, settings = list(before["episodes"]), dict(before["run"])
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"{found} is not a summary of a run: {e}. Choose another --out.") from e
    if not episodes:
        return []
    if not resume:
        raise ConfigError(
            f"{path} holds a run with {len(episodes)} finished episode(s), which are never overwritten. "
            "Continue it with --resume, or choose another --out."
        )
    _check_same_run(path, settings, _as_written(run))
    return episodes


def _check_same_run(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    keys = sorted((before.keys() | now.keys()) - set(_MAY_CHANGE))
    changed = [f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in keys if before.get(k) != now.get(k)]
    if changed:
        raise ConfigError(f"Can't continue the run in {path} with other settings: {'; '.join(changed)}.")


def _as_written(run: Mapping[str, Any]) -> dict[str, Any]:
    """Through JSON, so that settings compare equal to what an earlier run wrote (tuples, paths)."""
    written: dict[str, Any] = json.loads(json.dumps(dict(run)))
    return written


def _metrics(episodes: list[dict[str, Any]], lost_failures: int) -> dict[str, float | None]:
    metrics = EpisodeMetrics()
    for e in episodes:
        metrics.add(
            num_steps=e["steps"],
            episode_return=e["return"],
            sim_success=e["success"],
            critic_said_done=None if e["mode"] == "eval" else e["critic_done_step"] is not None,
            success_prob=e["critic"]["success_prob_last"],
            latency_ms=e["critic"]["latency_ms_mean"],
            critic_failures=e["critic"]["failures"],
        )
    values = metrics.compute()
    return {**values, CRITIC_FAILURES: (values[CRITIC_FAILURES] or 0.0) + lost_failures}
