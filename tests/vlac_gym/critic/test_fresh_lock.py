"""A lock that can be pickled."""

import copy
import pickle
import threading

import pytest

from vlac_gym.critic.fresh_lock import FreshLock


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda lock: pickle.loads(pickle.dumps(lock))])
def test_a_copy_of_a_held_lock_is_open_and_its_own(copied):
    lock = FreshLock()
    with lock, copied(lock):
        pass


def test_one_thread_at_a_time_holds_it():
    lock, order = FreshLock(), []

    def other() -> None:
        with lock:
            order.append("other")

    with lock:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join(30.0)
    assert order == ["first", "other"]
