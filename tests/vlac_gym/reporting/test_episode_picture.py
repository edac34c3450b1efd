"""What is shown of an episode at each of its frames."""

import dataclasses

import pytest

from vlac_gym.reporting.episode_picture import COLORS, Series, picture_of_trace, progress_color


def texts(picture, now):
    return [text for text, _ in picture.readout(now)]


def lines(picture, now):
    return [verdict.line(now, picture.last) for verdict in picture.verdicts]


def test_the_latest_number_is_shown_until_the_next_one():
    series = Series((2, 4), (0.25, 0.5))
    assert [series.latest(now) for now in range(6)] == [None, None, 0.25, 0.25, 0.5, 0.5]
    assert not Series()


def test_numbers_of_a_driven_episode(train_picture):
    picture = train_picture(num_steps=4)
    assert texts(picture, 0) == ["step 0 / 4", "success_prob –", "value 0.00", "return 0.00"]
    assert texts(picture, 3) == ["step 3 / 4", "success_prob 0.10", "value 0.00", "return 0.00"]
    assert texts(picture, 4) == ["step 4 / 4", "success_prob 0.95", "value 0.75", "return 1.00"]


def test_verdicts_are_told_from_their_step_on(train_picture):
    picture = train_picture(num_steps=4)
    assert lines(picture, 2) == ["critic: not done yet", "simulator: no success yet"]
    assert lines(picture, 3) == ["critic: not done yet", "simulator: SUCCESS at step 3"]
    assert lines(picture, 4) == ["critic: DONE at step 4", "simulator: SUCCESS at step 3"]


def test_an_episode_without_verdicts_says_so_at_its_end(eval_picture, train_trace):
    picture = eval_picture()
    assert lines(picture, 0) == ["critic: not asked in eval mode", "simulator: no success yet"]
    assert lines(picture, 4) == ["critic: not asked in eval mode", "simulator: no success in this episode"]
    trace = train_trace()
    at_limit = dataclasses.replace(trace, critic=dataclasses.replace(trace.critic, stopped_by="step_limit"))
    assert lines(picture_of_trace(at_limit), 4)[0] == "critic: not done when the episode ended"
    uncritical = dataclasses.replace(
        at_limit, critic=dataclasses.replace(trace.critic, name="none", stopped_by=None)
    )
    assert lines(picture_of_trace(uncritical), 0)[0] == "critic: none"


def test_eval_mode_shows_no_threshold(train_trace):
    assert picture_of_trace(train_trace()).threshold == 0.9
    assert picture_of_trace(dataclasses.replace(train_trace(), mode="eval")).threshold is None


def test_actions_are_named_by_their_dimensions(train_trace):
    def actions(trace, *sent):
        steps = [dataclasses.replace(step, action=a) for step, a in zip(trace.steps, sent, strict=True)]
        return picture_of_trace(dataclasses.replace(trace, steps=tuple(steps))).actions

    trace = train_trace(num_steps=2)
    liberos = actions(trace, tuple(range(7)), tuple(range(7, 14)))
    assert list(liberos) == ["move x", "move y", "move z", "turn x", "turn y", "turn z", "gripper"]
    assert liberos["gripper"] == Series([1, 2], [6, 13])
    elsewhere = dataclasses.replace(trace, task_suite=None)
    assert list(actions(elsewhere, (0.0,) * 7, (0.0,) * 7)) == [f"action {i}" for i in range(7)]
    assert actions(trace, (), ()) == {}
    assert actions(trace, (0.0,), (0.0, 1.0)) == {}


@pytest.mark.parametrize(
    ("change", "name"), [(None, "ink"), (0.0, "progress"), (0.4, "progress"), (-0.1, "regress")]
)
def test_progress_is_coloured_by_its_sign(change, name):
    assert progress_color(change) == COLORS[name]
