"""The texts VLAC was trained on: `pair_prompt`, `done_prompt`, `goal_done_prompt`, `SYSTEM_PROMPT`, `check_task`.

The wording, odd grammar included, is the model's interface: one changed byte changes the answers. Source:
InternRobotics/VLAC, commit 71acb22, `evo_vlac/utils/model_utils.py` (pair) and `data_processing_vlm.py` (rest).
`<image>` marks the place of a frame; the done prompt has no mark, its frame goes before the text.
"""

__all__ = [
    "MAX_REFERENCES",
    "MAX_TASK_CHARS",
    "MIN_REFERENCES",
    "PROMPT_VERSION",
    "SYSTEM_PROMPT",
    "check_reference_count",
    "check_task",
    "done_prompt",
    "goal_done_prompt",
    "pair_prompt",
    "sample_references",
]

import re
import unicodedata
from collections.abc import Sequence
from typing import TypeVar

from vlac_gym.errors import ConfigError

PROMPT_VERSION = "vlac-v3"
"""Name of this set of texts; `v3` is the reference's key of the pair prompt. Any change needs a new name."""

SYSTEM_PROMPT = (
    "You are a visual-language assistant designed to interpret spatial and task-related information from images "
    "and text. Provide precise, context-aware responses and actionable guidance to assist in achieving task "
    "objectives."
)

MIN_REFERENCES = 2
MAX_REFERENCES = 11
"""The reference's examples give up to 11 frames; below 2 its percentages divide by zero."""

MAX_TASK_CHARS = 1000
"""Ours. The longest LIBERO instruction has 99 characters; much more is a mistake and slows every request."""

_TASK = "{task}"

_PAIR = (
    "Image-1: <image>\nImage-2: <image>\n"
    "Compare two images and evaluate whether the second image is closer to achieving task objectives compared to "
    "the first image. + score means the second image is closer, - score means the first image is closer\n"
    "Response the relative progressing of target task follow <score>. "
    f"The target task is: <task> {_TASK} </task> <score>"
)
_EPISODE_START = "0% <image>\nThis image is the trajectory beginning of the following two images\n"
_THINKING = " Please give reasoning process enclosed within <think> reasoning process here </think>."
_DONE = (
    "The 1 means yes, the 0 means no. Check if the robot has completed its task: "
    f"<task> {_TASK} </task> <done>"
)
_GOAL_DONE = (
    f"<goal> <task> {_TASK} </task>: <image>\n<goal>\n<image>\n"
    " The 1 means yes, the 0 means no. Refer to the goal, check if the robot has completed its task: "
    f"<task> {_TASK} </task> <done>"
)
_GOAL_IMAGE_DONE = (
    "<goal> <image>\n<goal>\n<image>\n"
    " The 1 means yes, the 0 means no. Check if the robot has completed its image goal <done>"
)

# `<` and `>` delimit every marker of the prompts, of ChatML and of the tokenizers' special tokens;
# InternLM2's tokenizer has bracketed ones besides.
_MARKER = re.compile(r"[<>]|\[UNUSED_TOKEN", re.IGNORECASE)

T = TypeVar("T")


def check_task(task: str, where: str = "task") -> None:
    """Raises `ConfigError` unless `task` can stand in a prompt without changing its structure.

    Refused: empty texts, more than `MAX_TASK_CHARS` characters, control characters and line breaks, and
    angle brackets, also those that Unicode compatibility forms hide: with them a task could add an `<image>`,
    close `<task>` or open a ChatML turn.
    """
    if not isinstance(task, str) or not task.strip():
        raise ConfigError(f"Expected {where} as a non-empty text, got {task!r}.")
    if len(task) > MAX_TASK_CHARS:
        raise ConfigError(
            f"Expected {where} of at most {MAX_TASK_CHARS} characters, got {len(task)}: {task[:40]!r}…"
        )
    marker = _MARKER.search(unicodedata.normalize("NFKC", task))
    if marker:
        raise ConfigError(
            f"Expected {where} without {marker.group()!r}, which could form a prompt marker such as <image> "
            f"or <|im_start|>; got {task!r}. Write the instruction in plain words."
        )
    for position, character in enumerate(task):
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ConfigError(
                f"Expected {where} as one line of text, got the control character {character!r} at "
                f"position {position} of {task!r}."
            )


def pair_prompt(task: str, *, num_references: int = 0, thinking: bool = False) -> str:
    """The question whether the second of two frames is closer to the goal.

    Frames: two; with references, the references in order, the episode's first frame, then the two.

    Args:
        task: Instruction text, see `check_task`.
        num_references: 0, or 2 to 11 frames of a successful episode ("one-shot in context").
        thinking: Ask for reasoning between `<think>` and `</think>` before the number.

    Raises:
        ConfigError: The task or the number of references does not fit.
    """
    check_task(task)
    question = _PAIR.replace(_TASK, task)
    if num_references:
        check_reference_count(num_references)
        question = _reference_prompt(task, num_references) + _EPISODE_START + question
    return question + _THINKING if thinking else question


def done_prompt(task: str) -> str:
    """The question whether the task is complete in one frame, which goes before the text."""
    check_task(task)
    return _DONE.replace(_TASK, task)


def goal_done_prompt(task: str | None) -> str:
    """The question whether the second frame has reached what the first one, the goal image, shows.

    Args:
        task: Instruction text, or None to go by the goal image alone.
    """
    if task is None:
        return _GOAL_IMAGE_DONE
    check_task(task)
    return _GOAL_DONE.replace(_TASK, task)


def check_reference_count(count: int) -> None:
    """Raises `ConfigError` unless `count` is from 2 to 11."""
    if not MIN_REFERENCES <= count <= MAX_REFERENCES:
        raise ConfigError(
            f"Expected {MIN_REFERENCES} to {MAX_REFERENCES} reference frames, got {count}. "
            "Pick them from an episode with sample_references(frames, 9)."
        )


def sample_references(frames: Sequence[T], count: int = 9) -> list[T]:
    """Picks reference frames from a successful episode, evenly, the first and the last included.

    Args:
        frames: The episode's frames in order, one or more; frames repeat if there are fewer than `count`.
        count: 2 to 11. Default 9: the VLAC reference's `ref_num`.

    Raises:
        ConfigError: No frames, or `count` is out of range.
    """
    check_reference_count(count)
    if not len(frames):
        raise ConfigError("Expected one or more frames to pick references from, got none.")
    # Truncation after the float product, as in the reference: rounding would pick other frames.
    step = (len(frames) - 1) / (count - 1)
    return [frames[0], *(frames[int(i * step)] for i in range(1, count))]


def _reference_prompt(task: str, count: int) -> str:
    # The reference truncates i / (count - 1) * 100 in floating point, e.g. 28% for 2 of 7 and 57% for 4 of 7.
    marks = "".join(f" {int(i / (count - 1) * 100)}% <image>\n" for i in range(count))
    return f"<trajectory> <task> {task} </task>:{marks}</trajectory>"
