from vlac_gym.critic.engines.byte_bounded_cache import ByteBoundedCache


def test_what_was_used_longest_ago_leaves_first():
    cache = ByteBoundedCache[str, int](max_bytes=10)
    cache.put("a", 1, size=4)
    cache.put("b", 2, size=4)
    assert cache.get("a") == 1
    cache.put("c", 3, size=4)
    assert [key in cache for key in "abc"] == [True, False, True]
    assert cache.used_bytes == 8


def test_a_large_value_drops_as_many_as_it_needs():
    cache = ByteBoundedCache[str, int](max_bytes=10)
    for key in "abc":
        cache.put(key, 0, size=3)
    cache.put("d", 0, size=7)
    assert [key in cache for key in "abcd"] == [False, False, True, True]


def test_a_value_larger_than_the_bound_is_not_kept_and_drops_nothing_else():
    cache = ByteBoundedCache[str, int](max_bytes=10)
    cache.put("a", 1, size=10)
    cache.put("b", 2, size=11)
    assert (cache.get("a"), cache.get("b")) == (1, None)


def test_replacing_a_value_counts_its_size_once():
    cache = ByteBoundedCache[str, int](max_bytes=10)
    cache.put("a", 1, size=6)
    cache.put("a", 2, size=8)
    assert (cache.get("a"), cache.used_bytes, len(cache)) == (2, 8, 1)


def test_clearing_frees_everything():
    cache = ByteBoundedCache[str, int](max_bytes=10)
    cache.put("a", 1, size=6)
    cache.clear()
    assert (len(cache), cache.used_bytes) == (0, 0)
