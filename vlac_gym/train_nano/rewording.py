"""Other wordings of an instruction for training: `reword`, `Wordings`. numpy only.

The report card asks with wordings of its own (`vlac_gym.report_card.probes.paraphrases`): "please ...", a capital and
a full stop, capitals throughout, and "grab ... and put it". The first three are made here too. The fourth is not:
no wording says "grab" or "pull open", and none drops a "the". So that probe, and the instructions of LIBERO-PRO's
`_lan` suites, tell how a critic trained here takes words it never saw.
"""

__all__ = ["WORDINGS_PER_TASK", "Wordings", "reword"]

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDINGS_PER_TASK = 64
"""Texts of a task, the original among them: enough to vary every choice, few enough to encode all at the start."""

_JOINT = re.compile(r" and (?=(?:place|put|set|pick|turn|push|close|open)\b)", re.IGNORECASE)
_JOINTS = (" and ", " and then ", ", then ", ", and ", " then ")

_PUT = re.compile(r"^(?:place|put|set)\b", re.IGNORECASE)
_VERBS = (
    (re.compile(r"^pick up\b", re.IGNORECASE), ("pick up", "take", "lift", "lift up", "grasp", "get")),
    (_PUT, ("place", "put", "set", "lay")),
    (re.compile(r"^open\b", re.IGNORECASE), ("open", "open up")),
    (re.compile(r"^close\b", re.IGNORECASE), ("close", "shut")),
    (re.compile(r"^turn on\b", re.IGNORECASE), ("turn on", "switch on")),
    (re.compile(r"^push\b", re.IGNORECASE), ("push", "slide", "move")),
)
_PLACES = (
    (re.compile(r"\b(?:next to|beside)\b", re.IGNORECASE), ("next to", "beside", "right next to")),
    (re.compile(r"\bbetween\b", re.IGNORECASE), ("between", "in between")),
)
_GOAL = re.compile(r"\b(on|in) the\b(?!.*\b(?:on|in) the\b)", re.IGNORECASE)
_GOALS = {"on": ("on the", "onto the"), "in": ("in the", "into the", "inside the")}

_PREFIXES = ("please ", "now ", "now please ", "next, ", "your task: ", "the task: ", "task: ", "robot, ")
_QUESTIONS = ("could you ", "can you please ")
_ENDS = ("", ".", "!")

_CASES: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: text[:1].upper() + text[1:],
    str.upper,
    str.title,
)
_CASE_SHARES = (0.4, 0.3, 0.2, 0.1)
_WORDS_SHARE = 0.6
_PREFIX_SHARE = 0.4


def reword(task: str, rng: np.random.Generator) -> str:
    """The instruction in other words: verbs, prepositions, joints, a prefix, an end mark and letter case.

    Objects, places and their order stay. What no rule knows stays as well: only prefix, mark and case vary then.

    Args:
        task: The instruction, in English; an end mark it has is dropped first.
        rng: Source of the draws. The text may come back as it was.
    """
    text = task.strip().rstrip(".!?")
    if rng.random() < _WORDS_SHARE:
        text = _other_words(text, rng)
    ends: tuple[str, ...] = _ENDS
    if rng.random() < _PREFIX_SHARE:
        prefix = _pick((*_PREFIXES, *_QUESTIONS), rng)
        text = prefix + text
        ends = ("", "?") if prefix in _QUESTIONS else _ENDS
    text += _pick(ends, rng)
    return _CASES[rng.choice(len(_CASES), p=_CASE_SHARES)](text)


class Wordings:
    """Fixed wordings of several instructions, and draws among them.

    Args:
        tasks: The instructions.
        share: Of the draws that are reworded, in [0, 1].
        seed: Of the wordings and the draws.

    Attributes:
        texts: For each task its wordings, the instruction itself first, without repetition; only that one if
            `share` is 0.
        held_out: For each task a wording that `texts` lacks; the instruction itself if `share` is 0.
    """

    def __init__(self, tasks: Sequence[str], share: float, seed: int) -> None:
        self._share = share
        # A stream apart from the sampler's, which has the bare seed.
        self._rng = np.random.default_rng((seed, 1))
        made = [
            _distinct(task, WORDINGS_PER_TASK + 1, self._rng) if share else [task, task] for task in tasks
        ]
        self.texts = [texts[:-1] for texts in made]
        self.held_out = [texts[-1] for texts in made]

    def state(self) -> dict[str, Any]:
        """Where the draws stand; JSON-serialisable."""
        return dict(self._rng.bit_generator.state)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`."""
        self._rng.bit_generator.state = dict(state)

    def draw(self, tasks: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each prompt's task the index of a wording in `texts`; 0 is the instruction itself."""
        if not self._share:
            return np.zeros(len(tasks), np.int64)
        counts = np.array([len(self.texts[task]) for task in tasks])
        reworded = self._rng.random(len(tasks)) < self._share
        return np.where(reworded, self._rng.integers(1, counts), 0)


def _distinct(task: str, count: int, rng: np.random.Generator) -> list[str]:
    """The task and `count - 1` other wordings of it; prefixes, marks and cases alone make 90 of any instruction."""
    found = {task: None}
    while len(found) < count:
        found[reword(task, rng)] = None
    return list(found)


def _other_words(text: str, rng: np.random.Generator) -> str:
    clauses = [_reworded_clause(clause, rng) for clause in _JOINT.split(text)]
    joined = clauses[0]
    for clause in clauses[1:]:
        joined += _pick(_JOINTS, rng) + clause
    return joined


def _reworded_clause(clause: str, rng: np.random.Generator) -> str:
    if _PUT.match(
        clause
    ):  # Only of what is put somewhere "on" tells the goal; elsewhere where a thing is found.
        clause = _GOAL.sub(lambda found: _pick(_GOALS[found[1].lower()], rng), clause)
    for pattern, others in (*_VERBS, *_PLACES):
        if pattern.search(clause):
            clause = pattern.sub(_pick(others, rng), clause)
    return clause


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
