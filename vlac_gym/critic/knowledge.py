"""Whether a critic knows what it is about to judge: `find_mismatches`, `settle_mismatches`, `shared_knowledge`, and
`read_knowledge`, `write_knowledge`, `parse_knowledge` for how it is written down.

A checkpoint's folder says it in `knowledge.json`: the fields of `CriticKnowledge`, each a list of texts or null.
"""

__all__ = [
    "KNOWLEDGE_FILE",
    "Mismatch",
    "OnMismatch",
    "find_mismatches",
    "parse_knowledge",
    "read_knowledge",
    "settle_mismatches",
    "shared_knowledge",
    "write_knowledge",
]

import difflib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.files.json_objects import read_json_object
from vlac_gym.types import CriticInfo, CriticKnowledge

KNOWLEDGE_FILE = "knowledge.json"
"""Name of the file in a checkpoint's folder that says what the critic was trained on."""

OnMismatch = Literal["raise", "warn"]
"""What to do with a critic that does not know what it is about to judge."""

_SHOWN_NAMES = 4

logger = logging.getLogger(__name__)


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


def settle_mismatches(info: CriticInfo, found: Sequence[Mismatch], on_mismatch: OnMismatch) -> None:
    """Logs what was found as warnings, or refuses the critic.

    Raises:
        ConfigError: Something grave, and `on_mismatch` is `raise`.
    """
    grave = [mismatch.text for mismatch in found if mismatch.is_grave]
    if grave and on_mismatch == "raise":
        raise ConfigError(
            f"The critic {info.name!r} ({info.model}) can't judge this: {'; '.join(grave)}. Choose a critic that "
            "knows it; on_critic_mismatch='warn' takes its answers all the same."
        )
    for mismatch in found:
        logger.warning("Don't rely on the critic %r (%s): %s.", info.name, info.model, mismatch.text)


def shared_knowledge(parts: Sequence[CriticKnowledge]) -> CriticKnowledge:
    """What all of one or more critics know, in the first one's order; nothing where they have nothing in common."""
    return CriticKnowledge(
        **{
            field.name: _shared([getattr(part, field.name) for part in parts])
            for field in fields(CriticKnowledge)
        }
    )


def read_knowledge(directory: str | Path) -> CriticKnowledge:
    """What a checkpoint's folder says of the critic in it; a folder without the file says that it knows anything.

    Raises:
        ConfigError: The file is not JSON, or holds something else.
    """
    file = Path(directory) / KNOWLEDGE_FILE
    if not file.is_file():
        return CriticKnowledge()
    return parse_knowledge(read_json_object(file), str(file))


def write_knowledge(directory: Path, knows: CriticKnowledge) -> None:
    """Writes what `read_knowledge` reads."""
    text = json.dumps(asdict(knows), indent=2, ensure_ascii=False) + "\n"
    (directory / KNOWLEDGE_FILE).write_text(text, encoding="utf-8")


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


def _shared(known: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    limited = [names for names in known if names is not None]
    if not limited:
        return None
    return tuple(name for name in limited[0] if all(name in names for names in limited))


def _compare(what: str, got: str | None, known: Collection[str] | None, *, is_grave: bool) -> Mismatch | None:
    if got is None or known is None or got in known:
        return None
    # Nearest first: a text that differs in a letter or two is a typing mistake.
    shown = difflib.get_close_matches(got, known, n=_SHOWN_NAMES, cutoff=0.0)
    names = ", ".join(repr(name) for name in shown) or "none"
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return Mismatch(f"it does not know {what} {got!r}; it was trained on {names}{more}", is_grave)
