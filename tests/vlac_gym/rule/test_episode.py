"""The rule alone: what it asks, in which order, and what it decides; every number is worked by hand."""

from typing import Any

import numpy as np
import pytest

from vlac_gym.errors import ConfigError, CriticConnectionError
from vlac_gym.rule.episode import AskDone, AskProgress, AskValues, RuleEpisode, Verdict
from vlac_gym.rule.reward import training_rule
from vlac_gym.rule.round import OpenStep

LOST = CriticConnectionError("gone")


def frame(step: int) -> np.ndarray:
    return np.full((2, 2, 3), step, np.uint8)


def number(shown: np.ndarray) -> int:
    return int(shown[0, 0, 0])


def told(question: Any) -> tuple:
    """A question as (kind, numbers of its frames)."""
    if isinstance(question, AskDone):
        return "done", number(question.frame)
    if isinstance(question, AskProgress):
        return "progress", number(question.before), number(question.after)
    assert isinstance(question, AskValues)
    return "values", *map(number, question.frames)


class Played:
    """An episode of a preset, driven by hand."""

    def __init__(self, preset: str = "vlac", **options: Any) -> None:
        self.episode = RuleEpisode(training_rule(preset, **options), "task", frame(0), max_buffer_bytes=10**6)
        self.looks: list[int] = []

    def step(self, *answers: Any, limit: Any = None) -> tuple[list, Verdict]:
        """Plays a step with these answers; returns what was asked and the verdict."""
        step = OpenStep(self.episode.step(limit, self._look), "task")
        asked, left = [], list(answers)
        while step.question is not None:
            asked.append(told(step.question))
            answer = left.pop(0)
            step.fail(answer) if isinstance(answer, Exception) else step.answer(answer)
        assert left == []
        return asked, step.verdict

    def _look(self) -> np.ndarray:
        self.looks.append(self.episode.num_steps)
        return frame(self.episode.num_steps)


def done(reward: float = 1.0) -> Verdict:
    return Verdict(reward=reward, terminated=True, stopped_by="success_prob")


def cut(reward: float, by: Any = "step_limit") -> Verdict:
    return Verdict(reward=reward, truncated=True, stopped_by=by)


def test_done_pays_one_and_asks_nothing_more():
    assert Played().step(0.95) == ([("done", 1)], done())


def test_limit_asks_the_values_of_frames_at_the_stride_and_the_last():
    played = Played(value_stride=2)
    for _ in range(4):
        assert played.step(0.1)[1] == Verdict()
    asked, verdict = played.step(0.1, [0.0, 0.25, 0.5, 0.375], limit="step_limit")
    assert (asked, verdict) == ([("done", 5), ("values", 0, 2, 4, 5)], cut(0.375))
    end = played.episode.report(0).end
    assert (end.values, end.value_frame_steps, end.failed) == ([0.0, 0.25, 0.5, 0.375], [0, 2, 4, 5], False)


def test_frames_are_looked_at_for_checks_and_value_lists_only():
    played = Played(done_interval=4, value_stride=3)
    to_frame = []
    for step in range(1, 9):
        to_frame.append(played.episode.steps_to_frame)
        played.step(*([0.1] if step % 4 == 0 else []))
    assert played.looks == [3, 4, 6, 8]
    assert to_frame == [3, 2, 1, 1, 2, 1, 2, 1]


def test_sparse_pays_one_at_done_and_nothing_at_the_limit():
    assert Played("sparse").step(0.95) == ([("done", 1)], done())
    played = Played("sparse", value_stride=1, done_interval=2)
    assert played.step() == ([], Verdict())
    assert played.step(0.1, limit="step_limit") == ([("done", 2)], cut(0.0))
    assert played.looks == [2]
    assert played.episode.report(0).buffered_frames == 1
    assert played.episode.report(0).end.values == []


def test_sparse_asks_for_values_where_a_stop_demands_one():
    played = Played("sparse", min_value=0.75, value_stride=1)
    assert played.step(0.95, [0.0, 0.5])[1] == Verdict()
    assert played.step(0.95, [0.0, 0.5, 0.75])[0] == [("done", 2), ("values", 0, 1, 2)]
    played = Played("sparse", min_value=0.75)
    assert played.step(0.95, [0.0, 0.5], limit="step_limit")[1] == cut(0.0)


def test_minimum_asks_its_values_at_done_checks_and_once_at_the_limit():
    played = Played(min_value=0.75, done_interval=2)
    assert played.step() == ([], Verdict())
    assert played.step(0.9, [0.0, 0.5]) == ([("done", 2), ("values", 0, 2)], Verdict())
    assert played.step() == ([], Verdict())
    assert played.step(0.9, [0.0, 0.5], limit="step_limit") == ([("done", 4), ("values", 0, 4)], cut(0.5))


def test_minimum_that_is_reached_stops():
    played = Played(min_value=0.75)
    assert played.step(0.9, [0.0, 0.75]) == ([("done", 1), ("values", 0, 1)], done())


@pytest.mark.parametrize(
    ("answers", "asked"), [([LOST], [("done", 1)]), ([0.1, LOST], [("done", 1), ("values", 0, 1)])]
)
def test_lost_critic_truncates_unpaid_and_is_asked_no_more(answers, asked):
    played = Played()
    assert played.step(*answers, limit="step_limit") == (asked, cut(0.0, "critic_error"))
    end = played.episode.report(failures=3).as_info()
    assert (end["failed"], end["values"], end["failures"], end["calls"]) == (True, [], 3, len(asked))


def test_dense_compares_with_the_last_check_and_pays_the_difference():
    played = Played("dense", done_interval=2)
    assert played.step() == ([], Verdict())
    assert played.step(0.1, 0.5) == ([("done", 2), ("progress", 0, 2)], Verdict(reward=0.5))
    assert played.step() == ([], Verdict())
    assert played.step(0.1, -0.5) == ([("done", 4), ("progress", 2, 4)], Verdict(reward=-0.25))
    assert played.step() == ([], Verdict())
    assert played.step(0.9) == ([("done", 6)], done(0.75))
    assert played.episode.report(0).end.values == [0.0, 0.5, 0.25, 1.0]


def test_dense_minimum_asks_the_pair_before_it_stops():
    played = Played("dense", min_value=0.5)
    assert played.step(0.9, 0.25) == ([("done", 1), ("progress", 0, 1)], Verdict(reward=0.25))
    # 0.25 + 0.75 / 3 = 0.5
    assert played.step(0.9, 1 / 3) == ([("done", 2), ("progress", 1, 2)], done(0.75))


def test_milestone_value_counts_from_the_last_milestone():
    played = Played("evolve", done_interval=1, milestone_interval=2, value_threshold=0.75)
    assert played.step(0.25) == ([("progress", 0, 1)], Verdict())
    assert played.step(0.5) == ([("progress", 0, 2)], Verdict())
    assert played.step(0.5) == ([("progress", 2, 3)], Verdict())
    stopped = Verdict(reward=0.875, terminated=True, stopped_by="value")
    assert played.step(0.75) == ([("progress", 2, 4)], stopped)


@pytest.mark.parametrize("limit", ["step_limit", "sim_terminated"])
@pytest.mark.parametrize(
    ("preset", "answers", "reward", "as_terminal"),
    [
        ("vlac", [0.1, [0.0, 0.5]], 0.5, 0.5),
        ("dense", [0.1, 0.5], 0.5, 0.5),
        # A terminal state has no potential, whoever calls it terminal: 0 - 0 and not 0.5 * 0.5 - 0.
        ("pbrs", [0.1, 0.5], 0.25, 0.0),
        ("evolve", [0.5], 0.5, 0.5),
    ],
)
def test_the_limit_is_terminal_on_demand(limit, preset, answers, reward, as_terminal):
    assert Played(preset, gamma=0.5).step(*answers, limit=limit)[1] == cut(reward, limit)
    played = Played(preset, gamma=0.5, truncate_as_terminal=True)
    expected = Verdict(reward=as_terminal, terminated=True, stopped_by=limit)
    assert played.step(*answers, limit=limit)[1] == expected


def test_a_lost_critic_is_never_terminal():
    assert Played(truncate_as_terminal=True).step(LOST)[1] == cut(0.0, "critic_error")


def test_buffered_frames_are_copies_within_their_bound():
    shown = frame(0)
    episode = RuleEpisode(training_rule("vlac", value_stride=1), "task", shown, max_buffer_bytes=24)
    shown[:] = 9
    step = OpenStep(episode.step("step_limit", lambda: frame(1)), "task")
    step.answer(0.1)
    assert told(step.question) == ("values", 0, 1)
    step.answer([0.0, 0.5])
    with pytest.raises(ConfigError, match="36 bytes at step 2, more than max_buffer_bytes 24"):
        OpenStep(episode.step(None, lambda: frame(2)), "task")


def test_report_is_flat_and_tells_the_end_at_the_end_only():
    played = Played()
    assert played.episode.report(0).as_info() == {
        "checked": False,
        "success_prob": None,
        "consecutive_done": 0,
        "calls": 0,
        "buffered_frames": 1,
        "buffered_bytes": 12,
        "failures": 0,
    }
    played.step(0.95)
    assert played.episode.report(2).as_info() == {
        "checked": True,
        "success_prob": 0.95,
        "consecutive_done": 1,
        "calls": 1,
        "buffered_frames": 1,
        "buffered_bytes": 12,
        "failures": 2,
        "values": [],
        "value_frame_steps": [],
        "failed": False,
        "stopped_by": "success_prob",
    }
