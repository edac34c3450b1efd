"""Latched episodes of several envs: exact arrays in, exact arrays out, on scripted envs and a scripted critic."""

import numpy as np
import pytest

from verl_env_adapter.common.env_pool import EnvPool
from verl_env_adapter.common.settings import parse_settings
from vlac_gym.envs.scripted import ScriptedEnv
from vlac_gym.errors import AdapterContractError, ConfigError, CriticResponseError, SimulatorError


def settings(
    *,
    spec="scripted:0.1",
    env_id="scripted_ids:Scripted-v0",
    chunk=4,
    limit=10,
    on_error="raise",
    success=(),
    kwargs=None,
    critic_options=None,
    **more,
):
    return parse_settings(
        {
            "env": {
                "id": env_id,
                "chunk": chunk,
                "kwargs": {"success_steps": list(success), **(kwargs or {})},
                "max_episode_steps": limit,
            },
            "critic": {"spec": spec, "on_error": on_error, **(critic_options or {})},
            **more,
        }
    )


@pytest.fixture
def make_pool():
    pools = []

    def make(block, num_envs=2, **options):
        pools.append(EnvPool(block, num_envs, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def chunks(num_envs: int, length: int = 4) -> np.ndarray:
    return np.zeros((num_envs, length, 7), np.float32)


def simulator(pool, i, name):
    return pool.envs.env.get_attr(name)[i]


def test_init_states_are_refused_where_the_trainer_names_the_start():
    block = parse_settings({"env": {"init_states": {"train": "0-39"}}})
    with pytest.raises(ConfigError, match=r"env\.init_states is for RLinf"):
        EnvPool(block, 1)


def test_nothing_ends(make_pool):
    pool = make_pool(settings())
    pool.reset(mode="train")
    batch = pool.step_chunk(chunks(2))
    assert batch.rewards.tolist() == [[0.0] * 4] * 2
    assert not batch.terminated.any()
    assert not batch.truncated.any()
    assert batch.executed_steps.tolist() == [4, 4]
    assert [report.observation["state"].tolist() for report in batch.reports] == [[4.0], [4.0]]


def test_critic_ends_an_episode_inside_a_chunk(make_pool):
    # One script for both envs, in turn: done at step 2 of 4.
    pool = make_pool(settings(spec="scripted:0.1,0.1,0.95,0.95"))
    pool.reset(mode="train")
    batch = pool.step_chunk(chunks(2))
    assert batch.rewards.tolist() == [[0.0, 1.0, 0.0, 0.0]] * 2
    assert batch.terminated.tolist() == [[False, True, True, True]] * 2
    assert batch.critic_done.tolist() == [[False, True, True, True]] * 2
    assert not batch.truncated.any()
    assert not batch.sim_success.any()
    assert batch.executed_steps.tolist() == [2, 2]
    assert (batch.rewards.dtype, batch.terminated.dtype) == (np.float32, bool)


def test_stop_on_the_accumulated_value_is_the_critics_done(make_pool):
    # Progress 0.1 at every step: values 0.1, 0.19, 0.271, of which the third is above 0.25 and is paid.
    rule = {"preset": "evolve", "done_interval": 1, "milestone_interval": 1, "value_threshold": 0.25}
    pool = make_pool(settings(rule=rule), num_envs=1)
    pool.reset(mode="train")
    batch = pool.step_chunk(chunks(1))
    np.testing.assert_allclose(batch.rewards, [[0.0, 0.0, 0.271, 0.0]], atol=1e-6)
    assert batch.terminated.tolist() == [[False, False, True, True]]
    assert batch.critic_done.tolist() == [[False, False, True, True]]


def test_end_is_latched_without_work_until_the_reset(make_pool):
    pool = make_pool(settings(spec="scripted:0.1,0.95"), num_envs=1)
    pool.reset(mode="train")
    first = pool.step_chunk(chunks(1))
    steps = simulator(pool, 0, "num_steps")
    calls = first.reports[0].info["critic"]["calls"]
    for _ in range(3):
        batch = pool.step_chunk(chunks(1))
        assert batch.rewards.tolist() == [[0.0] * 4]
        assert batch.terminated.tolist() == [[True] * 4]
        assert batch.executed_steps.tolist() == [0]
        assert batch.reports[0].observation["state"].tolist() == [2.0]
    assert simulator(pool, 0, "num_steps") == steps == 2
    assert batch.reports[0].info["critic"]["calls"] == calls
    (report,) = pool.reset(mode="train")
    assert not report.is_over
    assert report.episode_return == 0.0


def test_value_is_paid_once_at_the_step_limit(make_pool):
    # The scripted critic's value lists end at 0.5.
    pool = make_pool(settings(limit=6))
    pool.reset(mode="train")
    pool.step_chunk(chunks(2))
    batch = pool.step_chunk(chunks(2))
    assert batch.rewards.tolist() == [[0.0, 0.5, 0.0, 0.0]] * 2
    assert batch.truncated.tolist() == [[False, True, True, True]] * 2
    assert not batch.terminated.any()
    assert not batch.critic_done.any()
    assert [report.value for report in batch.reports] == [0.5, 0.5]
    assert [report.episode_return for report in batch.reports] == [0.5, 0.5]
    assert [report.episode_steps for report in batch.reports] == [6, 6]


def test_paid_truncation_is_terminal_on_demand(make_pool):
    pool = make_pool(settings(limit=4, truncate_as_terminal=True), num_envs=1)
    pool.reset(mode="train")
    batch = pool.step_chunk(chunks(1))
    assert batch.terminated.tolist() == [[False, False, False, True]]
    assert batch.truncated.tolist() == [[False, False, False, True]]
    assert not batch.critic_done.any()


def test_truncation_in_eval_mode_stays_a_truncation(make_pool):
    pool = make_pool(settings(limit=4, truncate_as_terminal=True), num_envs=1)
    pool.reset(mode="eval")
    batch = pool.step_chunk(chunks(1))
    assert not batch.terminated.any()
    assert batch.truncated.tolist() == [[False, False, False, True]]
    assert batch.rewards.tolist() == [[0.0] * 4]


def test_eval_mode_is_the_simulator_alone(make_pool):
    pool = make_pool(settings(spec="scripted:0.95", success=[3]), num_envs=1)
    pool.reset(mode="eval")
    batch = pool.step_chunk(chunks(1))
    assert batch.rewards.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert batch.terminated.tolist() == [[False, False, True, True]]
    assert batch.sim_success.tolist() == [[False, False, True, True]]
    assert not batch.critic_done.any()
    assert "critic" not in batch.reports[0].info


def test_simulator_success_in_training_is_reported_and_pays_nothing(make_pool):
    pool = make_pool(settings(success=[2]), num_envs=1)
    pool.reset(mode="train")
    batch = pool.step_chunk(chunks(1))
    assert batch.rewards.tolist() == [[0.0] * 4]
    assert not batch.terminated.any()
    assert batch.sim_success.tolist() == [[False, False, False, True]]
    batch = pool.step_chunk(chunks(1))
    assert batch.sim_success.tolist() == [[False, False, False, True]]
    assert batch.reports[0].sim_success is True


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("step", [2, 4])
def test_passing_success_of_the_simulator_is_remembered_to_the_reset(make_pool, mode, is_told, step):
    passing = {"env_id": "scripted_ids:PassingSuccess-v0", "kwargs": {"is_told": is_told}}
    pool = make_pool(settings(success=[step], **passing), num_envs=1)
    pool.reset(mode=mode)
    for expected in ([False, False, False, True], [True], [True]):
        batch = pool.step_chunk(chunks(1, len(expected)))
        assert batch.sim_success.tolist() == [expected]
        assert batch.reports[0].sim_success is True
        assert not batch.terminated.any()
    (report,) = pool.reset(mode=mode)
    assert report.sim_success is (False if is_told else None)


def test_return_adds_up_over_chunks(make_pool):
    # A simulator that pays 0.25 a step: 4 * 0.25, then 6 * 0.25 at the limit.
    arm = {"env_id": "scripted_arm:ScriptedArm-v0", "kwargs": {"step_reward": 0.25}}
    pool = make_pool(settings(limit=6, **arm), num_envs=1)
    pool.reset(mode="eval")
    returns = [pool.step_chunk(chunks(1)).reports[0].episode_return for _ in range(3)]
    assert returns == [1.0, 1.5, 1.5]
    assert pool.reset(mode="eval")[0].episode_return == 0.0


def test_some_envs_are_reset_and_the_others_stay_as_they_are(make_pool):
    pool = make_pool(settings(spec="scripted:0.1,0.95"))
    pool.reset(mode="train")
    pool.step_chunk(chunks(2))
    pool.reset([1], mode="train")
    batch = pool.step_chunk(chunks(1, 1), [1])
    assert batch.env_ids.tolist() == [1]
    assert batch.terminated.tolist() == [[False]]
    first, second = pool.reports()
    assert (first.is_over, second.is_over) == (True, False)
    assert simulator(pool, 0, "num_resets") == 1
    assert simulator(pool, 1, "num_resets") == 2


def test_history_of_the_critic_does_not_span_a_reset(make_pool):
    # Patience 2: one done check before the reset and one after must not add up.
    pool = make_pool(settings(spec="scripted:0.95", rule={"done_patience": 2}), num_envs=1)
    pool.reset(mode="train")
    assert not pool.step_chunk(chunks(1, 1)).terminated.any()
    pool.reset(mode="train")
    assert not pool.step_chunk(chunks(1, 1)).terminated.any()
    assert pool.step_chunk(chunks(1, 1)).terminated.all()


def test_env_whose_reset_failed_has_no_episode_to_go_on_with(make_pool, monkeypatch):
    pool = make_pool(settings(), num_envs=1)
    pool.reset(mode="train")

    def fail(*args, **kwargs):
        raise SimulatorError("out of memory")

    monkeypatch.setattr(ScriptedEnv, "reset", fail)
    with pytest.raises(SimulatorError, match="out of memory"):
        pool.reset(mode="train")
    assert pool.reports() == [None]
    with pytest.raises(AdapterContractError, match=r"Envs \[0\] have no running episode"):
        pool.step_chunk(chunks(1))


def test_critic_has_the_trainers_patience_whatever_the_number_of_envs():
    # 5 questions (4 done checks, 1 value) in 0.8 * 30 s are 4.8 s each, for all envs together.
    block = settings(spec="http://critic:8400", critic_options={"deadline_s": 4.8})
    EnvPool(block, 3, host_deadline_s=30.0).close()
    block = settings(spec="http://critic:8400", critic_options={"deadline_s": 5.0})
    with pytest.raises(ConfigError, match=r"deadline_s of at most 4\.8, got 5"):
        EnvPool(block, 3, host_deadline_s=30.0)


def calls(pool):
    return [(call.method, call.count) for call in pool.envs.critic.calls]


def test_critic_is_asked_once_about_all_envs_that_step_together(make_pool):
    pool = make_pool(settings(limit=3, rule={"value_stride": 1}), num_envs=4)
    pool.reset(mode="train")
    pool.step_chunk(chunks(4, 2))
    assert calls(pool) == [("success_prob", 4)] * 2
    pool.step_chunk(chunks(2, 1), [1, 3])
    assert calls(pool)[2:] == [("success_prob", 2), ("value", 4), ("value", 4)]


def test_answer_that_is_no_number_costs_no_other_env_its_episode(make_pool):
    pool = make_pool(settings(spec="scripted:0.1,2,0.1,0.1,0.95"), num_envs=2)
    pool.reset(mode="train")
    with pytest.raises(CriticResponseError, match=r"Expected success_prob in \[0, 1\].* index 1 of 2"):
        pool.step_chunk(chunks(2, 1))
    first, second = pool.reports()
    assert (first.episode_steps, first.is_over, second) == (1, False, None)
    with pytest.raises(AdapterContractError, match=r"Envs \[1\] have no running episode"):
        pool.step_chunk(chunks(2, 1))
    pool.reset([1], mode="train")
    batch = pool.step_chunk(chunks(2, 1))
    assert [report.episode_steps for report in batch.reports] == [2, 1]
    assert pool.step_chunk(chunks(1, 1), [0]).critic_done.tolist() == [[True]]


def test_critics_error_is_over_with_its_episode(make_pool):
    pool = make_pool(settings(spec="scripted:2,0.1"), num_envs=1)
    pool.reset(mode="train")
    with pytest.raises(CriticResponseError):
        pool.step_chunk(chunks(1, 1))
    for mode in ("eval", "train"):
        pool.reset(mode=mode)
        assert not pool.step_chunk(chunks(1, 1)).critic_done.any()


def test_mode_is_every_envs_and_waits_for_the_episodes_that_run(make_pool):
    pool = make_pool(settings(spec="scripted:0.95"))
    pool.reset(mode="train")
    pool.step_chunk(chunks(1), [0])
    with pytest.raises(
        AdapterContractError, match=r"in 'train' mode, got 'eval': envs \[1\] are in an episode"
    ):
        pool.reset([0], mode="eval")
    pool.step_chunk(chunks(1), [1])
    pool.reset([0], mode="eval")
    assert not pool.step_chunk(chunks(1), [0]).terminated.any()
    with pytest.raises(AdapterContractError, match=r"Envs \[1\] have no running episode"):
        pool.step_chunk(chunks(1), [1])


def test_failed_critic_raises_and_the_reset_starts_anew(make_pool, monkeypatch):
    pool = make_pool(settings(), num_envs=1)
    pool.reset(mode="train")
    break_critic(monkeypatch, pool)
    with pytest.raises(CriticResponseError, match="no number"):
        pool.step_chunk(chunks(1))
    with pytest.raises(AdapterContractError, match=r"Envs \[0\] have no running episode"):
        pool.step_chunk(chunks(1))
    monkeypatch.undo()
    pool.reset(mode="train")
    assert pool.step_chunk(chunks(1)).executed_steps.tolist() == [4]


def test_failed_critic_truncates_with_a_mark_and_is_not_terminal(make_pool, monkeypatch):
    pool = make_pool(settings(on_error="truncate", truncate_as_terminal=True), num_envs=1)
    pool.reset(mode="train")
    break_critic(monkeypatch, pool)
    batch = pool.step_chunk(chunks(1))
    assert batch.rewards.tolist() == [[0.0] * 4]
    assert batch.truncated.tolist() == [[True] * 4]
    assert not batch.terminated.any()
    assert batch.reports[0].critic_failed is True


def break_critic(monkeypatch, pool):
    def fail(*args, **kwargs):
        raise CriticResponseError("no number in the reply")

    monkeypatch.setattr(pool.envs.critic, "success_prob", fail)


def test_refused_actions_leave_the_episode_running(make_pool):
    pool = make_pool(settings(), num_envs=1)
    pool.reset(mode="train")
    bad = chunks(1)
    bad[0, 2, 0] = np.nan
    with pytest.raises(AdapterContractError, match="finite actions"):
        pool.step_chunk(bad)
    assert simulator(pool, 0, "num_steps") == 0
    assert pool.step_chunk(chunks(1)).reports[0].episode_steps == 4


def test_stepping_before_a_reset_is_refused(make_pool):
    with pytest.raises(AdapterContractError, match=r"Envs \[0, 1\] have no running episode"):
        make_pool(settings()).step_chunk(chunks(2))


def test_envs_are_stepped_on_their_own_and_in_the_order_of_the_ids(make_pool):
    pool = make_pool(settings())
    pool.reset([1], mode="train")
    assert pool.step_chunk(chunks(1), [1]).executed_steps.tolist() == [4]
    reports = pool.reset([1, 0], mode="train", options=[{"seed": 5}, {"seed": 6}])
    assert [simulator(pool, i, "np_random_seed") for i in (0, 1)] == [6, 5]
    # The frame's first byte counts episodes: env 0 has begun one beside env 1's first, which nobody asked for.
    assert [report.observation["agentview_image"][0, 0, 0] for report in reports] == [2, 2]
    pool.step_chunk(chunks(1, 3), [0])
    batch = pool.step_chunk(chunks(2, 2), [1, 0])
    assert batch.env_ids.tolist() == [1, 0]
    assert [report.observation["state"].tolist() for report in batch.reports] == [[2.0], [5.0]]


@pytest.mark.parametrize("ids", [[2], [0, 0], [-1]])
def test_env_ids_that_do_not_exist_are_refused(make_pool, ids):
    pool = make_pool(settings())
    with pytest.raises(AdapterContractError, match=r"different env ids in 0\.\.1"):
        pool.reset(ids, mode="train")


def test_reset_options_are_checked_before_any_env_is_reset(make_pool):
    pool = make_pool(settings())
    with pytest.raises(ConfigError, match="Did you mean 'seed'"):
        pool.reset(mode="train", options=[{}, {"sed": 1}])
    with pytest.raises(ConfigError, match="for 2 envs, got 1"):
        pool.reset(mode="train", options=[{}])
    assert simulator(pool, 0, "num_resets") == 0


def test_libero_options_are_refused_for_other_envs(make_pool):
    with pytest.raises(ConfigError, match="are LIBERO's"):
        make_pool(settings()).reset(mode="train", options=[{"task_id": 1}, {}])


@pytest.mark.parametrize("count", [0, True, "2"])
def test_number_of_envs_is_checked(count):
    with pytest.raises(ConfigError, match="num_envs as an int >= 1"):
        EnvPool(settings(), count)


def test_unknown_env_is_a_config_error():
    with pytest.raises(ConfigError, match=r"Can't make env\.id 'Nothing-v0'"):
        EnvPool(parse_settings({"env": {"id": "Nothing-v0"}}), 1)


def play_at_their_own_pace(pool, num_episodes):
    """Reports of each env's episodes, in chunks of 3, whatever is ready first."""
    told = {i: [] for i in range(pool.num_envs)}
    begun = dict.fromkeys(told, 1)
    for i in told:
        pool.send_reset(i, {"seed": i})
    while begun:
        for i, report in pool.recv().items():
            told[i].append(report)
            if not report.is_over:
                pool.send_chunk(i, chunks(1, 3)[0])
            elif begun[i] < num_episodes:
                begun[i] += 1
                pool.send_reset(i, {"seed": 10 * begun[i] + i})
            else:
                del begun[i]
    return told


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_envs_at_their_own_pace_report_what_they_do_in_lockstep(make_pool, mode):
    block = settings(limit=7, success=[5])
    ours = make_pool(block, 3)
    if mode == "train":
        ours.switch_mode("train")
    told = play_at_their_own_pace(ours, 2)
    together = make_pool(block, 3)
    expected = {i: [] for i in range(3)}
    for number in (1, 2):
        starts = [{"seed": i if number == 1 else 10 * number + i} for i in range(3)]
        reports = together.reset(mode=mode, options=starts)
        while True:
            for i, report in enumerate(reports):
                expected[i].append(report)
            if reports[0].is_over:
                break
            together.step_chunk(chunks(3, 3))
            reports = together.reports()
    for i, reports in expected.items():
        assert len(told[i]) == len(reports)
        for one, other in zip(told[i], reports):
            assert one.rewards.tolist() == other.rewards.tolist()
            assert (one.terminated, one.truncated, one.sim_success, one.episode_return, one.value) == (
                other.terminated,
                other.truncated,
                other.sim_success,
                other.episode_return,
                other.value,
            )
            for key, value in one.observation.items():
                np.testing.assert_array_equal(value, other.observation[key])


def test_an_env_that_is_over_answers_a_chunk_at_once_and_does_nothing(make_pool):
    pool = make_pool(settings(limit=2), num_envs=2)
    for i in (0, 1):
        pool.send_reset(i, {})
    told = {}
    while len(told) < 2:
        told |= pool.recv()
    pool.send_chunk(0, chunks(1)[0])
    assert pool.recv()[0].truncated
    pool.send_chunk(1, chunks(1, 1)[0])
    pool.send_chunk(0, chunks(1)[0])
    (idle,) = pool.recv().values()
    assert (idle.truncated, idle.rewards.tolist(), idle.episode_steps) == (True, [], 2)
    assert list(pool.recv()) == [1]
    assert simulator(pool, 0, "num_steps") == 2


def test_a_chunk_before_the_reset_and_a_bad_one_are_refused_alone(make_pool):
    pool = make_pool(settings(), num_envs=2)
    with pytest.raises(AdapterContractError, match=r"Call reset\."):
        pool.send_chunk(0, chunks(1)[0])
    pool.send_reset(0, {})
    pool.recv()
    with pytest.raises(AdapterContractError, match="finite actions"):
        pool.send_chunk(0, chunks(1)[0] * np.nan)
    pool.send_chunk(0, chunks(1)[0])
    assert pool.recv()[0].episode_steps == 4


def test_lost_answer_at_their_own_pace_costs_one_episode(make_pool):
    pool = make_pool(settings(spec="scripted:0.1,2,0.1", critic_options={"ask_window_s": 5.0}), num_envs=2)
    pool.switch_mode("train")
    for i in (0, 1):
        pool.send_reset(i, {})
    told = {}
    while len(told) < 2:
        told |= pool.recv()
    for i in (0, 1):
        pool.send_chunk(i, chunks(1, 1)[0])
    told = pool.recv()
    assert told[0].episode_steps == 1
    assert isinstance(told[1], CriticResponseError)
    with pytest.raises(AdapterContractError, match=r"Call reset\."):
        pool.send_chunk(1, chunks(1)[0])
