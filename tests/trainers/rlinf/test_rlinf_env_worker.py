"""rlinf 0.3.0's real env worker plays real LIBERO episodes; what the wrapper paid is what RLinf would train on.

Run by `scripts/test_rlinf.sh`, in an environment that has rlinf.
"""

from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("default"),  # RLinf's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("rlinf")


def paid(record: list[dict[str, Any]], mode: str) -> list[float]:
    return sorted(sum(row) for row in episodes(record, mode))


def episodes(record: list[dict[str, Any]], mode: str) -> list[list[float]]:
    """The rewards of each env of one episode, in the order of steps; every env here has one episode."""
    rows: dict[Any, list[float]] = {}
    for line in record:
        if line["mode"] == mode:
            for i, rewards in enumerate(line["rewards"]):
                rows.setdefault((line["env"], i), []).extend(rewards)
    return list(rows.values())


def test_rlinf_trains_on_what_the_wrapper_paid_and_evaluates_by_the_simulator(
    play, make_config, critic, record, seed_with_tasks, tmp_path
):
    outcome = play(make_config(critic.url, train={"seed": seed_with_tasks(1, 0)}))
    batch, metrics = outcome["batch"], outcome["metrics"]

    rewards = batch["rewards"]
    assert rewards.shape == (2, 2, 4)  # chunks, envs, steps: stage 0 plays task 1, stage 1 task 0
    [value] = critic.values()  # one question in training, none in evaluation
    assert 0.0 < value < 1.0
    assert rewards[:, 0].reshape(-1).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(rewards[:, 1].reshape(-1).numpy(), np.float32([0] * 7 + [value]))
    np.testing.assert_allclose(paid(record(), "train"), sorted([1.0, value]), rtol=1e-6)

    done = batch["dones"][1:]
    assert done[:, 0].reshape(-1).tolist() == [False] * 2 + [True] * 6
    assert done[:, 1].reshape(-1).tolist() == [False] * 7 + [True]
    assert batch["loss_mask"][:, 0].reshape(-1).tolist() == [True] * 3 + [False] * 5
    assert batch["loss_mask"][:, 1].all()

    assert metrics["critic_done"].tolist() == [1.0, 0.0]
    assert metrics["critic_mode"].tolist() == [1.0, 1.0]
    assert metrics["sim_success"].tolist() == [0.0, 0.0]
    assert metrics["episode_len"].tolist() == [3.0, 8.0]
    np.testing.assert_allclose(metrics["return"].numpy(), [1.0, value], rtol=1e-6)

    # With gamma = lambda = 1 and no value behind the end, a step's return is what the episode pays from there on.
    returns, advantages = outcome["returns"]["returns"], outcome["returns"]["advantages"]
    np.testing.assert_allclose(returns[0, :, 0].numpy(), [1.0, value], rtol=1e-5)
    np.testing.assert_allclose(advantages[0, :, 0].numpy(), [0.5, value - 0.5], rtol=1e-4)

    evaluation = outcome["evaluation"]
    assert evaluation["critic_mode"] == 0.0
    assert evaluation["success_once"] == 0.0  # an arm that moves down for 8 steps solves nothing
    assert paid(record(), "eval") == [0.0, 0.0]
    videos = [file for file in (tmp_path / "video").rglob("*.mp4") if file.stat().st_size]
    assert len(videos) == 2  # one per stage


def test_auto_reset_pays_each_episode_once(play, make_config, critic, record):
    train = {
        "auto_reset": True,
        "total_num_envs": 1,
        "max_steps_per_rollout_epoch": 12,
        "max_episode_steps": 8,
    }
    cfg = make_config(critic.url, train=train, stages=1)
    cfg.env.train.vlac_gym.truncate_as_terminal = True
    cfg.env.train.vlac_gym.env.tasks = [1]
    cfg.runner.val_check_interval = -1
    outcome = play(cfg)
    batch, metrics = outcome["batch"], outcome["metrics"]
    # Done at step 3 of each chunk: three episodes; paid where earned, ended in the last column.
    assert batch["rewards"][:, 0].tolist() == [[0, 0, 1, 0]] * 3
    assert batch["terminations"][1:, 0].tolist() == [[False] * 3 + [True]] * 3
    assert not batch["truncations"].any()
    assert metrics["critic_done"].tolist() == [1.0] * 3
    assert metrics["episode_len"].tolist() == [3.0] * 3
    assert paid(record(), "train") == [3.0]


@pytest.mark.parametrize("extension", [None, "a_module_that_does_not_exist"])
def test_nothing_trains_without_the_extension(play, make_config, extension):
    outcome = play(make_config("oracle"), extension=extension)
    assert list(outcome) == ["error"]
    assert "vlac_gym" in outcome["error"]
