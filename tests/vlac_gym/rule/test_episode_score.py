"""Scoring of recorded episodes over scripted critics."""

import json

import numpy as np
import pytest

from vlac_gym.critic import make_critic
from vlac_gym.critic.engines.scripted import ScriptedEngine
from vlac_gym.critic.vlac.critic import VLACConfig, VLACCritic
from vlac_gym.errors import ConfigError
from vlac_gym.rule.episode_score import score_episode
from vlac_gym.types import CriticInfo, CriticKnowledge

TASK = "open the drawer"


def frames_of(count: int) -> list[np.ndarray]:
    return [np.full((4, 4, 3), level, np.uint8) for level in range(count)]


def levels(request) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in request.frames]


class PictureCritic:
    """Reads brightness: level / 10 is the completion. Counts its calls."""

    is_privileged = False

    def __init__(self):
        self.batch_sizes = []

    def success_prob(self, frames, tasks):
        self.batch_sizes.append(len(frames))
        return np.array([min(1.0, f[0, 0, 0] / 10) for f in frames], np.float32)

    def progress(self, before, after, tasks, references=None):
        return np.array(
            [(float(b[0, 0, 0]) - float(a[0, 0, 0])) / 10 for a, b in zip(before, after)], np.float32
        )

    def value(self, frames, task, references=None):
        return np.array([f[0, 0, 0] / 10 for f in frames], np.float32)

    def describe(self):
        return CriticInfo(name="brightness", is_privileged=self.is_privileged)

    def close(self):
        pass


def test_pairs_end_with_the_last_frame_and_every_frame_is_checked():
    engine = ScriptedEngine(["+50", "-20", "+10", *"00000001"])
    score = score_episode(VLACCritic(engine), frames_of(8), TASK, value_stride=3)
    assert [levels(request) for request in engine.requests] == [
        [0, 3],
        [3, 6],
        [6, 7],
        *([i] for i in range(8)),
    ]
    assert score.value_frames == (0, 3, 6, 7)
    np.testing.assert_allclose(score.values, [0, 0.5, 0.4, 0.46], atol=1e-6)
    np.testing.assert_allclose(score.progress, [0.5, -0.2, 0.1], atol=1e-6)
    assert score.check_frames == tuple(range(8))
    assert score.first_done_frame == 7
    assert score.negative_rate == pytest.approx(1 / 3)
    assert score.value_order_correlation == pytest.approx(0.4)  # ranks 0 3 1 2: 1 - 6 * 6 / 60


def test_references_show_the_first_frame_of_the_episode():
    engine = ScriptedEngine(["0"] * 5)
    score_episode(
        VLACCritic(engine), frames_of(3), TASK, references=frames_of(2)[::-1], value_stride=1, check_stride=2
    )
    assert [levels(request) for request in engine.requests] == [[1, 0, 0, 0, 1], [1, 0, 0, 1, 2], [0], [2]]


@pytest.mark.parametrize("limit", [None, 0.5])
def test_values_are_those_that_training_pays(limit):
    """After pairs that say 0.9 twice, a critic that also asks whether it is done pays less than they add up to."""
    replies = ["+90", "+90", *"00", *"000"] if limit else ["+90", "+90", *"000"]
    critic = VLACCritic(ScriptedEngine(replies), VLACConfig(reading="plain", unfinished_value_limit=limit))
    score = score_episode(critic, frames_of(3), TASK, value_stride=1)
    paid = VLACCritic(ScriptedEngine(replies), critic.config).value(frames_of(3), TASK)
    assert score.values.tolist() == paid.tolist()
    np.testing.assert_allclose(score.values, [0, 0.5, 0.5] if limit else [0, 0.9, 0.99], atol=1e-6)
    np.testing.assert_allclose(score.progress, [0.9, 0.9], atol=1e-6)


def test_nano_scores_an_episode_as_it_values_it():
    nano = make_critic("nano")
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(7)]
    score = score_episode(nano, frames, TASK, value_stride=2, on_critic_mismatch="warn")
    assert score.values.tolist() == nano.value([frames[i] for i in (0, 2, 4, 6)], TASK).tolist()


def test_any_critic_can_score():
    score = score_episode(PictureCritic(), frames_of(10), TASK, value_stride=4, done_threshold=0.9)
    assert score.value_frames == (0, 4, 8, 9)
    np.testing.assert_allclose(score.values, [0, 0.4, 0.8, 0.9], atol=1e-6)
    np.testing.assert_allclose(score.progress, [0.4, 0.4, 0.1], atol=1e-6)
    # 0.9 in float32 counts as 0.9
    assert score.first_done_frame == 9


def test_long_episodes_are_asked_in_parts():
    critic = PictureCritic()
    score = score_episode(critic, frames_of(130), TASK)
    assert critic.batch_sizes == [64, 64, 2]
    assert score.success_prob.shape == (130,)
    assert score.first_done_frame == 9


def test_one_frame_has_a_value_and_no_metrics():
    score = score_episode(PictureCritic(), frames_of(1), TASK)
    document = score.as_json()
    assert document["values"] == [{"frame": 0, "value": 0.0}]
    assert document["progress"] == []
    assert document["value_order_correlation"] is None
    assert document["negative_rate"] is None
    assert document["first_done_frame"] is None
    json.dumps(document, allow_nan=False)


def test_json_names_frames():
    engine = ScriptedEngine(["+50", "0", "1", "1"])
    document = score_episode(VLACCritic(engine), frames_of(3), TASK).as_json()
    assert document["progress"] == [{"before": 0, "after": 2, "progress": 0.5}]
    assert document["values"] == [{"frame": 0, "value": 0.0}, {"frame": 2, "value": 0.5}]
    assert [row["success_prob"] for row in document["success_prob"]] == [0.0, 1.0, 1.0]
    assert document["first_done_frame"] == 1
    assert (document["task"], document["num_frames"], document["done_threshold"]) == (TASK, 3, 0.9)


def test_critic_that_reads_the_simulator_is_refused():
    critic = PictureCritic()
    critic.is_privileged = True
    with pytest.raises(ConfigError, match="'brightness', which reads the simulator; a recording has none"):
        score_episode(critic, frames_of(2), TASK)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ([], {}, "one or more frames to score"),
        (frames_of(2), {"value_stride": 0}, "value_stride >= 1, got 0"),
        (frames_of(2), {"check_stride": -1}, "check_stride >= 1, got -1"),
        (frames_of(2), {"done_threshold": 1.5}, r"done_threshold in \[0, 1\], got 1.5"),
        ([np.zeros((4, 4), np.uint8)], {}, r"frames\[0\] as uint8"),
    ],
)
def test_bad_input_is_refused_before_the_critic_is_asked(frames, options, message):
    engine = ScriptedEngine([])
    with pytest.raises(ConfigError, match=message):
        score_episode(VLACCritic(engine), frames, TASK, **options)
    assert engine.batches == []


@pytest.mark.parametrize(
    ("knows", "text"),
    [
        (CriticKnowledge(tasks=("close it",)), "does not know the task 'open the drawer'"),
        (CriticKnowledge(inputs=()), "does not know the input 'references'"),
    ],
)
def test_a_critic_that_does_not_know_the_task_or_references_is_asked_on_demand_only(knows, text, caplog):
    critic = PictureCritic()
    critic.describe = lambda: CriticInfo("picture", knows=knows)
    shown = {"references": frames_of(2)}
    with pytest.raises(ConfigError, match=text):
        score_episode(critic, frames_of(3), TASK, **shown)
    assert critic.batch_sizes == []
    score_episode(critic, frames_of(3), TASK, **shown, on_critic_mismatch="warn")
    assert text in caplog.text
