"""Which tasks a curriculum draws, what results do to it, and what saving keeps."""

import json
import math

import numpy as np
import pytest

from vlac_gym.curriculum import (
    CurriculumConfig,
    CurriculumManager,
    EpisodeResult,
    sampling_probabilities,
)
from vlac_gym.errors import ConfigError


def manager_of(task_ids=(0, 1, 2), num_init_states=50, **options):
    return CurriculumManager(task_ids, num_init_states, CurriculumConfig(**options))


def drawn(batch):
    return [(a.task_id, a.init_state_id) for a in batch]


def play(manager, outcomes):
    """Settles fresh assignments: all of task t succeed or fail as `outcomes[t]` says."""
    batch = manager.get_batch(manager.config.group_size)
    manager.report_results([EpisodeResult(a.assignment_id, outcomes[a.task_id]) for a in batch])


def test_probabilities_are_a_softmax_of_learnability_over_a_floor():
    # s = 4 p (1 - p) = 1, 0.75, 0 for p = 0.5, 0.25, 1; at temperature 0.25 / ln 2 the weights are 2 ** (4 s):
    # 16, 8, 1 of 25. With a floor of 0.25 each task gets 0.25 / 3 and 0.75 of its share.
    shares = sampling_probabilities([0.5, 0.25, 1.0], temperature=0.25 / math.log(2), floor=0.25)
    expected = [0.25 / 3 + 0.48, 0.25 / 3 + 0.24, 0.25 / 3 + 0.03]
    np.testing.assert_allclose(shares, expected, rtol=1e-12)
    assert shares.sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("temperature", "floor", "expected"),
    [
        (1e9, 0.0, [1 / 3, 1 / 3, 1 / 3]),  # hot: uniform
        (1e-3, 0.0, [1.0, 0.0, 0.0]),  # cold: greedy, without overflow
        (1e-3, 1.0, [1 / 3, 1 / 3, 1 / 3]),  # floor alone
        (1e-3, 0.3, [0.8, 0.1, 0.1]),
    ],
)
def test_temperature_and_floor_at_their_limits(temperature, floor, expected):
    np.testing.assert_allclose(
        sampling_probabilities([0.5, 0.1, 0.9], temperature, floor), expected, atol=1e-8
    )


def test_success_rates_are_a_moving_average_of_results_in_order():
    manager = manager_of([4], alpha=0.5, prior=0.5)
    ids = [a.assignment_id for a in manager.get_batch(3)]
    manager.report_results([EpisodeResult(ids[0], True), EpisodeResult(ids[1], True)])
    assert manager.success_rates() == {4: 0.875}  # 0.5 -> 0.75 -> 0.875
    manager.report_results([EpisodeResult(ids[2], False)])
    assert manager.success_rates() == {4: 0.4375}
    assert manager.num_results() == {4: 3}


def test_a_batch_holds_group_size_copies_of_each_start():
    batch = manager_of(range(10), group_size=4).get_batch(12)
    assert len({a.assignment_id for a in batch}) == 12
    groups = [batch[i : i + 4] for i in (0, 4, 8)]
    assert [len({(a.group_id, a.task_id, a.init_state_id) for a in group}) for group in groups] == [1, 1, 1]
    assert len({a.group_id for a in batch}) == 3


def test_draws_follow_the_probabilities_and_spread_over_initial_states():
    manager = manager_of((3, 8), num_init_states=[2, 5], alpha=1.0, temperature=0.5, floor=0.1)
    first = manager.get_batch(50)
    known = next(a for a in first if a.task_id == 8)
    manager.report_results([EpisodeResult(known.assignment_id, True)])
    # Task 8 is at 100 %: 0.05 + 0.9 / (1 + e ** 2) = 0.1573.
    assert manager.probabilities()[8] == pytest.approx(0.157282, abs=1e-6)
    batch = manager.get_batch(4000)
    assert sum(a.task_id == 8 for a in batch) / 4000 == pytest.approx(0.157282, abs=0.02)
    assert {a.init_state_id for a in batch if a.task_id == 3} == {0, 1}
    assert {a.init_state_id for a in batch if a.task_id == 8} == {0, 1, 2, 3, 4}


def test_reset_options_name_task_and_initial_state():
    (assignment,) = manager_of([6], num_init_states=1).get_batch(1)
    assert assignment.reset_options() == {"task_id": 6, "init_state_id": 0}


def test_a_result_counts_once_and_only_for_an_assignment_that_was_made():
    manager = manager_of([0], alpha=0.5)
    (first,) = manager.get_batch(1)
    manager.report_results([EpisodeResult(first.assignment_id, True)] * 3)
    manager.report_results([EpisodeResult("somebody-7", True), EpisodeResult("", True)])
    run = first.assignment_id.partition("-")[0]
    manager.report_results([EpisodeResult(f"{run}-99", True)])  # not handed out yet
    assert manager.success_rates() == {0: 0.75}
    counts = manager.counts()
    assert (counts["credited"], counts["duplicate"], counts["unknown"], counts["outstanding"]) == (1, 2, 3, 0)


def test_a_result_of_another_task_is_refused_and_its_assignment_given_back():
    manager = manager_of([0, 1], alpha=0.5)
    assignment = manager.get_batch(1)[0]
    manager.report_results([EpisodeResult(assignment.assignment_id, True, task_id=1 - assignment.task_id)])
    assert manager.success_rates() == {0: 0.5, 1: 0.5}
    assert manager.counts()["mismatched"] == 1
    manager.report_results([EpisodeResult(assignment.assignment_id, True, task_id=assignment.task_id)])
    assert manager.counts()["duplicate"] == 1


def test_an_episode_without_a_verdict_teaches_nothing():
    manager = manager_of([0], alpha=0.5)
    (assignment,) = manager.get_batch(1)
    manager.report_results([EpisodeResult(assignment.assignment_id, None)])
    assert manager.success_rates() == {0: 0.5}
    assert (manager.counts()["abandoned"], manager.counts()["outstanding"]) == (1, 0)


def test_assignments_that_never_come_back_are_forgotten_oldest_first():
    manager = manager_of([0], alpha=0.5, max_outstanding=2)
    first, second, third = manager.get_batch(3)
    assert (manager.counts()["evicted"], manager.counts()["outstanding"]) == (1, 2)
    manager.report_results([EpisodeResult(a.assignment_id, True) for a in (first, second, third)])
    assert manager.counts()["credited"] == 2
    assert manager.success_rates() == {0: 0.875}


def test_a_restored_curriculum_goes_on_exactly_as_the_saved_one(tmp_path):
    manager = manager_of(range(5), group_size=2, alpha=0.3, seed=11)
    for _ in range(20):
        play(manager, {0: True, 1: False, 2: True, 3: False, 4: True})
    running = manager.get_batch(2)
    manager.save(tmp_path / "new" / "curriculum.json")
    restored = CurriculumManager.load(tmp_path / "new" / "curriculum.json")
    for name in ("success_rates", "probabilities", "num_results", "counts", "metrics"):
        assert getattr(restored, name)() == getattr(manager, name)()
    assert (restored.config, restored.task_ids) == (manager.config, manager.task_ids)
    result = [EpisodeResult(running[0].assignment_id, True)]
    manager.report_results(result)
    restored.report_results(result)
    assert restored.success_rates() == manager.success_rates()
    assert drawn(restored.get_batch(200)) == drawn(manager.get_batch(200))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["curriculum.json"]


def test_a_result_from_after_the_save_is_not_credited_to_a_restored_assignment(tmp_path):
    manager = manager_of([0, 1])
    manager.save(tmp_path / "c.json")
    lost = manager.get_batch(20)  # these never reach the file
    restored = CurriculumManager.load(tmp_path / "c.json")
    restored.get_batch(20)
    restored.report_results([EpisodeResult(a.assignment_id, True) for a in lost])
    assert restored.counts()["unknown"] == 20
    assert restored.success_rates() == {0: 0.5, 1: 0.5}


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    manager = manager_of([0], alpha=0.5)
    manager.save(tmp_path / "c.json")
    before = (tmp_path / "c.json").read_bytes()
    play(manager, {0: True})

    def broken(_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="no space left"):
        manager.save(tmp_path / "c.json")
    assert (tmp_path / "c.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "Expected curriculum version 1 in .*, got 2"),
        ({"success_rates": [0.5]}, "no curriculum that this version can read"),
        ({"success_rates": [0.5, 0.5, 1.5]}, r"not in \[0, 1\]"),
        ({"outstanding": {"x-1": 9}}, "open assignments are of tasks"),
        ({"config": {"alpha": 7.0}}, r"Expected alpha in \(0, 1\]"),
        ({"config": {"beta": 7.0}}, "beta"),
        ({"rng": {}}, "no curriculum that this version can read"),
        ({"rng": {"bit_generator": "PCG64", "state": -1}}, "no curriculum that this version can read"),
        ({"outstanding": ["x-1"]}, "no curriculum that this version can read"),
        ({"outstanding": None}, "no curriculum that this version can read"),
        ({"counts": "many"}, "no curriculum that this version can read"),
        ({"num_results": [math.inf, 0, 0]}, "no curriculum that this version can read"),
        ({"config": [0.5]}, "no curriculum that this version can read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, text):
    path = tmp_path / "c.json"
    manager_of().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=text):
        CurriculumManager.load(path)


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected a saved curriculum .*none\.json"):
        CurriculumManager.load(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"version": 1')
    with pytest.raises(ConfigError, match="can't be read"):
        CurriculumManager.load(tmp_path / "half.json")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": 0.0}, r"alpha in \(0, 1\], got 0.0"),
        ({"alpha": math.nan}, "alpha"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"temperature": math.inf}, "finite temperature"),
        ({"floor": 1.1}, r"floor in \[0, 1\]"),
        ({"prior": -0.1}, r"prior in \[0, 1\]"),
        ({"group_size": 0}, "group_size as an int >= 1"),
        ({"group_size": 8, "max_outstanding": 7}, "max_outstanding as an int >= 8"),
        ({"source": "critc"}, "Did you mean 'critic'"),
    ],
)
def test_options_out_of_range_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        CurriculumConfig(**options)


@pytest.mark.parametrize(
    ("task_ids", "states"), [([], 1), ([1, 1], 1), ([1, 2], [5]), ([1, 2], 0), ([1], [0])]
)
def test_tasks_that_do_not_fit_are_refused(task_ids, states):
    with pytest.raises(ConfigError, match=r"Expected (one or more different task ids|num_init_states)"):
        CurriculumManager(task_ids, states)


@pytest.mark.parametrize("n", [0, -4, 6])
def test_a_batch_that_splits_a_group_is_refused(n):
    with pytest.raises(ConfigError, match=f"multiple of group_size 4, got {n}"):
        manager_of(group_size=4).get_batch(n)


def test_metrics_name_tasks_rates_probabilities_and_counts():
    metrics = manager_of([0, 7], alpha=0.5).metrics()
    assert metrics["curriculum/success_rate/7"] == 0.5
    assert metrics["curriculum/probability/0"] == 0.5
    assert metrics["curriculum/duplicate"] == 0.0
    assert len(metrics) == 2 + 2 + 7


def test_sampling_moves_to_the_tasks_that_can_be_learnt():
    """Ten tasks: three never succeed, three always do, four do about every other time."""
    chances = np.array([0.0] * 3 + [1.0] * 3 + [0.35, 0.45, 0.55, 0.65])
    manager = manager_of(range(10), group_size=4, alpha=0.05, temperature=0.1, floor=0.2, seed=3)
    rng = np.random.default_rng(5)
    learnable = []
    for _ in range(400):
        batch = manager.get_batch(8)
        learnable += [a.task_id >= 6 for a in batch]
        manager.report_results(
            [EpisodeResult(a.assignment_id, bool(rng.random() < chances[a.task_id])) for a in batch]
        )
    # At first all tasks are alike; in the end the floor leaves 0.02 to each, and 0.8 + 0.08 to the four.
    assert np.mean(learnable[:200]) < 0.65
    assert np.mean(learnable[-800:]) > 0.8
    assert min(manager.num_results().values()) > 20  # no task starves
    rates = manager.success_rates()
    assert max(rates[t] for t in range(3)) < 0.1
    assert min(rates[t] for t in range(3, 6)) > 0.9


def test_a_task_that_becomes_learnable_is_found_again():
    manager = manager_of([0, 1], alpha=0.2, temperature=0.1, floor=0.2, seed=1)
    rng = np.random.default_rng(2)

    def rounds(count, chances):
        tasks = []
        for _ in range(count):
            (a,) = manager.get_batch(1)
            tasks.append(a.task_id)
            manager.report_results([EpisodeResult(a.assignment_id, bool(rng.random() < chances[a.task_id]))])
        return tasks

    assert np.mean(rounds(300, (0.5, 0.0))[-100:]) < 0.35  # task 1 is out of reach
    assert np.mean(rounds(600, (1.0, 0.5))[-100:]) > 0.65  # now it is the one to learn
