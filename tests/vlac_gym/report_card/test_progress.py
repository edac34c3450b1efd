"""Progress, value and training-signal metrics on numbers worked by hand."""

import pytest

from vlac_gym.metrics.progress import accumulate_values, negative_rate, value_order_correlation
from vlac_gym.report_card.progress import (
    antisymmetry_error,
    f1_of_correlations,
    pairwise_outcome_accuracy,
    path_error,
    regression_recall,
    sign_accuracy,
)
from vlac_gym.report_card.training_signal import group_fidelity, length_return_correlation


def test_values_accumulate_without_a_floor() -> None:
    assert accumulate_values([0.5, 0.5, -1.0]).tolist() == [0.0, 0.5, 0.75, 0.5]
    assert accumulate_values([-0.5, -1.0]).tolist() == [0.0, -0.5, -2.0]
    assert accumulate_values([]).tolist() == [0.0]


def test_order_correlation_and_its_f1() -> None:
    assert value_order_correlation([0.0, 0.1, 0.4, 0.3]) == pytest.approx(0.8)
    assert value_order_correlation([0.0, -0.5, -2.0]) == pytest.approx(-1.0)
    assert value_order_correlation([0.2, 0.2]) is None
    assert f1_of_correlations(0.8, 0.4) == pytest.approx(0.64 / 1.2)
    assert f1_of_correlations(0.2, -0.4) is None


def test_pair_signs_against_dense_truth() -> None:
    progress, change = [0.2, -0.1, 0.3, -0.2, 0.0], [0.1, 0.2, 0.005, -0.3, -0.2]
    assert negative_rate(progress) == pytest.approx(0.4)
    assert negative_rate([]) is None
    # the third pair does not move; right: first and fourth of the other four
    assert sign_accuracy(progress, change) == pytest.approx(0.5)
    assert sign_accuracy([0.5], [0.0]) is None
    assert regression_recall(progress, change) == pytest.approx(0.5)
    assert regression_recall([0.5], [0.1]) is None


def test_pair_consistency() -> None:
    assert antisymmetry_error([0.5, 0.2], [-0.3, -0.2]) == pytest.approx(0.1)
    # .5 then .5 gives .75 against a direct .7
    assert path_error([0.5], [0.5], [0.7]) == pytest.approx(0.05)
    assert antisymmetry_error([], []) is None
    assert path_error([], [], []) is None


def test_outcomes_are_compared_within_a_task_only() -> None:
    values, outcomes = [0.9, 0.4, 0.4, 0.1, 0.0], [1, 0, 1, 0, 0]
    tasks = ["a", "a", "b", "b", "c"]
    assert pairwise_outcome_accuracy(values, outcomes, tasks) == 1.0
    # in one task: .9 beats .4 .1 0, .4 ties .4 and beats .1 0 -> 5.5 / 6
    assert pairwise_outcome_accuracy(values, outcomes, ["a"] * 5) == pytest.approx(5.5 / 6)
    assert pairwise_outcome_accuracy([0.5, 0.6], [1, 0], ["a", "b"]) is None
    assert pairwise_outcome_accuracy([], [], []) is None


def test_groups_show_noise_and_lost_gradients() -> None:
    fidelity = group_fidelity(
        critic_returns=[1.0, 0.2, 0.3, 0.6, 0.5, 0.5, 0.7, 0.7, 0.9],
        sim_returns=[1, 0, 0, 0, 1, 0, 0, 0, 1],
        groups=["good", "good", "good", "noise", "lost", "lost", "noise", "flat", "flat"],
    )
    # good: both pairs with the success are concordant -> 2/2 of what is possible; lost: 0; flat: sim differs
    # and the critic ranks it right (.7 < .9).
    assert fidelity.groups == 4
    assert fidelity.kendall_tau == pytest.approx((1 + 0 + 1) / 3)
    # good: +,-,- against +,-,-; lost: 0,0 against +,-; flat: -,+ against -,+
    assert fidelity.advantage_sign_agreement == pytest.approx(5 / 7)
    assert fidelity.noise_groups == 0.25
    assert fidelity.lost_groups == 0.25


def test_groups_of_one_are_not_groups() -> None:
    fidelity = group_fidelity([1.0, 0.5], [1, 0], ["a", "b"])
    assert fidelity.groups == 0
    assert fidelity.kendall_tau is None
    assert fidelity.noise_groups is None


def test_length_bias() -> None:
    assert length_return_correlation([10, 20, 30], [1.0, 0.5, 0.0]) == pytest.approx(-1.0)
    assert length_return_correlation([10, 10], [1.0, 0.5]) is None
