import pytest

from vlac_gym.critic.engines.memory_plan import plan_memory
from vlac_gym.errors import ConfigError

WANTED = {
    "weights": 4_000_000_000,
    "bytes_per_token": 200_000,
    "vision_cache": 4_000_000_000,
    "prefix_cache": 1_000_000_000,
    "max_batch_tokens": 30_000,
}


def test_without_a_bound_everything_is_as_wanted():
    plan = plan_memory(**WANTED, max_gpu_memory_gb=None)
    assert (plan.vision_cache, plan.prefix_cache, plan.max_batch_tokens) == (4 * 10**9, 10**9, 30_000)


def test_a_wide_bound_shrinks_nothing():
    # 0.7 runtime + 4 weights + 6 work + 5 caches = 15.7 GB; work may take up to half of what weights leave
    plan = plan_memory(**WANTED, max_gpu_memory_gb=17.0)
    assert (plan.vision_cache, plan.prefix_cache, plan.max_batch_tokens) == (4 * 10**9, 10**9, 30_000)


def test_a_tight_bound_shares_what_weights_leave_between_work_and_caches():
    # 8.7 - 0.7 - 4 = 4 GB: 2 GB of work are 10,000 tokens; 2 GB of caches are 2/5 of the 5 GB wanted
    plan = plan_memory(**WANTED, max_gpu_memory_gb=8.7)
    assert plan.max_batch_tokens == 10_000
    assert plan.vision_cache == pytest.approx(1_600_000_000, abs=1)
    assert plan.prefix_cache == pytest.approx(400_000_000, abs=1)


@pytest.mark.parametrize("bound", [5.0, 6.0, 8.0, 12.0, 20.0, 80.0])
def test_parts_never_sum_up_to_more_than_the_bound(bound):
    try:
        plan = plan_memory(**WANTED, max_gpu_memory_gb=bound)
    except ConfigError:
        assert bound < 4.7 + 0.42
        return
    work = plan.max_batch_tokens * WANTED["bytes_per_token"]
    assert plan.weights + plan.vision_cache + plan.prefix_cache + work + 0.7e9 <= bound * 1e9


def test_a_bound_below_weights_and_one_small_batch_is_refused_with_the_least_that_works():
    with pytest.raises(
        ConfigError, match=r"at least 5\.1 for this checkpoint \(4\.0 GB of weights\), got 4\.5"
    ):
        plan_memory(**WANTED, max_gpu_memory_gb=4.5)
