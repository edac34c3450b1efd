"""One training episode under the rule: `RuleEpisode`, the questions it asks, and its `Verdict`.

`RuleEpisode.step` is a generator that reads as the rule does: it yields a question, is sent the critic's answer, and
returns the verdict. It never calls a critic itself, so that one env and N envs share it; `vlac_gym.rule.round` asks for
all of them at once.
"""

__all__ = ["AskDone", "AskProgress", "AskValues", "Question", "RuleEpisode", "Step", "Verdict"]

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlac_gym.errors import CriticError
from vlac_gym.rule.frame_buffer import FrameBuffer
from vlac_gym.rule.report import CriticReport, EpisodeEnd, StoppedBy
from vlac_gym.rule.reward import TrainingRule, advance_value, potential_reward
from vlac_gym.types import Frame


@dataclass(frozen=True, eq=False)
class AskDone:
    """Asks for the frame's `success_prob`; the answer is a float in [0, 1]."""

    frame: Frame


@dataclass(frozen=True, eq=False)
class AskProgress:
    """Asks for the `progress` from one frame to the other; the answer is a float in [-1, 1]."""

    before: Frame
    after: Frame


@dataclass(frozen=True, eq=False)
class AskValues:
    """Asks for the value list of frames in order; the answer is a list of as many floats in [0, 1]."""

    frames: list[Frame]


Question = AskDone | AskProgress | AskValues


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a training step returns, and which rule ended the episode (None while it runs)."""

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    stopped_by: StoppedBy | None = None


Step = Generator[Question, Any, Verdict]
"""One env step: yields questions, at most one of each kind and in the order of `Question`; returns the verdict."""

GOES_ON = Verdict()


class RuleEpisode:
    """Applies a `TrainingRule` to one episode, step by step.

    Args:
        rule: The training rule.
        task: The task text.
        frame: The frame after reset, uint8 (H, W, 3); copied.
        max_buffer_bytes: Bound of the bytes of buffered frames.

    Attributes:
        num_steps: Env steps so far.
        value: The last known accumulated value, in [0, 1].

    Raises:
        ConfigError: The frame alone passes the bound.

    Example:
        >>> from vlac_gym.rule.reward import training_rule
        >>> frame = np.zeros((4, 4, 3), np.uint8)
        >>> episode = RuleEpisode(training_rule("vlac"), "open the drawer", frame, max_buffer_bytes=10**6)
        >>> step = episode.step(None, look=lambda: frame)
        >>> type(next(step)).__name__
        'AskDone'
        >>> try:
        ...     step.send(0.95)
        ... except StopIteration as stop:
        ...     print(stop.value)
        Verdict(reward=1.0, terminated=True, truncated=False, stopped_by='success_prob')
    """

    def __init__(self, rule: TrainingRule, task: str, frame: Frame, max_buffer_bytes: int) -> None:
        self.rule = rule
        self.task = task
        self.num_steps = 0
        self.value = 0.0
        self._done_threshold = _as_float32(rule.done_threshold)
        # Can the value list be asked for?
        self._keeps_value_frames = rule.reward == "terminal" or (
            rule.reward == "sparse" and rule.min_value is not None
        )
        self._buffer = FrameBuffer(max_buffer_bytes, rule.value_stride)
        self._buffer.keep(0, frame)
        self._milestone_value = 0.0
        self._consecutive_done = 0
        self._num_calls = 0
        self._history = {0: 0.0}  # of the value, by env step
        # Of the last step.
        self._is_checked = False
        self._success_prob: float | None = None
        self._values: dict[int, float] = {}  # the value list, by env step of the frame
        self._verdict = GOES_ON

    @property
    def steps_to_frame(self) -> int:
        """Env steps until a frame is next looked at, unless the episode reaches its limit before; >= 1."""
        left = self.rule.done_interval - self.num_steps % self.rule.done_interval
        if self._keeps_value_frames:
            left = min(left, self.rule.value_stride - self.num_steps % self.rule.value_stride)
        return left

    def step(self, limit: StoppedBy | None, look: Callable[[], Frame]) -> Step:
        """The next env step.

        Args:
            limit: What ends the episode at this step, if anything does.
            look: Returns this step's frame; called once, before the first question, and only if it is needed.

        Raises:
            ConfigError: The buffered frames pass their bound.
        """
        self.num_steps += 1
        self._is_checked = limit is not None or self.num_steps % self.rule.done_interval == 0
        self._success_prob = None
        self._values = {}
        try:
            self._verdict = yield from self._decide(limit, look)
        except CriticError:
            # Thrown in by whoever asks: a lost critic is no reward, and not the policy's failure.
            self._verdict = Verdict(truncated=True, stopped_by="critic_error")
        return self._verdict

    def report(self, failures: int) -> CriticReport:
        """What is told about the last step, or about the reset."""
        return CriticReport(
            checked=self._is_checked,
            success_prob=self._success_prob,
            consecutive_done=self._consecutive_done,
            calls=self._num_calls,
            buffered_frames=len(self._buffer),
            buffered_bytes=self._buffer.num_bytes,
            failures=failures,
            end=self._end(),
        )

    # The rule, one kind of reward each.

    def _decide(self, limit: StoppedBy | None, look: Callable[[], Frame]) -> Step:
        """The step by the rule's kind of reward."""
        match self.rule.reward:
            case "terminal" | "sparse":
                return self._terminal(limit, look)
            case "dense" | "pbrs":
                return self._dense(limit, look)
            case "milestone":
                return self._milestone(limit, look)

    def _terminal(self, limit: StoppedBy | None, look: Callable[[], Frame]) -> Step:
        """Done pays 1.0, the step limit the value (`sparse`: nothing), and every other step nothing."""
        is_value_step = self._keeps_value_frames and self.num_steps % self.rule.value_stride == 0
        if not (self._is_checked or is_value_step):
            return GOES_ON
        frame = look()
        if is_value_step:
            self._buffer.keep(self.num_steps, frame)
        if not self._is_checked:
            return GOES_ON

        if self._may_stop((yield self._counted(AskDone(frame)))):
            if self.rule.min_value is None:
                return Verdict(reward=1.0, terminated=True, stopped_by="success_prob")
            yield from self._ask_values(frame)
            if self._reaches_min_value:
                return Verdict(reward=1.0, terminated=True, stopped_by="success_prob")
        if limit is None:
            return GOES_ON
        if self.rule.reward == "sparse":
            return self._at(limit, reward=0.0)
        if not self._values:
            yield from self._ask_values(frame)
        return self._at(limit, reward=self.value)

    def _dense(self, limit: StoppedBy | None, look: Callable[[], Frame]) -> Step:
        """Every step pays the change of the value, discounted under `pbrs`; done makes the value 1.0."""
        before, stops = self.value, False
        if self._is_checked:
            frame = look()
            stops = self._may_stop((yield self._counted(AskDone(frame))))
            if not stops or self.rule.min_value is not None:
                progress = yield self._counted(AskProgress(self._buffer.last, frame))
                self._record(advance_value(before, progress))
                self._buffer.keep_only(self.num_steps, frame)
                stops = stops and self._reaches_min_value
            if stops:
                self._record(1.0)

        reward = self.value - before
        if self.rule.reward == "pbrs":
            is_terminal = stops or (limit is not None and self.rule.truncate_as_terminal)
            reward = potential_reward(before, self.value, self.rule.gamma, terminated=is_terminal)
            reward += 1.0 if stops else 0.0
        if stops:
            return Verdict(reward=reward, terminated=True, stopped_by="success_prob")
        return Verdict(reward=reward) if limit is None else self._at(limit, reward)

    def _milestone(self, limit: StoppedBy | None, look: Callable[[], Frame]) -> Step:
        """The episode stops on its value, counted from the last milestone, and pays it at the end."""
        if not self._is_checked:
            return GOES_ON
        frame = look()
        progress = yield self._counted(AskProgress(self._buffer.last, frame))
        self._record(advance_value(self._milestone_value, progress))
        if self.num_steps % self.rule.milestone_interval == 0:
            self._milestone_value = self.value
            self._buffer.keep_only(self.num_steps, frame)
        if self._counts_to_stop(is_done=self.value > self.rule.value_threshold):
            return Verdict(reward=self.value, terminated=True, stopped_by="value")
        return GOES_ON if limit is None else self._at(limit, reward=self.value)

    # The rule's parts.

    def _may_stop(self, success_prob: float) -> bool:
        """Takes the answer of the done check, and tells whether it may stop the episode."""
        self._success_prob = success_prob
        return self._counts_to_stop(is_done=_as_float32(success_prob) >= self._done_threshold)

    def _counts_to_stop(self, *, is_done: bool) -> bool:
        self._consecutive_done = self._consecutive_done + 1 if is_done else 0
        return self._consecutive_done >= self.rule.done_patience and self.num_steps >= self.rule.min_steps

    def _ask_values(self, frame: Frame) -> Generator[Question, Any, None]:
        frames = self._buffer.with_last(self.num_steps, frame)
        values = yield self._counted(AskValues(list(frames.values())))
        self._values = dict(zip(frames, values, strict=True))
        self.value = values[-1]

    def _counted(self, question: Question) -> Question:
        self._num_calls += 1
        return question

    def _at(self, limit: StoppedBy, reward: float) -> Verdict:
        is_terminal = self.rule.truncate_as_terminal
        return Verdict(reward=reward, terminated=is_terminal, truncated=not is_terminal, stopped_by=limit)

    @property
    def _reaches_min_value(self) -> bool:
        return bool(np.float32(self.value) >= np.float32(self.rule.min_value))

    def _record(self, value: float) -> None:
        self.value = self._history[self.num_steps] = value

    def _end(self) -> EpisodeEnd | None:
        if self._verdict.stopped_by is None:
            return None
        values = self._values if self.rule.reward in ("terminal", "sparse") else self._history
        return EpisodeEnd(
            values=list(values.values()),
            value_frame_steps=list(values),
            failed=self._verdict.stopped_by == "critic_error",
            stopped_by=self._verdict.stopped_by,
        )


def _as_float32(number: float) -> float:
    """The float32 next to a number: critics answer in float32, and float32(0.9) < 0.9."""
    return float(np.float32(number))
