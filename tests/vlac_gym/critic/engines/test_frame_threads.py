import threading

import pytest

from vlac_gym.critic.engines.frame_threads import FrameThreads


@pytest.fixture
def threads():
    made = FrameThreads(2, "work")
    yield made
    made.close()


def test_a_few_frames_cost_no_thread(threads):
    for count in (0, 1, 16):
        assert (
            threads.for_frames(count).submit(threading.current_thread).result() is threading.current_thread()
        )


def test_many_frames_are_worked_on_beside_the_caller(threads):
    future = threads.for_frames(17).submit(threading.current_thread)
    assert future.result().name.startswith("work")


def test_what_work_raises_reaches_who_asked_for_it(threads):
    for count in (1, 17):
        with pytest.raises(ZeroDivisionError):
            threads.for_frames(count).submit(lambda: 1 / 0).result()
