"""The process's choice of attention kernels, taken and given back."""

import threading

import pytest

torch = pytest.importorskip("torch")

from vlac_gym.critic.engines.attention import without_cudnn_attention  # noqa: E402

CUDA = torch.device("cuda", 0)


@pytest.fixture(params=[True, False])
def was_on(request):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(request.param)
    yield request.param
    torch.backends.cuda.enable_cudnn_sdp(before)


def is_on():
    return torch.backends.cuda.cudnn_sdp_enabled()


def test_it_is_off_in_the_block_and_what_it_was_behind_it(was_on):
    with without_cudnn_attention(CUDA):
        assert not is_on()
    assert is_on() == was_on
    with pytest.raises(RuntimeError, match="out of memory"), without_cudnn_attention(CUDA):
        raise RuntimeError("out of memory")
    assert is_on() == was_on


def test_blocks_of_two_threads_that_overlap_give_back_what_was_there_before_both(was_on):
    entered, may_leave = threading.Event(), threading.Event()

    def other():
        with without_cudnn_attention(CUDA):
            entered.set()
            may_leave.wait(10)

    with without_cudnn_attention(CUDA):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
    assert not is_on()  # the other's block is not over
    may_leave.set()
    thread.join()
    assert is_on() == was_on


def test_on_a_cpu_nothing_is_touched(was_on):
    with without_cudnn_attention(torch.device("cpu")):
        assert is_on() == was_on
