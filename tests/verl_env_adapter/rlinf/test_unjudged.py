"""RLinf's batches with episodes that nobody judged, worked by hand; on stubs with the names of rlinf 0.3.0."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from verl_env_adapter.rlinf import unjudged  # noqa: E402

NAN = float("nan")
ACTORS = "rlinf.workers.actor.fsdp_actor_worker"
ENV_WORKERS = "rlinf.workers.env.env_worker"


def rewards_of(*episodes):
    """(chunks, envs, steps) from each env's chunks of 2 steps."""
    return torch.tensor(episodes).reshape(len(episodes), -1, 2).transpose(0, 1).contiguous()


def test_marks_go_to_the_step_that_ended_the_episode():
    rewards = torch.zeros((4, 3))
    unjudged.mark(rewards, [2, 0, 3, 3], [True, True, False, True])
    assert torch.isnan(rewards).tolist() == [
        [False, True, False],
        [True, False, False],
        [False] * 3,
        [False, False, True],
    ]
    assert rewards.nansum() == 0


def test_a_batch_of_judged_episodes_is_left_alone():
    batch = {"rewards": rewards_of([0.0, 1.0], [0.0, 0.5])}
    numbers, missing = unjudged.split(batch, 1, 2)
    assert numbers is batch
    assert missing.tolist() == [False, False]
    assert unjudged.masked(batch, missing) is batch


def test_in_a_group_the_mean_of_the_others_stands_in_and_the_others_keep_their_mean():
    # Two groups of three episodes of 4 steps. The second of the first group was paid 0.25 before it lost its critic.
    batch = {
        "rewards": rewards_of(
            [0.0, 1.0, 0.0, 0.0],
            [0.25, 0.0, NAN, 0.0],
            [0.0, 0.0, 0.0, 0.5],
            [0.0, 0.0, 0.0, 0.125],
            [0.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.25],
        ),
        "dones": "untouched",
    }
    numbers, missing = unjudged.split(batch, 1, 3)
    assert missing.tolist() == [False, True, False, False, False, False]
    assert numbers["dones"] == "untouched"
    assert numbers["rewards"][:, 1].reshape(-1).tolist() == [0.25, 0.0, 0.5, 0.0]  # 0.75, as (1.0 + 0.5) / 2
    returns = numbers["rewards"].sum(dim=(0, 2))
    assert returns.tolist() == [1.0, 0.75, 0.5, 0.125, 1.0, 0.25]
    assert torch.isnan(batch["rewards"][1, 1, 0])  # the batch that came is as it was


def test_a_group_that_lost_all_its_critics_has_nothing_to_learn():
    batch = {"rewards": rewards_of([0.0, NAN], [NAN, 0.0])}
    numbers, missing = unjudged.split(batch, 1, 2)
    assert missing.tolist() == [True, True]
    assert numbers["rewards"].tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


def test_envs_that_groups_do_not_divide_are_groups_of_their_own():
    numbers, missing = unjudged.split({"rewards": rewards_of([0.0, 1.0], [NAN, 0.0], [0.0, 0.5])}, 1, 2)
    assert missing.tolist() == [False, True, False]
    assert numbers["rewards"].sum(dim=(0, 2)).tolist() == [1.0, 0.0, 0.5]


def test_each_rollout_epoch_has_episodes_of_its_own():
    # Rows are epochs one after the other: two of one chunk each, RLinf merges them into columns.
    rewards = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.5], [NAN, 0.0]]])
    numbers, missing = unjudged.split({"rewards": rewards}, 2, 2)
    assert missing.tolist() == [False, False, False, True]
    assert numbers["rewards"].tolist() == [[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.5], [0.5, 0.0]]]


def test_the_mask_leaves_whole_episodes_out_and_keeps_the_divisor():
    mask = torch.tensor([[[True, True], [True, True]], [[True, False], [True, False]]])
    sums = torch.full((2, 2, 2), 3)
    batch = {"rewards": torch.zeros((2, 2, 2)), "loss_mask": mask, "loss_mask_sum": sums}
    made = unjudged.masked(batch, torch.tensor([False, True]))
    assert made["loss_mask"].tolist() == [[[True, True], [False, False]], [[True, False], [False, False]]]
    assert made["loss_mask_sum"] is sums
    assert mask[0, 1].tolist() == [True, True]


@pytest.fixture
def modules(monkeypatch):
    """Stubs of both modules, whose functions keep what they were given."""
    made = {name: ModuleType(name) for name in (ACTORS, ENV_WORKERS)}
    seen = []

    class EmbodiedFSDPActor:
        def _process_received_rollout_batch(self, rollout_batch):
            seen.append(rollout_batch["rewards"])
            return {**rollout_batch, "loss_mask": torch.ones((1, 2, 2), dtype=torch.bool)}

    def preprocess_embodied_batch(batch, *, rollout_epoch, group_size, auto_reset):
        seen.append(batch["rewards"])
        return {**batch, "loss_mask": torch.ones((1, 2, 2), dtype=torch.bool), "auto_reset": auto_reset}

    made[ACTORS].EmbodiedFSDPActor = EmbodiedFSDPActor
    made[ENV_WORKERS].preprocess_embodied_batch = preprocess_embodied_batch
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(actors=made[ACTORS], env_workers=made[ENV_WORKERS], seen=seen)


def test_both_places_that_make_masks_are_wrapped_once(modules):
    unjudged.install()
    wrapped = (
        modules.actors.EmbodiedFSDPActor._process_received_rollout_batch,
        modules.env_workers.preprocess_embodied_batch,
    )
    unjudged.install()
    assert wrapped == (
        modules.actors.EmbodiedFSDPActor._process_received_rollout_batch,
        modules.env_workers.preprocess_embodied_batch,
    )
    batch = {"rewards": rewards_of([0.0, 1.0], [NAN, 0.0])}

    actor = modules.actors.EmbodiedFSDPActor()
    actor.cfg = SimpleNamespace(
        env=SimpleNamespace(train=SimpleNamespace(rollout_epoch=1)), algorithm={"group_size": 2}
    )
    made = actor._process_received_rollout_batch(batch)
    assert made["loss_mask"].tolist() == [[[True, True], [False, False]]]

    made = modules.env_workers.preprocess_embodied_batch(
        batch, rollout_epoch=1, group_size=2, auto_reset=False
    )
    assert made["loss_mask"].tolist() == [[[True, True], [False, False]]]
    assert made["auto_reset"] is False
    assert [rewards.tolist() for rewards in modules.seen] == [[[[0.0, 1.0], [1.0, 0.0]]]] * 2
