"""Behaviour cloning learns what was recorded, chooses as the seed says, and resumes as if nothing had happened."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlac_gym.errors import ConfigError

torch = pytest.importorskip("torch")

from clone_episodes import recorded  # noqa: E402

from vlac_gym.clone.demonstrations import choose_demonstrations, load_demonstrations  # noqa: E402
from vlac_gym.clone.imitation import _shifted  # noqa: E402
from vlac_gym.clone.policy import load_policy  # noqa: E402
from vlac_gym.clone.recipe import CloneRecipe  # noqa: E402
from vlac_gym.clone.trainer import train_clone  # noqa: E402
from vlac_gym.data.dataset import EpisodeDataset  # noqa: E402

TINY = CloneRecipe(
    steps=6, batch_size=4, image_size=16, chunk_size=2, save_every_steps=2, max_shift_px=1, learning_rate=3e-3
)


class Killed(Exception):
    """Stands for a kill: nothing of the trainer runs after it."""


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_one_episode_is_learned_by_heart(tmp_path, bank):
    recipe = dataclasses.replace(
        TINY, steps=150, batch_size=16, max_shift_px=0, held_out_init_states="none", save_every_steps=50
    )
    folder = train_clone(bank(recorded(1)), tmp_path / "run", recipe, device="cpu")
    rows = lines(tmp_path / "run")
    assert [row["step"] for row in rows] == [50, 100, 150]
    assert rows[-1]["metrics"]["train/loss"] < 1e-3 < rows[0]["metrics"]["train/loss"]
    assert rows[-1]["metrics"]["held_out/action_error"] is None
    policy = load_policy(folder)
    demos, _ = load_demonstrations(EpisodeDataset.open(tmp_path / "bank"), recipe, policy.tasks)
    with torch.no_grad():
        means, _, _ = policy(demos.pictures, demos.states, torch.ones(7, 1))
    assert float((means - demos.chunks).abs().max()) < 0.25
    with torch.no_grad():
        features = policy.features(demos.pictures, demos.states, torch.ones(7, 1))
    torch.testing.assert_close(policy.feature_mean, features.mean(0))
    torch.testing.assert_close(policy.state_mean[0], torch.tensor(0.3))  # of 0, 0.1, …, 0.6
    assert float(policy.state_std[1]) == pytest.approx(0.01)  # never changes: the least that is divided by


def test_labels_are_the_clean_actions_up_to_success(bank):
    demos, _ = load_demonstrations(EpisodeDataset.open(bank(recorded(1))), TINY, ["libero_spatial:0"])
    episode = recorded(1)
    assert len(demos) == 7
    assert demos.env_steps.tolist() == list(range(7))
    np.testing.assert_array_equal(demos.chunks[:, 0], episode.clean_actions[:7])
    np.testing.assert_array_equal(demos.chunks[:, 1], episode.clean_actions[1:8])
    np.testing.assert_array_equal(demos.pictures["wrist"][3], episode.view("wrist")[3])


def test_after_an_episode_the_arm_stands_still_and_the_hand_keeps_its_grip(bank):
    recipe = dataclasses.replace(TINY, chunk_size=4)
    demos, _ = load_demonstrations(EpisodeDataset.open(bank(recorded(1))), recipe, ["libero_spatial:0"])
    still = [0, 0, 0, 0, 0, 0, 1]
    assert demos.chunks[6, 2].tolist() == pytest.approx([0.9, 0.1, 0, 0, 0, 0, 1])
    assert demos.chunks[6, 3].tolist() == still


def test_pictures_are_averaged_down(bank):
    recipe = dataclasses.replace(TINY, image_size=8)
    demos, _ = load_demonstrations(EpisodeDataset.open(bank(recorded(1))), recipe, ["libero_spatial:0"])
    # The square covers rows 0-3 and columns 1-4: half of the first pixel's two columns, all of the next.
    assert demos.pictures["agentview"][0, 0, :3].tolist() == [[145, 65, 30], [250, 90, 20], [145, 65, 30]]


def test_a_killed_run_ends_as_an_uncut_one(tmp_path, bank):
    data = bank(*(recorded(i) for i in range(3)))
    whole = train_clone(data, tmp_path / "whole", TINY, device="cpu")

    def die(what: str, done: int, total: int) -> None:
        if (what, done) == ("steps", 5):
            raise Killed

    with pytest.raises(Killed):
        train_clone(data, tmp_path / "cut", TINY, device="cpu", on_progress=die)
    assert not (tmp_path / "cut" / "policy").exists()
    taken = []
    resumed = train_clone(
        data, tmp_path / "cut", TINY, device="cpu", resume=True, on_progress=lambda *now: taken.append(now)
    )
    assert taken == [("episodes", i, 3) for i in (1, 2, 3)] + [("steps", 5, 6), ("steps", 6, 6)]
    expected, found = load_policy(whole).state_dict(), load_policy(resumed).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (whole / "clone.json").read_text() == (resumed / "clone.json").read_text()
    metrics = [[(row["step"], row["metrics"]) for row in lines(tmp_path / run)] for run in ("whole", "cut")]
    assert metrics[0] == metrics[1]
    facts = json.loads((whole / "clone.json").read_text())
    assert facts["held_out_states"] == [2]
    assert [facts["tasks"], len(facts["episodes"])] == [["libero_spatial:0"], 2]
    assert facts["held_out_action_error"] == metrics[0][-1][1]["held_out/action_error"] > 0


def test_a_run_of_before_the_features_mean_gets_it_by_a_resume(tmp_path, bank):
    data, out = bank(recorded(0), recorded(1)), tmp_path / "run"
    expected = load_policy(train_clone(data, out, TINY, device="cpu")).state_dict()
    state = torch.load(out / "state.pt", weights_only=True)
    del state["policy"]["feature_mean"]
    torch.save(state, out / "state.pt")
    found = load_policy(train_clone(data, out, TINY, device="cpu", resume=True)).state_dict()
    assert expected["feature_mean"].any()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_another_recipe_or_other_data_is_not_resumed(tmp_path, bank):
    data = bank(*(recorded(i) for i in range(3)))
    train_clone(data, tmp_path / "run", TINY, device="cpu")
    with pytest.raises(ConfigError, match=r"holds metrics\.jsonl, policy, state\.pt; .*--resume"):
        train_clone(data, tmp_path / "run", TINY, device="cpu")
    other = dataclasses.replace(TINY, weight_decay=0.5)
    with pytest.raises(ConfigError, match=r"other episodes: weight_decay was 0\.01, is 0\.5"):
        train_clone(data, tmp_path / "run", other, device="cpu", resume=True)
    bank(recorded(0, task_id=0), dataclasses.replace(recorded(1), states=np.ones((10, 8), np.float32)))
    with pytest.raises(ConfigError, match="other episodes: data_sha256 was"):
        train_clone(data, tmp_path / "run", TINY, device="cpu", resume=True)


def test_the_seed_chooses_demonstrations_of_each_task_and_more_hold_the_fewer(bank):
    data = EpisodeDataset.open(bank(*(recorded(i, task_id=t) for t in (0, 1) for i in range(10))))

    def chosen(demos: int, seed: int = 0) -> set[tuple[int, int]]:
        train, held_out = choose_demonstrations(
            data, dataclasses.replace(TINY, demos_per_task=demos, seed=seed)
        )
        assert {entry.meta.init_state_id for entry in held_out.entries} == {8, 9}
        return {(entry.meta.task_id, entry.meta.init_state_id) for entry in train.entries}

    for few, more in ((1, 2), (2, 4)):
        assert chosen(few) < chosen(more)
        assert sorted(task for task, _ in chosen(few)) == sorted([0, 1] * few)
    assert max(state for _, state in chosen(8)) == 7
    assert len({tuple(sorted(chosen(1, seed))) for seed in range(8)}) > 1
    with pytest.raises(ConfigError, match=r"Expected 9 demonstrations of task libero_spatial:0 .* got 8"):
        chosen(9)


def test_failures_are_learned_only_when_asked_for(bank):
    data = EpisodeDataset.open(bank(recorded(0), recorded(1, succeeds=False), recorded(2)))
    recipe = dataclasses.replace(TINY, held_out_init_states="2")
    states = [
        [e.meta.init_state_id for e in choose_demonstrations(data, r)[0].entries]
        for r in (recipe, dataclasses.replace(recipe, any_episode=True))
    ]
    assert states == [[0], [0, 1]]


def test_data_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, bank):
    out = tmp_path / "run"
    data = bank(recorded(0), recorded(1))
    for change, message in [
        ({"cameras": ("agentview", "front")}, "Expected the views agentview, front .* got agentview, wrist"),
        ({"image_size": 32}, "pictures of 32 pixels or more .* got 16 x 16 of camera agentview"),
        ({"held_out_init_states": "7"}, "held-out part"),
        ({"held_out_init_states": "second"}, "Expected held-out initial states as"),
    ]:
        with pytest.raises(ConfigError, match=message):
            train_clone(data, out, dataclasses.replace(TINY, **change), device="cpu")
    with pytest.raises(ConfigError, match="Expected a device that torch can use, got 'mars'"):
        train_clone(data, out, TINY, device="mars")
    bank(recorded(0, stride=3))
    with pytest.raises(ConfigError, match="--frame-stride-steps 1"):
        train_clone(data, out, TINY, device="cpu")
    assert not out.exists()
    with pytest.raises(ConfigError, match="Expected demos_per_task >= 1, got 0"):
        dataclasses.replace(TINY, demos_per_task=0)


def test_a_shift_moves_each_picture_and_repeats_the_edge():
    pictures = torch.arange(9, dtype=torch.uint8).reshape(1, 3, 3, 1).repeat(2, 1, 1, 3)
    moved = _shifted(pictures, torch.tensor([0, 1]), torch.tensor([[1, 0], [0, -2]]))
    assert moved[0, :, :, 0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]  # down
    assert moved[1, :, :, 2].tolist() == [[2, 2, 2], [5, 5, 5], [8, 8, 8]]  # left
