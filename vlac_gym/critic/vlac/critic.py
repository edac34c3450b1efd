"""VLAC as a critic: `VLACCritic` puts prompts, an engine and the reading of replies together."""

__all__ = ["VLACConfig", "VLACCritic", "check_pictures"]

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vlac_gym.critic.base import BaseCritic, check_frame, check_frames, check_same_length, check_tasks
from vlac_gym.critic.engines.base import AnswerKind, Engine, EngineReply, EngineRequest
from vlac_gym.critic.vlac import parsing, prompts
from vlac_gym.critic.vlac.description import describe_vlac
from vlac_gym.critic.vlac.pairs import PairValues, episode_pairs
from vlac_gym.errors import ConfigError, CriticResponseError, CriticServerError, unknown_name
from vlac_gym.metrics.progress import VALUE_RULES, ValueRule, accumulate_values
from vlac_gym.types import CriticInfo, CriticKnowledge, FloatArray, Frame

_log = logging.getLogger(__name__)

_WARM_UP_TASKS = (
    "put the bowl on the plate",
    "pick up the black bowl between the plate and the ramekin and place it on the plate",
)
"""A short and a long instruction of LIBERO."""

_MAX_NUMBER_TOKENS = 8
"""Sign, digits and end token of a reply; one or two tokens with VLAC's tokenizer, more with others."""


@dataclass(frozen=True, kw_only=True)
class VLACConfig:
    """How VLAC is asked and read.

    Attributes:
        reading: `rich`, `plain` or `exact`; see `parsing.Reading`. Default `rich`: what the reference's video
            interface uses for done.
        thinking: Ask pairs for their reasoning first; slower by the length of the thought. Done prompts have
            no thinking form.
        max_thinking_tokens: Bound of a thinking reply; >= 1. Ours; the reference allows 10,240.
        value_rule: How regress lowers the value; see `accumulate_values`.
        unfinished_value_limit: If set, in (0, 1], `value` also asks whether each frame is done: with answer p,
            its value is the expected `p + (1 - p) * min(v, limit)`. Default None: pairs alone, as the reference.
        out_of_scale: What to do with a reply outside the scale (done: 0 to 1, pair: -100 to 100): `raise` or
            `clip`, which logs the first and counts all in `describe().details`. A trained VLAC stays inside; a
            checkpoint with random weights does not.
        goal_needs_task: With a goal image: name the task in the done prompt besides.

    Raises:
        ConfigError: A value is unknown or out of its range.
    """

    reading: parsing.Reading = "rich"
    thinking: bool = False
    max_thinking_tokens: int = 1024
    value_rule: ValueRule = "simple"
    unfinished_value_limit: float | None = None
    out_of_scale: Literal["raise", "clip"] = "raise"
    goal_needs_task: bool = True

    def __post_init__(self) -> None:
        for name, known in (
            ("reading", get_args(parsing.Reading)),
            ("value_rule", tuple(VALUE_RULES)),
            ("out_of_scale", ("raise", "clip")),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, str(getattr(self, name)), known)
        limit = self.unfinished_value_limit
        if limit is not None and not 0.0 < limit <= 1.0:
            raise ConfigError(f"Expected unfinished_value_limit in (0, 1] or None, got {limit!r}.")
        if self.max_thinking_tokens < 1:
            raise ConfigError(f"Expected max_thinking_tokens >= 1, got {self.max_thinking_tokens!r}.")


def check_pictures(references: Sequence[Frame] | None = None, goal_image: Frame | None = None) -> None:
    """Raises `ConfigError` unless there are 2 to 11 well-formed references and a well-formed goal image, if any."""
    if references is not None:
        prompts.check_reference_count(len(references))
        check_frames(references, "references")
    if goal_image is not None:
        check_frame(goal_image, "goal_image")


class VLACCritic(BaseCritic):
    """Judges frames by asking a vision-language model VLAC's questions.

    Deterministic if the engine is. Holds no state between calls but the references and a count of replies out
    of scale; safe to share between threads if the engine is.

    Args:
        engine: The model; closed by `close`.
        config: How it is asked and read.
        references: 2 to 11 frames of a successful episode in order (in-context one-shot), used by `progress`
            and `value` unless a call brings its own; copied. `prompts.sample_references` picks them.
        goal_image: A frame in which the task is done; `success_prob` then compares with it. Copied.
        name: What `describe` calls it; default: the engine's name.
        model: What `describe` calls its model; default: as the engine does.
        knows: What the model was trained on; anything by default.

    Raises:
        ConfigError: References or goal image do not fit.

    Example:
        >>> from vlac_gym.critic.engines.scripted import ScriptedEngine
        >>> frames = [np.full((8, 8, 3), level, np.uint8) for level in (0, 90, 200)]
        >>> critic = VLACCritic(ScriptedEngine(["+50", "-20"]))
        >>> critic.value(frames, "open the drawer").tolist()
        [0.0, 0.5, 0.4000000059604645]
    """

    def __init__(
        self,
        engine: Engine,
        config: VLACConfig | None = None,
        *,
        references: Sequence[Frame] | None = None,
        goal_image: Frame | None = None,
        name: str | None = None,
        model: str | None = None,
        knows: CriticKnowledge | None = None,
    ) -> None:
        check_pictures(references, goal_image)
        self._knows = knows or CriticKnowledge()
        self._name, self._model = name, model
        self.config = config or VLACConfig()
        self._engine = engine
        self.takes_device_frames = getattr(engine, "takes_device_frames", False)
        self._references = tuple(_frozen_copy(frame) for frame in references or ())
        self._goal_image = None if goal_image is None else _frozen_copy(goal_image)
        self._num_out_of_scale = 0

    def success_prob(self, frames: Sequence[Frame], tasks: Sequence[str]) -> FloatArray:
        """Probability that the task is complete in each frame; float32 (N,) in [0, 1].

        Raises:
            ConfigError: A frame or task is malformed, or the lengths differ.
            CriticResponseError: A reply holds no number, or one that is neither 0 nor 1.
            CriticError: The engine failed.
        """
        return np.clip(self.judge_done(frames, tasks), 0.0, 1.0).astype(np.float32)

    def progress(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
        *,
        starts: Sequence[Frame] | None = None,
    ) -> FloatArray:
        """Signed progress of each pair; float32 (N,) in [-1, 1].

        Args:
            before: N frames.
            after: N frames.
            tasks: N task texts.
            references: 2 to 11 frames shared by all pairs; default: the constructor's.
            starts: First frame of each pair's episode, which the prompt with references shows; default: each
                pair's `before`. Unused without references.

        Raises:
            ConfigError, CriticError: as `success_prob`.
        """
        judged = self.judge_pairs(before, after, tasks, references, starts=starts)
        return np.clip(judged, -1.0, 1.0).astype(np.float32)

    def value(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> FloatArray:
        """Accumulated completion over an episode's frames; float32 (T,) in [0, 1], the first 0.

        Each frame is compared with the one before it; every value is kept in [0, 1].

        Raises:
            ConfigError, CriticError: as `success_prob`.
        """
        return self.value_and_progress(frames, task, references)[0]

    def values(
        self,
        episodes: Sequence[Sequence[Frame]],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
    ) -> list[FloatArray]:
        """`value` of several episodes, float32 (T_i,) each: the engine is given the pairs of all of them, and the done
        checks if `unfinished_value_limit` is set, in one call.

        In a subclass with a `value` or `value_and_progress` of its own, those are asked, one episode after the other;
        `judge_pairs` and `judge_done` are not asked.

        Raises:
            ConfigError, CriticError: as `success_prob`.
        """
        check_tasks(tasks)
        check_same_length(episodes=episodes, tasks=tasks)
        listed = [list(frames) for frames in episodes]  # an array has a new frame at every look
        for i, (frames, task) in enumerate(zip(listed, tasks)):
            prompts.check_task(task, f"tasks[{i}]")
            check_frames(frames, f"episodes[{i}]")
        own = type(self)
        if (own.value, own.value_and_progress) != (VLACCritic.value, VLACCritic.value_and_progress):
            return super().values(listed, tasks, references)
        return [values for values, _ in self._values_and_progress(listed, tasks, references)]

    def value_and_progress(
        self, frames: Sequence[Frame], task: str, references: Sequence[Frame] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """`value` of T >= 1 frames, and the progress that it adds up, float32 (T - 1,)."""
        prompts.check_task(task)
        listed = list(frames)
        check_frames(listed)
        return self._values_and_progress([listed], [task], references)[0]

    def _values_and_progress(
        self,
        episodes: Sequence[Sequence[Frame]],
        tasks: Sequence[str],
        references: Sequence[Frame] | None,
    ) -> list[tuple[FloatArray, FloatArray]]:
        asked = [task for frames, task in zip(episodes, tasks) for _ in frames[1:]]
        before = [frame for frames in episodes for frame in frames[:-1]]
        after = [frame for frames in episodes for frame in frames[1:]]
        starts = [frames[0] for frames in episodes for _ in frames[1:]]
        pairs = self._pair_requests(before, after, asked, references, starts)
        checks: list[EngineRequest] = []
        if self.config.unfinished_value_limit is not None:
            checks = [self._done_request(frame, task) for frame, task in zip(after, asked)]
        replies = self._ask([*pairs, *checks])  # at once, so that one wait brings both
        progress = np.clip(self._read_all_progress(replies[: len(pairs)]), -1.0, 1.0)
        done = np.zeros_like(progress)
        if checks:
            done = np.clip(self._read_all_done(replies[len(pairs) :]), 0.0, 1.0)
        ends = np.cumsum([len(frames[1:]) for frames in episodes])[:-1]
        return [
            (self._values_of(frames, *parts), parts[0].astype(np.float32))
            for frames, *parts in zip(episodes, np.split(progress, ends), np.split(done, ends))
        ]

    def _values_of(
        self, frames: Sequence[Frame], progress: NDArray[np.float64], done: NDArray[np.float64]
    ) -> FloatArray:
        values = accumulate_values(progress, self.config.value_rule, bounded=True)[: len(frames)]
        if (limit := self.config.unfinished_value_limit) is not None:
            values[1:] = done + (1.0 - done) * np.minimum(values[1:], limit)
        return values.astype(np.float32)

    def judge_done(self, frames: Sequence[Frame], tasks: Sequence[str]) -> NDArray[np.float64]:
        """`success_prob` before clipping: a rich reading can exceed 1 if the model thinks of a 2."""
        check_tasks(tasks)
        check_same_length(frames=frames, tasks=tasks)
        check_frames(frames)
        requests = [self._done_request(frame, task) for frame, task in zip(frames, tasks)]
        return self._read_all_done(self._ask(requests))

    def judge_pairs(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None = None,
        *,
        starts: Sequence[Frame] | None = None,
    ) -> NDArray[np.float64]:
        """`progress` before clipping."""
        starts = before if starts is None else starts
        check_tasks(tasks)
        check_same_length(before=before, after=after, tasks=tasks, starts=starts)
        for frames, where in ((before, "before"), (after, "after"), (starts, "starts")):
            check_frames(frames, where)
        requests = self._pair_requests(before, after, tasks, references, starts)
        return self._read_all_progress(self._ask(requests))

    def _pair_requests(
        self,
        before: Sequence[Frame],
        after: Sequence[Frame],
        tasks: Sequence[str],
        references: Sequence[Frame] | None,
        starts: Sequence[Frame],
    ) -> list[EngineRequest]:
        shown = self._shown_references(references)
        # One episode's pairs share the first frame too; a batch over several episodes does not.
        shared = (
            len(shown) + (len(starts) > 0 and all(start is starts[0] for start in starts)) if shown else 0
        )
        kind: AnswerKind = "text" if self.config.thinking else "signed_number"
        limit = self.config.max_thinking_tokens if self.config.thinking else _MAX_NUMBER_TOKENS
        return [
            EngineRequest(
                system=prompts.SYSTEM_PROMPT,
                prompt=prompts.pair_prompt(task, num_references=len(shown), thinking=self.config.thinking),
                frames=(*shown, start, first, second) if shown else (first, second),
                answer=kind,
                max_new_tokens=limit,
                shared_frames=shared,
            )
            for first, second, start, task in zip(before, after, starts, tasks)
        ]

    def judge_episode(
        self,
        frames: Sequence[Frame],
        task: str,
        references: Sequence[Frame] | None = None,
        *,
        stride_steps: int = 1,
        overlapping: bool = False,
        reverse: bool = False,
    ) -> PairValues:
        """Progress and values of an episode, unclipped, with the reference's ways of pairing frames.

        Args:
            frames: The episode's frames in order.
            task: Instruction text.
            references: 2 to 11 frames; default: the constructor's.
            stride_steps: Distance of the frames of a pair.
            overlapping: Pairs end at every frame; each pair's progress is then divided by `stride_steps`.
            reverse: Show the later frame first and negate the answer, which tells a critic that follows the
                pictures from one that follows their order.

        Raises:
            ConfigError, CriticError: as `success_prob`.
        """
        prompts.check_task(task)
        check_frames(frames)
        pairs = episode_pairs(len(frames), stride_steps, overlapping=overlapping)
        before, after = [frames[i] for i, _ in pairs], [frames[j] for _, j in pairs]
        if reverse:
            before, after = after, before
        progress = self.judge_pairs(
            before, after, [task] * len(pairs), references, starts=[frames[0]] * len(pairs)
        )
        progress = 0.0 - progress if reverse else progress
        progress = progress / stride_steps if overlapping else progress
        return PairValues(pairs, progress, accumulate_values(progress, self.config.value_rule))

    def warm_up(self, tasks: Sequence[str] = _WARM_UP_TASKS) -> None:
        """Lets the engine prepare for done checks and pairs of such tasks, if it can; changes no answer.

        Args:
            tasks: Typical instructions; engines that record their work prepare for texts of these lengths.
        """
        warm_up = getattr(self._engine, "warm_up", None)
        if warm_up is not None:
            blank = np.zeros((448, 448, 3), np.uint8)
            checks = [self._done_request(blank, task) for task in tasks]
            blanks = [blank] * len(tasks)
            pairs = self._pair_requests(blanks, blanks, tasks, None, blanks)
            # a thought about blank pictures takes long, and prepares nothing
            warm_up(checks if self.config.thinking else [*checks, *pairs])

    def describe(self) -> CriticInfo:
        """See `describe_vlac`."""
        return describe_vlac(
            self._engine.describe(),
            asdict(self.config),
            name=self._name,
            model=self._model,
            knows=self._knows,
            references=self._references,
            goal_image=self._goal_image,
            out_of_scale_replies=self._num_out_of_scale,
        )

    @property
    def can_sleep(self) -> bool:
        """True: every engine has `sleep` and `wake`, if only to do nothing."""
        return True

    def sleep(self) -> None:
        """Frees accelerator memory until `wake`.

        Raises:
            CriticServerError: The host has no room for the weights; a second `sleep` goes on where this one ended.
        """
        self._switch(
            self._engine.sleep,
            "its weights on the host",
            "It answers nothing, and holds memory of the device still. Free memory of the host and call sleep() again, "
            "or wake() to go on without.",
        )

    def wake(self) -> None:
        """Undoes `sleep`, also one that failed half way.

        Raises:
            CriticServerError: The device has no room for the weights; a second `wake` goes on where this one ended.
        """
        self._switch(
            self._engine.wake,
            "its weights on the device",
            "It stays asleep. Free memory of the device, which whoever shares it may hold, and call wake() again.",
        )

    def _switch(self, switch: Callable[[], None], expected: str, advice: str) -> None:
        try:
            switch()
        except (RuntimeError, MemoryError) as e:  # torch tells of both memories by RuntimeErrors
            info = self.describe()
            got = str(e).partition("\n")[0].rstrip(".")
            raise CriticServerError(
                f"Expected the critic {info.name} ({info.model}, {info.device}) to have {expected}, got "
                f"{type(e).__name__}: {got}. {advice}"
            ) from e

    def close(self) -> None:
        """Closes the engine; safe to call twice."""
        self._engine.close()

    def _done_request(self, frame: Frame, task: str) -> EngineRequest:
        goal = self._goal_image
        if goal is None:
            prompt = prompts.done_prompt(task)
        else:
            prompts.check_task(task)
            prompt = prompts.goal_done_prompt(task if self.config.goal_needs_task else None)
        return EngineRequest(
            system=prompts.SYSTEM_PROMPT,
            prompt=prompt,
            frames=(frame,) if goal is None else (goal, frame),
            answer="number",
            max_new_tokens=_MAX_NUMBER_TOKENS,
            shared_frames=0 if goal is None else 1,
        )

    def _shown_references(self, references: Sequence[Frame] | None) -> tuple[Frame, ...]:
        if references is None:
            return self._references
        check_pictures(references)
        return tuple(references)

    def _ask(self, requests: list[EngineRequest]) -> list[EngineReply]:
        if not requests:
            return []
        replies = self._engine.generate(requests)
        if len(replies) != len(requests):
            raise CriticServerError(
                f"Expected {len(requests)} replies from {type(self._engine).__name__}, got {len(replies)}."
            )
        return replies

    def _read_all_done(self, replies: Sequence[EngineReply]) -> NDArray[np.float64]:
        return np.array([self._read_done(reply) for reply in replies], np.float64)

    def _read_all_progress(self, replies: Sequence[EngineReply]) -> NDArray[np.float64]:
        return np.array([self._read_progress(reply) for reply in replies], np.float64)

    def _read_done(self, reply: EngineReply) -> float:
        self._check_scale(reply, parsing.read_done(reply, "plain"), (0.0, 1.0), "0 or 1")
        return parsing.read_done(reply, self.config.reading)

    def _read_progress(self, reply: EngineReply) -> float:
        thinking = self.config.thinking
        said = parsing.read_progress(reply, "plain", thinking=thinking)
        self._check_scale(reply, said, (-1.0, 1.0), "a number from -100 to 100")
        return parsing.read_progress(reply, self.config.reading, thinking=thinking)

    def _check_scale(
        self, reply: EngineReply, said: float, bounds: tuple[float, float], expected: str
    ) -> None:
        if bounds[0] <= said <= bounds[1]:
            return
        if self.config.out_of_scale == "raise":
            raise CriticResponseError(
                f"Expected {expected} as the critic's reply, got {reply.text!r}. Is the checkpoint a trained "
                "VLAC? out_of_scale='clip' accepts such replies, e.g. in tests with random weights."
            )
        if not self._num_out_of_scale:
            text = "Critic reply %r is out of scale (expected %s); clipped. Further ones are only counted."
            _log.warning(text, reply.text, expected)
        self._num_out_of_scale += 1


def _frozen_copy(frame: Frame) -> Frame:
    copy = np.array(frame)
    copy.flags.writeable = False
    return copy
