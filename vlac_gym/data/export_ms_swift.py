"""Fine-tuning data for VLAC in ms-swift's format: `export_ms_swift`, `SwiftOptions`.

Writes `train.jsonl` (and `val.jsonl`) beside `images/`. A line holds `messages` (system, user, assistant) and
`images`; the prompts are the very texts that the critic is asked with, so `swift sft` trains what will be used. Paths
of images are relative to the folder, which ms-swift is told in the variable `ROOT_IMAGE_DIR`: the folder can be moved.
"""

__all__ = ["SwiftOptions", "export_ms_swift"]

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from vlac_gym.critic.vlac.prompts import SYSTEM_PROMPT, done_prompt, pair_prompt
from vlac_gym.data.dataset import EpisodeDataset
from vlac_gym.data.episodes import Episode
from vlac_gym.data.labels import pair_percent
from vlac_gym.data.verdicts import HAS_VERDICT
from vlac_gym.errors import ConfigError
from vlac_gym.files.atomic import write_bytes, write_text
from vlac_gym.files.output_folder import claim_folder


@dataclass(frozen=True, kw_only=True)
class SwiftOptions:
    """What to draw from each episode.

    Attributes:
        done_per_episode: Done prompts wanted of each episode, as many answered 1 as 0 over each task; >= 0.
        pairs_per_episode: Pairs of each episode; each appears in both orders; >= 0.
        mismatch_share: Share of all prompts that name another task, answered 0; [0, 0.5].
            0.05 is VLAC's (arXiv 2509.15937).
        camera: Recorded camera; None for the first.
        seed: Seed of the draws.

    Raises:
        ConfigError: A value is out of its range.
    """

    done_per_episode: int = 8
    pairs_per_episode: int = 6
    mismatch_share: float = 0.05
    camera: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.done_per_episode < 0 or self.pairs_per_episode < 0:
            raise ConfigError(
                f"Expected done_per_episode and pairs_per_episode >= 0, got {self.done_per_episode} and "
                f"{self.pairs_per_episode}."
            )
        if not 0.0 <= self.mismatch_share <= 0.5:
            raise ConfigError(f"Expected mismatch_share in [0, 0.5], got {self.mismatch_share!r}.")


@dataclass(frozen=True)
class _Sample:
    """One prompt: its text, its answer, and the frames (indices into the episode) it shows."""

    kind: str
    prompt: str
    answer: str
    frames: tuple[int, ...]


def export_ms_swift(
    dataset: EpisodeDataset,
    out: Path,
    options: SwiftOptions | None = None,
    *,
    held_out_init_states: Collection[int] = (),
) -> dict[str, dict[str, int]]:
    """Writes JSONL files and images.

    Args:
        dataset: Recorded episodes.
        out: A folder that is new or empty. Image paths in the lines are relative to it.
        options: What to draw.
        held_out_init_states: Episodes from these go to `val.jsonl`, and none of their frames to `train.jsonl`.

    Returns:
        For each file, how many prompts of each kind and answer it holds, e.g. `done/1`, `pair/+`.

    Raises:
        ConfigError: A split would be empty or give no prompt, mismatched instructions are asked for with a single
            task, an episode lacks the camera, or the folder holds files or can't be written to; nothing is written.
        DependencyNotInstalled: filelock is missing; nothing is written.
    """
    options = options or SwiftOptions()
    tasks = sorted(set(dataset.tasks().values()))
    if options.mismatch_share > 0 and len(tasks) < 2:
        raise ConfigError(
            f"Mismatched instructions need two tasks, {dataset.root} has {len(tasks)}. Use --mismatch-share 0 "
            "(mismatch_share=0)."
        )
    parts = {"train.jsonl": dataset}
    if held_out_init_states:
        train, held_out = dataset.split_by_init_state(held_out_init_states)
        parts = {"train.jsonl": train, "val.jsonl": held_out}
    with claim_folder(out):
        kept = {name: _samples(part, tasks, options, name) for name, part in parts.items()}
        (out / "images").mkdir()
        return {name: _write(kept[name], part, out, name, options.camera) for name, part in parts.items()}


def _samples(
    part: EpisodeDataset, tasks: Sequence[str], options: SwiftOptions, name: str
) -> list[tuple[int, _Sample]]:
    """The prompts of a split, each with its episode's index, drawn, balanced and shuffled."""
    rng = np.random.default_rng((options.seed, len(name)))
    samples = []
    for index, episode in enumerate(part):
        episode.view(options.camera)  # raises where the camera is missing
        samples += [(index, sample) for sample in _draw(episode, tasks, options, rng)]
    kept = _balance(samples, part, rng)
    if not kept:
        raise ConfigError(
            f"{name} would be empty: {len(part)} episodes of {part.root} give no prompt with {options}. "
            "Done prompts need frames with and without success of one task, pairs need two frames of an episode."
        )
    return kept


def _draw(episode: Episode, tasks: Sequence[str], options: SwiftOptions, rng: Generator) -> Iterator[_Sample]:
    task = episode.meta.task
    others = [other for other in tasks if other != task]
    success = episode.success[episode.frame_steps]
    for frame in _done_frames(success, options.done_per_episode, rng):
        yield _Sample("done", done_prompt(task), "1" if success[frame] else "0", (frame,))
        if success[frame] and rng.random() < 2 * options.mismatch_share:
            yield _Sample("done", done_prompt(str(rng.choice(others))), "0", (frame,))
    if episode.meta.details.get(HAS_VERDICT):
        return
    progress = episode.goal_progress[episode.frame_steps]
    for _ in range(options.pairs_per_episode if len(success) > 1 else 0):
        first, second = sorted(int(i) for i in rng.choice(len(success), 2, replace=False))
        other = str(rng.choice(others)) if rng.random() < options.mismatch_share else None
        for before, after in ((first, second), (second, first)):
            percent = int(pair_percent(progress[before : before + 1], progress[after : after + 1])[0])
            answer = f"{percent:+d}" if percent and other is None else "0"
            yield _Sample("pair", pair_prompt(other or task), answer, (before, after))


def _done_frames(success: Any, count: int, rng: Generator) -> list[int]:
    """Half from either class where both are there; half of the failures from the end, where near misses lie."""
    good, bad = np.flatnonzero(success), np.flatnonzero(~success)
    late = bad[-max(1, len(bad) // 4) :]
    chosen = [
        *rng.permutation(good)[: count // 2 if len(bad) else count],
        *rng.permutation(late)[: count // 4],
    ]
    rest = np.setdiff1d(bad, chosen)
    return [int(i) for i in [*chosen, *rng.permutation(rest)[: count - len(chosen)]]]


def _balance(
    samples: list[tuple[int, _Sample]], part: EpisodeDataset, rng: Generator
) -> list[tuple[int, _Sample]]:
    """Drops done prompts of the commoner answer until each task has as many of 1 as of 0; shuffles."""
    by_task: dict[str, dict[str, list[int]]] = {}
    for row, (index, sample) in enumerate(samples):
        if sample.kind == "done":
            answers = by_task.setdefault(part.entries[index].meta.task, {"0": [], "1": []})
            answers[sample.answer].append(row)
    dropped: set[int] = set()
    for answers in by_task.values():
        keep = min(map(len, answers.values()))
        for rows in answers.values():
            dropped.update(int(i) for i in rng.permutation(rows)[keep:])
    kept = [row for row in range(len(samples)) if row not in dropped]
    return [samples[row] for row in rng.permutation(kept)] if kept else []


def _write(
    samples: Sequence[tuple[int, _Sample]], part: EpisodeDataset, out: Path, name: str, camera: str | None
) -> dict[str, int]:
    counts: dict[str, int] = {}
    wanted: dict[int, set[int]] = {}
    lines = []
    for index, sample in samples:
        wanted.setdefault(index, set()).update(sample.frames)
        images = [_image(part, index, frame) for frame in sample.frames]
        messages = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": sample.prompt},
            {"role": "assistant", "content": sample.answer},
        ]
        lines.append(json.dumps({"messages": messages, "images": images}, ensure_ascii=False))
        sign = sample.answer if sample.kind == "done" or sample.answer == "0" else sample.answer[0]
        key = f"{sample.kind}/{sign}"
        counts[key] = counts.get(key, 0) + 1
    for index, frames in wanted.items():
        view = part[index].view(camera)
        for frame in frames:
            write_bytes(out / _image(part, index, frame), view.encoded(frame))
    write_text(out / name, "".join(f"{line}\n" for line in lines))
    return dict(sorted(counts.items()))


def _image(part: EpisodeDataset, index: int, frame: int) -> str:
    """Where a frame lies below the folder, with forward slashes."""
    meta = part.entries[index].meta
    suffix = "jpg" if meta.encoding == "jpeg" else "png"
    return f"images/{meta.episode_id}-{frame:04d}.{suffix}"
