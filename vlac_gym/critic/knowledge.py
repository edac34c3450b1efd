"""Whether a critic knows what it is about to judge: `find_mismatches`, `parse_knowledge`, `Mismatch`."""

__all__ = ["Mismatch", "find_mismatches", "parse_knowledge"]

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.types import CriticInfo, CriticKnowledge

_SHOWN_NAMES = 4


@dataclass(frozen=True)
class Mismatch:
    """Something that a critic does not know.

    Attributes:
        text: Expected, got.
        is_grave: Its answers mean nothing here; otherwise they may be off, as with another renderer.
    """

    text: str
    is_grave: bool


def find_mismatches(
    info: CriticInfo,
    *,
    task: str,
    task_suite: str | None = None,
    view: str | None = None,
    renderer: str | None = None,
    inputs: Collection[str] = (),
) -> list[Mismatch]:
    """What a critic does not know of the episode that it is about to judge; empty if it knows all.

    Args:
        info: What it says about itself.
        task: Instruction text.
        task_suite: Where the task comes from; None if that is not known, as all that follow.
        view: The camera.
        renderer: What draws the pictures, e.g. ``"mujoco 3.3.2"``.
        inputs: Which of `CriticKnowledge.inputs` the caller shows it besides what it shows on its own.
    """
    knows = info.knows
    found = [
        _compare("the task", task, knows.tasks, is_grave=True),
        _compare("a task of the suite", task_suite, knows.task_suites, is_grave=True),
        _compare("the view", view, knows.views, is_grave=True),
        *(
            _compare("the input", name, knows.inputs, is_grave=True)
            for name in sorted({*inputs, *info.inputs})
        ),
        _compare("pictures of", renderer, knows.renderers, is_grave=False),
    ]
    return [mismatch for mismatch in found if mismatch is not None]


def parse_knowledge(content: Mapping[str, Any], where: str) -> CriticKnowledge:
    """Reads the JSON form of `CriticKnowledge`: its fields, each a list of texts or null.

    Raises:
        ConfigError: An unknown field, or no list of texts.
    """
    known = [field.name for field in fields(CriticKnowledge)]
    values: dict[str, tuple[str, ...]] = {}
    for name, texts in content.items():
        if name not in known:
            raise unknown_name(f"field in {where}", str(name), known)
        if texts is None:
            continue
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"Expected {name} in {where} as a list of texts or null, got {texts!r}.")
        values[name] = tuple(texts)
    return CriticKnowledge(**values)


def _compare(what: str, got: str | None, known: Collection[str] | None, *, is_grave: bool) -> Mismatch | None:
    if got is None or known is None or got in known:
        return None
    # Nearest first: a text that differs in a letter or two is a typing mistake.
    shown = difflib.get_close_matches(got, known, n=_SHOWN_NAMES, cutoff=0.0)
    names = ", ".join(repr(name) for name in shown) or "none"
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return Mismatch(f"it does not know {what} {got!r}; it was trained on {names}{more}", is_grave)
