"""RLinf's batches with episodes that nobody judged, worked by hand; on stubs with the names of rlinf 0.3.0."""

import sys
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from verl_env_adapter.rlinf import unjudged  # noqa: E402

NAN = float("nan")
CALLERS = [
    "rlinf.workers.env.env_worker",
    "rlinf.workers.actor.fsdp_actor_worker",
    "rlinf.workers.actor.async_ppo_fsdp_worker",
]


def rewards_of(*episodes):
    """(chunks, episodes, steps) from each episode's chunks of 2 steps."""
    return torch.tensor(episodes).reshape(len(episodes), -1, 2).transpose(0, 1).contiguous()


def whole(rewards):
    return torch.ones(rewards.shape, dtype=torch.bool)


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


def test_judged_episodes_are_left_alone():
    rewards = rewards_of([0.0, 1.0], [0.0, 0.5])
    mask = torch.tensor([[[True, True], [True, False]]])
    unjudged.leave_out(rewards, mask, 2)
    assert rewards.tolist() == [[[0.0, 1.0], [0.0, 0.5]]]
    assert mask.tolist() == [[[True, True], [True, False]]]


def test_in_a_group_the_mean_of_the_others_stands_in_and_the_others_keep_their_mean():
    # Two groups of three episodes of 4 steps. The second of the first group was paid 0.25 before it lost its critic.
    rewards = rewards_of(
        [0.0, 1.0, 0.0, 0.0],
        [0.25, 0.0, NAN, 0.0],
        [0.0, 0.0, 0.0, 0.5],
        [0.0, 0.0, 0.0, 0.125],
        [0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.25],
    )
    mask = whole(rewards)
    unjudged.leave_out(rewards, mask, 3)
    assert rewards[:, 1].reshape(-1).tolist() == [0.25, 0.0, 0.5, 0.0]  # 0.75, as (1.0 + 0.5) / 2
    assert rewards.sum(dim=(0, 2)).tolist() == [1.0, 0.75, 0.5, 0.125, 1.0, 0.25]
    assert mask.all(dim=2).all(dim=0).tolist() == [True, False, True, True, True, True]
    assert not mask[:, 1].any()


def test_a_group_that_lost_all_its_critics_has_nothing_to_learn():
    rewards = rewards_of([0.0, NAN], [NAN, 0.0])
    mask = torch.ones((1, 2, 1), dtype=torch.bool)  # RLinf's for whole chunks
    unjudged.leave_out(rewards, mask, 2)
    assert rewards.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    assert mask.tolist() == [[[False], [False]]]


def test_episodes_that_groups_do_not_divide_are_groups_of_their_own():
    rewards = rewards_of([0.0, 1.0], [NAN, 0.0], [0.0, 0.5])
    unjudged.leave_out(rewards, whole(rewards), 2)
    assert rewards.sum(dim=(0, 2)).tolist() == [1.0, 0.0, 0.5]


@pytest.fixture
def modules(monkeypatch):
    """Stubs of the modules, whose function says what it was given."""
    made = [ModuleType(name) for name in CALLERS]
    for module in made:
        module.calculate_adv_and_returns = lambda **given: given
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def test_every_module_that_computes_advantages_is_prepared_once(modules):
    unjudged.install()
    wrapped = [module.calculate_adv_and_returns for module in modules]
    unjudged.install()
    assert [module.calculate_adv_and_returns for module in modules] == wrapped
    for calculate in wrapped:
        rewards = rewards_of([0.0, 1.0], [NAN, 0.0])
        mask = whole(rewards)
        given = calculate(task_type="embodied", rewards=rewards, loss_mask=mask, group_size=2, gamma=0.9)
        assert given["rewards"] is rewards
        assert rewards.tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
        assert mask.tolist() == [[[True, True], [False, False]]]
        assert given["gamma"] == 0.9


def test_what_is_no_episode_of_a_robot_is_passed_on(modules):
    unjudged.install()
    calculate = modules[1].calculate_adv_and_returns
    rewards = torch.tensor([1.0, NAN])
    assert calculate(task_type="reasoning", rewards=rewards, loss_mask=rewards)["rewards"] is rewards
    assert calculate(task_type="embodied", rewards=rewards, loss_mask=None)["rewards"] is rewards
