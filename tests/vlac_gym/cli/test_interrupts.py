import os
import signal
import threading

import pytest

from vlac_gym.cli.interrupts import interrupts_held


@pytest.fixture
def default_sigint():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_inside_the_block_arrives_after_it(default_sigint):
    done = []

    def block():
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("all of the block")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["all of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_restores_the_handler(default_sigint):
    with pytest.raises(ZeroDivisionError), interrupts_held():
        _ = 1 / 0

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_interrupts_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_the_handler_alone(default_sigint):
    seen = []

    def work():
        with interrupts_held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
