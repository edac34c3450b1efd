"""A folder that holds one run: `RunFolder` writes summary.json, steps.jsonl, videos, plots and index.html.

Every file is whole or absent at any moment, so a run that is cut keeps each episode it finished.
"""

__all__ = ["RunFolder", "RunStatus"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vlac_gym import __version__
from vlac_gym.errors import ConfigError
from vlac_gym.metrics import EpisodeMetrics
from vlac_gym.reporting.curves import save_curves_png
from vlac_gym.reporting.files import append_text, write_json, write_text
from vlac_gym.reporting.page import render_page
from vlac_gym.reporting.trace import PRIVILEGED_NOTE, EpisodeTrace
from vlac_gym.reporting.video import write_video
from vlac_gym.types import CriticInfo

RunStatus = Literal["running", "complete", "interrupted", "failed"]

_FORMAT = 1
_MAY_CHANGE = ("episodes", "video")  # settings that may differ between a run and its continuation


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
        # Through JSON, so that settings compare equal to what an earlier run wrote (tuples, paths).
        self._run = json.loads(json.dumps(dict(run)))
        self._critic = critic
        self._episodes = self._load_episodes(resume=resume)
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

    def add_episode(self, trace: EpisodeTrace, *, with_video: bool, extra: Mapping[str, Any]) -> None:
        """Records a finished episode: video and plot first, then steps, then the summary that names them.

        Args:
            trace: The episode.
            with_video: Write an mp4; needs frames.
            extra: More facts for the episode's entry in the summary.
        """
        number = self.num_episodes
        stem = f"episode-{number:03d}"
        subtitle = self._subtitle(trace)
        video = f"{stem}.mp4" if with_video else None
        if video is not None:
            write_video(trace, self.path / video, subtitle=subtitle)
        save_curves_png(trace, self.path / f"{stem}.png", title=subtitle)
        rows = [json.dumps({"episode": number, **row}, allow_nan=False) for row in trace.step_rows()]
        append_text(self._steps_path, "\n".join(rows) + "\n")
        entry = {"episode": number, **extra, **trace.summary(), "video": video, "plot": f"{stem}.png"}
        self._episodes.append(entry)
        self.finish("running")

    def finish(self, status: RunStatus, error: str | None = None) -> None:
        """Writes summary and page with a new status."""
        self._summary = {
            "format": _FORMAT,
            "vlac_gym": __version__,
            "status": status,
            "error": error,
            "run": self._run,
            "critic": {
                "name": self._critic.name,
                "model": self._critic.model,
                "prompt_version": self._critic.prompt_version,
                "device": self._critic.device,
                "is_privileged": self._critic.is_privileged,
                "note": PRIVILEGED_NOTE if self._critic.is_privileged else None,
            },
            "metrics": _metrics(self._episodes),
            "episodes": list(self._episodes),
        }
        write_json(self.path / "summary.json", self._summary)
        write_text(self.path / "index.html", render_page(self._summary))

    @property
    def _steps_path(self) -> Path:
        return self.path / "steps.jsonl"

    def _subtitle(self, trace: EpisodeTrace) -> str:
        parts = [f"{trace.mode} mode", f"critic {trace.critic.label}", f"policy {self._run['policy']}"]
        if trace.init_state_id is not None:
            parts.append(f"init state {trace.init_state_id}")
        return " · ".join(parts)

    def _load_episodes(self, *, resume: bool) -> list[dict[str, Any]]:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(
                f"Expected a folder for the run, got the file {self.path}. Choose another --out."
            )
        found = self.path / "summary.json"
        if not found.exists():
            if any(self.path.glob("episode-*")) or self._steps_path.exists():
                raise ConfigError(f"{self.path} holds episodes without a summary.json. Choose another --out.")
            return []
        try:
            before = json.loads(found.read_text())
            episodes, run = list(before["episodes"]), dict(before["run"])
        except (ValueError, KeyError, TypeError) as e:
            raise ConfigError(f"{found} is not a summary of a run: {e}. Choose another --out.") from e
        if not episodes:
            return []
        if not resume:
            raise ConfigError(
                f"{self.path} holds a run with {len(episodes)} finished episode(s), which are never overwritten. "
                "Continue it with --resume, or choose another --out."
            )
        self._check_same_run(run)
        return episodes

    def _check_same_run(self, before: Mapping[str, Any]) -> None:
        keys = sorted((before.keys() | self._run.keys()) - set(_MAY_CHANGE))
        changed = [
            f"{k} was {before.get(k)!r}, is {self._run.get(k)!r}"
            for k in keys
            if before.get(k) != self._run.get(k)
        ]
        if changed:
            raise ConfigError(
                f"Can't continue the run in {self.path} with other settings: {'; '.join(changed)}."
            )

    def _trim_steps(self) -> None:
        """Drops steps of an episode that was cut between its steps and its summary."""
        if not self._steps_path.exists():
            return
        lines = self._steps_path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["episode"] < self.num_episodes]
        if len(kept) != len(lines):
            write_text(self._steps_path, "".join(line + "\n" for line in kept))


def _metrics(episodes: list[dict[str, Any]]) -> dict[str, float | None]:
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
    return metrics.compute()
