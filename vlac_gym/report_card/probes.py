"""Questions with a known right answer, and the same question asked differently: `ProbeRunner`, `ProbeResults`.

Clock controls (a frozen video, shuffled frames), pair consistency, a wrong instruction, paraphrases, changed
pictures and the other recorded views. They cost extra calls, so only the first episodes of a dataset are probed.
"""

__all__ = ["PICTURE_CHANGES", "ProbeResults", "ProbeRunner", "paraphrases"]

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vlac_gym.data.episodes import Episode
from vlac_gym.frames.codec import decode_frame, encode_frame
from vlac_gym.metrics.progress import value_order_correlation
from vlac_gym.report_card.asking import AskedCritic
from vlac_gym.report_card.episode_answers import EpisodeAnswers, shown_frames, value_indices
from vlac_gym.report_card.references import ReferencePicker
from vlac_gym.report_card.statistics import Array
from vlac_gym.types import Frame

_SYNONYMS = (
    (r"^pick up\b", "grab"),
    (r"\band place it\b", "and put it"),
    (r"^put\b", "place"),
    (r"^open\b", "pull open"),
)


def _darken(frame: Frame) -> Frame:
    return (frame * np.float32(0.6)).astype(np.uint8)


def _halve(frame: Frame) -> Frame:
    return np.repeat(np.repeat(frame[::2, ::2], 2, axis=0), 2, axis=1)[: frame.shape[0], : frame.shape[1]]


PICTURE_CHANGES: dict[str, Callable[[Frame], Frame]] = {
    "rotated_180": lambda frame: np.ascontiguousarray(frame[::-1, ::-1]),
    "mirrored": lambda frame: np.ascontiguousarray(frame[:, ::-1]),
    "jpeg_30": lambda frame: decode_frame(encode_frame(frame, "jpeg", 30)),
    "darker_40_percent": _darken,
    "half_resolution": _halve,
}
"""Name -> what is done to the picture."""


@dataclass
class ProbeResults:
    """Raw answers; each list has one entry per probe that was made.

    Attributes:
        probed: Episodes that were probed.
        frozen: Largest |value| on the first frame shown over and over.
        shuffled: Spearman's correlation of value and order on shuffled frames.
        identity: |progress| from a frame to itself.
        triples: (first half, second half, direct) progress over three frames.
        clean: (score, success) of last frames, the reference of what follows.
        wrong_task: Scores of last frames of successes under another task's instruction.
        paraphrased: Per episode, scores of the last frame under each wording, the original first; NaN where the
            critic gave no usable answer to a wording.
        changed: Picture change -> (score as recorded, score of the changed picture, success) of last frames.
        other_views: Most other views that an episode has.
        views: Other recorded view -> (score in the judged view, score in this one, success) of last frames.
    """

    probed: int = 0
    frozen: list[float] = field(default_factory=list)
    shuffled: list[float] = field(default_factory=list)
    identity: list[float] = field(default_factory=list)
    triples: list[tuple[float, float, float]] = field(default_factory=list)
    clean: list[tuple[float, bool]] = field(default_factory=list)
    wrong_task: list[float] = field(default_factory=list)
    paraphrased: list[Array] = field(default_factory=list)
    changed: dict[str, list[tuple[float, float, bool]]] = field(default_factory=dict)
    other_views: int = 0
    views: dict[str, list[tuple[float, float, bool]]] = field(default_factory=dict)


class ProbeRunner:
    """Probes the first episodes that it is shown; see `judge_episodes(visit=…)`.

    A privileged critic can't judge pictures that the simulator never made, nor texts: it gets the pair and
    clock probes only.

    Args:
        asked: The critic.
        tasks: Every (suite, task id) of the dataset with its instruction; others are the wrong ones.
        limit: Episodes to probe.
        camera: Which recorded camera to show.
        value_stride: As in judging.
        is_privileged: Whether the critic reads the simulator.
        references: As in judging.
        seed: Seed of the shuffles and of the choice of wrong instructions.
    """

    def __init__(
        self,
        asked: AskedCritic,
        tasks: Mapping[tuple[str, int], str],
        *,
        limit: int = 40,
        camera: str | None = None,
        value_stride: int = 5,
        is_privileged: bool = False,
        references: ReferencePicker | None = None,
        seed: int = 0,
    ) -> None:
        self.results = ProbeResults()
        self._asked = asked
        self._tasks = dict(tasks)
        self._left = limit
        self._camera = camera
        self._value_stride = value_stride
        self._is_privileged = is_privileged
        self._references = references
        self._rng = np.random.default_rng(seed)

    def visit(self, episode: Episode, judged: EpisodeAnswers) -> None:
        """Probes one episode."""
        if self._left <= 0:
            return
        self._left -= 1
        self.results.probed += 1
        at_values = value_indices(episode, self._value_stride).tolist()
        listed = list(shown_frames(self._asked.critic, episode, at_values, camera=self._camera).values())
        shown = None if self._references is None else self._references.frames_for(episode.meta)
        self._clock(listed, episode.meta.task, shown)
        self._pairs(listed, judged, episode.meta.task, shown)
        if not self._is_privileged:
            self._words_and_pictures(episode, judged, listed[-1])
            self._other_views(episode, judged)

    def _clock(self, listed: Sequence[Frame], task: str, references: Sequence[Frame] | None) -> None:
        frozen = self._asked.value([listed[0]] * len(listed), task, references)
        if np.isfinite(frozen).all():
            self.results.frozen.append(float(np.abs(frozen).max()))
        shuffled = [listed[i] for i in self._rng.permutation(len(listed))]
        mixed = self._asked.value(shuffled, task, references)
        order = value_order_correlation(mixed) if np.isfinite(mixed).all() else None
        if order is not None:
            self.results.shuffled.append(order)

    def _pairs(
        self,
        listed: list[Frame],
        judged: EpisodeAnswers,
        task: str,
        references: Sequence[Frame] | None,
    ) -> None:
        ends = listed[:1] + listed[-1:]
        same = self._asked.progress(ends, ends, [task] * 2, references)
        self.results.identity += [float(abs(c)) for c in same if np.isfinite(c)]
        starts = range(0, len(listed) - 2, 2)
        direct = self._asked.progress(
            [listed[i] for i in starts], [listed[i + 2] for i in starts], [task] * len(starts), references
        )
        for i, whole in zip(starts, direct):
            triple = (float(judged.forward[i]), float(judged.forward[i + 1]), float(whole))
            if np.isfinite(triple).all():
                self.results.triples.append(triple)

    def _words_and_pictures(self, episode: Episode, judged: EpisodeAnswers, last: Frame) -> None:
        task = episode.meta.task
        clean = float(judged.checks.probs[-1])
        wordings = [*paraphrases(task)]
        wrong = self._another_task(episode)
        pictures = [change(last) for change in PICTURE_CHANGES.values()]
        texts = [*wordings, *([wrong] if wrong else []), *[task] * len(pictures)]
        scores = self._asked.success_prob([last] * (len(texts) - len(pictures)) + pictures, texts)
        if not np.isfinite(clean):
            return
        self.results.clean.append((clean, judged.ends_in_success))
        self.results.paraphrased.append(np.array([clean, *scores[: len(wordings)]]))
        if wrong and judged.ends_in_success and np.isfinite(scores[len(wordings)]):
            self.results.wrong_task.append(float(scores[len(wordings)]))
        _compare(self.results.changed, PICTURE_CHANGES, scores[len(texts) - len(pictures) :], judged)

    def _other_views(self, episode: Episode, judged: EpisodeAnswers) -> None:
        shown = next(iter(episode.frames)) if self._camera is None else self._camera
        others = [view for view in episode.frames if view != shown]
        self.results.other_views = max(self.results.other_views, len(others))
        last = [episode.view(view)[-1] for view in others]
        scores = self._asked.success_prob(last, [episode.meta.task] * len(last))
        _compare(self.results.views, others, scores, judged)

    def _another_task(self, episode: Episode) -> str | None:
        meta = episode.meta
        others = sorted(
            {t for (suite, _), t in self._tasks.items() if suite == meta.task_suite and t != meta.task}
        )
        return str(self._rng.choice(others)) if others else None


def _compare(
    rows: dict[str, list[tuple[float, float, bool]]],
    names: Iterable[str],
    scores: Array,
    judged: EpisodeAnswers,
) -> None:
    """Adds each name's score beside the last frame's own, where both answers were usable."""
    clean = float(judged.checks.probs[-1])
    for name, score in zip(names, scores):
        if np.isfinite([clean, score]).all():
            rows.setdefault(name, []).append((clean, float(score), judged.ends_in_success))


def paraphrases(task: str) -> list[str]:
    """Other wordings of an instruction: polite, with a full stop, in capitals, with synonyms."""
    text = task.strip().rstrip(".")
    wordings = [f"please {text[0].lower()}{text[1:]}", f"{text[0].upper()}{text[1:]}.", text.upper()]
    reworded = text
    for pattern, other in _SYNONYMS:
        reworded = re.sub(pattern, other, reworded, flags=re.IGNORECASE)
    return wordings if reworded == text else [*wordings, reworded]
