"""Labels and draws of the nano critic's training prompts."""

import numpy as np
import pytest

from vlac_gym.data.episodes import Episode, EpisodeMeta
from vlac_gym.data.labels import pair_percent
from vlac_gym.data.verdicts import with_verdict
from vlac_gym.errors import ConfigError
from vlac_gym.frames.codec import EncodedFrames, encode_frame
from vlac_gym.train_nano.labels import FrameTable, Sampler
from vlac_gym.train_nano.recipe import TrainRecipe


def episode(progress: list[float], task: str = "stack", init_state_id: int = 0) -> Episode:
    values = np.array(progress, np.float32)
    frames = [encode_frame(np.full((8, 8, 3), int(200 * p), np.uint8), "png") for p in progress]
    return Episode(
        meta=EpisodeMeta("suite", 0, task, init_state_id, "expert", seed=len(progress)),
        actions=np.zeros((len(values) - 1, 7), np.float32),
        states=np.zeros((len(values), 8), np.float32),
        success=values == 1.0,
        goal_progress=values,
        stages=np.full(len(values), ""),
        frame_steps=np.arange(len(values), dtype=np.int32),
        frames={"agentview": EncodedFrames.from_bytes(frames)},
    )


def test_table_knows_tasks_episodes_and_hard_frames():
    table = FrameTable.build([episode([0.0, 0.5, 1.0], "a"), episode([0.0] * 10, "b")])
    assert table.tasks == ("a", "b")
    assert table.rivals == ((1,), (0,))
    assert table.task.tolist() == [0] * 3 + [1] * 10
    assert table.success.tolist() == [False, False, True] + [False] * 10
    # Near success in time; without any success the last 40% of the episode: steps 5.4 to 9.
    assert table.is_hard.tolist() == [True, True, False] + [False] * 6 + [True] * 4


def test_done_draws_are_balanced_and_true():
    table = FrameTable.build([episode([0.0, 0.5, 1.0, 1.0], "a"), episode([0.0, 0.5, 1.0, 0.5], "b")])
    sampler = Sampler(table, TrainRecipe(mismatch_share=0.25), np.random.default_rng(0))
    rows, tasks, answers = sampler.draw_done(64)
    assert answers.sum() == 32
    matching = tasks == table.task[rows]
    assert (~matching).sum() == 16
    assert (answers[matching] == table.success[rows[matching]]).all()
    assert not answers[~matching].any()


def test_pairs_never_span_episodes():
    table = FrameTable.build([episode([0.0, 0.5, 1.0], "a"), episode([0.2, 0.1, 0.0, 0.3], "b")])
    sampler = Sampler(table, TrainRecipe(mismatch_share=0.0), np.random.default_rng(1))
    draw = sampler.draw_pairs(500)
    assert (table.episode[draw.before] == table.episode[draw.after]).all()
    expected = pair_percent(table.goal_progress[draw.before], table.goal_progress[draw.after])
    assert (draw.percent == expected).all()
    assert (draw.percent < 0).any()


def test_fresh_episodes_get_their_share_and_verdicts_make_no_pairs():
    judged = with_verdict(episode([0.0, 0.5, 0.5], "a"), 1)
    table = FrameTable.build([episode([0.0] * 30 + [1.0], "a"), judged])
    assert table.has_progress.tolist() == [True] * 31 + [False] * 3
    assert table.success[-3:].tolist() == [False, True, True]
    for share, expected in ((0.0, 1 / 31), (0.5, 0.5)):
        # Of the failed frames, 30 are old and 1 is fresh.
        recipe = TrainRecipe(mismatch_share=0.0, hard_share=0.0, fresh_share=share)
        rows, _, answers = Sampler(table, recipe, np.random.default_rng(0), num_old=1).draw_done(2000)
        fresh = table.episode[rows[~answers]] == 1
        assert fresh.mean() == pytest.approx(expected, abs=0.05)
    draw = Sampler(table, TrainRecipe(), np.random.default_rng(0), num_old=1).draw_pairs(200)
    assert set(table.episode[draw.before].tolist()) == {0}
    with pytest.raises(ConfigError, match="a person's verdicts alone"):
        Sampler(FrameTable.build([judged]), TrainRecipe(), np.random.default_rng(0))


def test_draws_go_on_from_a_saved_state():
    table = FrameTable.build([episode([0.0, 1.0], "a")])
    first = Sampler(table, TrainRecipe(), np.random.default_rng(3))
    first.draw_done(8)
    second = Sampler(table, TrainRecipe(), np.random.default_rng(99))
    second.restore(first.state())
    assert first.draw_done(8)[0].tolist() == second.draw_done(8)[0].tolist()


def test_data_without_success_is_refused():
    table = FrameTable.build([episode([0.0, 0.5], "a")])
    with pytest.raises(ConfigError, match="with and without success"):
        Sampler(table, TrainRecipe(), np.random.default_rng(0))
