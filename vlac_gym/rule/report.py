"""What ``info["critic"]`` holds: `CriticReport`, `EpisodeEnd`."""

__all__ = ["CriticReport", "EpisodeEnd", "StoppedBy"]

from typing import Any, Literal, NamedTuple

StoppedBy = Literal["success_prob", "value", "step_limit", "sim_terminated", "critic_error"]


class EpisodeEnd(NamedTuple):
    """What is told at the end of an episode only.

    Attributes:
        values: The value list, each in [0, 1]; empty if it was not asked for.
        value_frame_steps: Env step of each value's frame; 0 is the reset.
        failed: The critic gave no usable answer: the reward says nothing, mask it.
        stopped_by: Which rule ended the episode.
    """

    values: list[float]
    value_frame_steps: list[int]
    failed: bool
    stopped_by: StoppedBy


class CriticReport(NamedTuple):
    """The critic's part in one step. Equal episodes give equal reports: nothing here depends on the clock.

    Attributes:
        checked: Was the critic asked about this step?
        success_prob: Its answer, in [0, 1]; None if it was not asked for.
        consecutive_done: Done checks in a row, up to this step.
        calls: Critic calls in this episode.
        buffered_frames: Frames kept for later questions.
        buffered_bytes: Their bytes.
        failures: Critic failures since the wrapper was made.
        end: At the end of an episode only.
    """

    checked: bool
    success_prob: float | None
    consecutive_done: int
    calls: int
    buffered_frames: int
    buffered_bytes: int
    failures: int
    end: EpisodeEnd | None

    def as_info(self) -> dict[str, Any]:
        """A flat dict; the fields of `end` are there at the end only."""
        info = self._asdict()
        end = info.pop("end")
        return info if end is None else info | end._asdict()
