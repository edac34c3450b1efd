"""One training episode under the rule: `EpisodeJudge`, `Verdict`.

The judge says which question the critic must answer next, takes the answers, and decides. It never calls
a critic itself, so that one env and N envs share it (`vlac_gym.critic_round` asks for all of them at once).
"""

__all__ = ["EpisodeJudge", "StoppedBy", "Verdict"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vlac_gym.errors import ConfigError
from vlac_gym.reward import TrainingRule, advance_value, potential_reward
from vlac_gym.types import Frame

StoppedBy = Literal["success_prob", "value", "step_limit", "sim_terminated", "critic_error"]


@dataclass(frozen=True)
class Verdict:
    """What a training step returns, and which rule ended the episode (None while it runs)."""

    reward: float
    terminated: bool
    truncated: bool
    stopped_by: StoppedBy | None


class EpisodeJudge:
    """Applies a `TrainingRule` to one episode, step by step.

    Per step: `advance`, `take_frame` if `wants_frame`, then the questions in this order, each answered
    before the next is looked at: `asks_done`, `pair`, `value_frames`; then `verdict`.

    Args:
        rule: The training rule.
        task: The task text.
        frame: The frame after reset, uint8 (H, W, 3); copied.
        max_buffer_bytes: Bound of the bytes of buffered frames.
    """

    def __init__(self, rule: TrainingRule, task: str, frame: Frame, max_buffer_bytes: int) -> None:
        self.rule = rule
        self.task = task
        self.step = 0
        self.value = 0.0
        self.calls = 0
        self.latency_ms = 0.0
        self._max_buffer_bytes = max_buffer_bytes
        self._frames: dict[int, Frame] = {}
        self._buffered_bytes = 0
        self._keep(0, frame)
        self._milestone_value = 0.0
        self._consecutive_done = 0
        self._values = [0.0]
        self._value_steps = [0]
        self._value_list: list[float] | None = None
        self._frame: Frame | None = None
        self._success_prob: float | None = None
        self._begin_step(at_limit=None)

    # One step, in the order of the calls.

    def advance(self, at_limit: StoppedBy | None) -> None:
        """Moves to the next env step; `at_limit` names what ends the episode there, if anything does."""
        self.step += 1
        self._begin_step(at_limit)

    @property
    def is_checked(self) -> bool:
        """Is the critic asked about this step?"""
        return self._at_limit is not None or self.step % self.rule.done_interval == 0

    @property
    def wants_frame(self) -> bool:
        """Is this step's frame needed, now or for the value list?"""
        return self.is_checked or self._is_value_step

    @property
    def steps_to_frame(self) -> int:
        """Env steps until `wants_frame` comes true, unless the episode reaches its limit before; >= 1."""
        left = self.rule.done_interval - self.step % self.rule.done_interval
        if self.rule.reward == "terminal":
            left = min(left, self.rule.value_stride - self.step % self.rule.value_stride)
        return left

    def take_frame(self, frame: Frame) -> None:
        """Gives this step's frame, uint8 (H, W, 3); copied if it is kept."""
        self._frame = frame
        if self._is_value_step:
            self._keep(self.step, frame)

    @property
    def frame(self) -> Frame:
        """This step's frame, as given to `take_frame`."""
        assert self._frame is not None
        return self._frame

    def asks_done(self) -> bool:
        """Must `success_prob` be asked for this step's frame?"""
        return self.is_checked and self.rule.reward != "milestone"

    def take_done(self, success_prob: float) -> None:
        """Takes the answer of a done check, in [0, 1]."""
        self._success_prob = success_prob
        # Critics answer in float32, and float32(0.9) < 0.9.
        self._count_done(bool(np.float32(success_prob) >= np.float32(self.rule.done_threshold)))

    def pair(self) -> tuple[Frame, Frame] | None:
        """The frames whose progress must be asked, or None."""
        if not self.is_checked or self.rule.reward == "terminal":
            return None
        if self._may_stop and self.rule.min_value is None and self.rule.reward != "milestone":
            return None
        (before,) = self._frames.values()
        return before, self.frame

    def take_progress(self, progress: float) -> None:
        """Takes the progress of `pair`, in [-1, 1]."""
        start = self._milestone_value if self.rule.reward == "milestone" else self.value
        self.value = advance_value(start, progress)
        if self.rule.reward == "milestone":
            self._count_done(self.value > self.rule.value_threshold)
        if self.rule.reward != "milestone" or self.step % self.rule.milestone_interval == 0:
            self._milestone_value = self.value
            self._frames.clear()
            self._buffered_bytes = 0
            self._keep(self.step, self.frame)
        self._record_value(self.value)

    def value_frames(self) -> list[Frame] | None:
        """The frames, in order, whose value list must be asked now, or None."""
        if self.rule.reward != "terminal":
            return None
        needs_minimum = self.is_checked and self._may_stop and self.rule.min_value is not None
        if needs_minimum or (self._at_limit is not None and not self._stops):
            return list(self._listed_frames().values())
        return None

    def take_values(self, values: Sequence[float]) -> None:
        """Takes the value list of `value_frames`, each in [0, 1]."""
        self._value_list = [float(v) for v in values]
        self.value = self._value_list[-1]

    def verdict(self) -> Verdict:
        """Decides the step from the answers taken."""
        stops = self._stops
        reward = self._reward(stops)
        stopped_by: StoppedBy | None = self._at_limit
        if stops:
            stopped_by = "value" if self.rule.reward == "milestone" else "success_prob"
            if self.rule.reward in ("dense", "pbrs"):
                self.value = 1.0
                self._record_value(1.0)
        self._is_over = stopped_by is not None
        return Verdict(reward, stops, self._is_over and not stops, stopped_by)

    def fail(self) -> Verdict:
        """Ends the episode because the critic gave no usable answer: truncated, reward 0."""
        self._is_over = self._has_failed = True
        return Verdict(0.0, False, True, "critic_error")

    def info(self, stopped_by: StoppedBy | None = None) -> dict[str, Any]:
        """What `info["critic"]` holds at this step."""
        report: dict[str, Any] = {
            "checked": self.step > 0 and self.is_checked,
            "success_prob": self._success_prob,
            "consecutive_done": self._consecutive_done,
            "calls": self.calls,
            "latency_ms": self.latency_ms,
            "buffered_frames": len(self._frames),
            "buffered_bytes": self.buffered_bytes,
        }
        if self._is_over:
            values, steps = self._value_report()
            report |= {"values": values, "value_frame_steps": steps, "failed": self._has_failed}
            report["stopped_by"] = stopped_by
        return report

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the frames that are kept."""
        return self._buffered_bytes

    # The rule's parts.

    @property
    def _is_value_step(self) -> bool:
        return self.rule.reward == "terminal" and self.step % self.rule.value_stride == 0

    @property
    def _may_stop(self) -> bool:
        return self._consecutive_done >= self.rule.done_patience and self.step >= self.rule.min_steps

    @property
    def _stops(self) -> bool:
        if not self.is_checked or not self._may_stop:
            return False
        if self.rule.min_value is None or self.rule.reward == "milestone":
            return True
        if self.rule.reward == "terminal" and self._value_list is None:
            return False
        return bool(np.float32(self.value) >= np.float32(self.rule.min_value))

    def _reward(self, stops: bool) -> float:
        if self.rule.reward == "dense":
            return (1.0 if stops else self.value) - self._value_before
        if self.rule.reward == "pbrs":
            shaping = potential_reward(self._value_before, self.value, self.rule.gamma, terminated=stops)
            return shaping + (1.0 if stops else 0.0)
        if stops and self.rule.reward == "terminal":
            return 1.0
        return self.value if stops or self._at_limit is not None else 0.0

    def _begin_step(self, at_limit: StoppedBy | None) -> None:
        self._at_limit = at_limit
        self._frame = None
        self._success_prob = None
        self._value_list = None
        self._value_before = self.value
        self._is_over = self._has_failed = False
        self.latency_ms = 0.0

    def _count_done(self, is_done: bool) -> None:
        self._consecutive_done = self._consecutive_done + 1 if is_done else 0

    def _record_value(self, value: float) -> None:
        if self._value_steps[-1] == self.step:
            self._values[-1] = value
        else:
            self._values.append(value)
            self._value_steps.append(self.step)

    def _listed_frames(self) -> dict[int, Frame]:
        return self._frames | {self.step: self.frame}

    def _value_report(self) -> tuple[list[float], list[int]]:
        if self.rule.reward != "terminal":
            return list(self._values), list(self._value_steps)
        if self._value_list is None:
            return [], []
        return list(self._value_list), list(self._listed_frames())

    def _keep(self, step: int, frame: Frame) -> None:
        kept = np.array(frame)
        kept.setflags(write=False)
        self._frames[step] = kept
        self._buffered_bytes += kept.nbytes
        if self.buffered_bytes > self._max_buffer_bytes:
            raise ConfigError(
                f"The value list's frames take {self.buffered_bytes} bytes at step {step}, more than "
                f"max_buffer_bytes {self._max_buffer_bytes}. Raise it, raise value_stride "
                f"(now {self.rule.value_stride}), or use smaller frames."
            )
