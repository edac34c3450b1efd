"""The engine on a GPU: reduced precision, compiled kernels, CUDA graphs, memory. Run with `pytest -m gpu`."""

import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from vlac_gym.critic.engines.plain_transformers import PlainTransformersEngine  # noqa: E402
from vlac_gym.critic.engines.transformers import TransformersEngine  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]


@pytest.fixture(scope="module")
def requests(frames, done, pair):
    tasks = ["open the drawer", "put the bowl on the plate", "close the top drawer of the cabinet"]
    return [
        *(done(frame, task) for frame, task in zip(frames, tasks * 3)),
        *(pair(a, b) for a, b in pairwise(frames[:5])),
        *(pair(a, b, references=tuple(frames[5:8])) for a, b in pairwise(frames[:4])),
    ]


def largest_difference(replies, expected):
    """Of the first tokens' probabilities, over candidates that both name."""
    worst = 0.0
    for ours, theirs in zip(replies, expected, strict=True):
        left = {c.token: math.exp(c.logprob) for c in ours.tokens[0].candidates}
        right = {c.token: math.exp(c.logprob) for c in theirs.tokens[0].candidates}
        common = left.keys() & right.keys()
        assert len(common) >= 7
        worst = max(worst, *(abs(left[token] - right[token]) for token in common))
    return worst


def test_bfloat16_agrees_with_generate(tiny_checkpoint, requests):
    """To rounding, which each kernel does in its own way: at most twice as far from float32 as `generate` itself."""
    exact = PlainTransformersEngine(tiny_checkpoint, "cpu").generate(requests)
    fast = TransformersEngine(tiny_checkpoint, "cuda")
    plain = PlainTransformersEngine(tiny_checkpoint, "cuda")
    assert fast.describe()["dtype"] == "bfloat16"
    rounding = largest_difference(plain.generate(requests), exact)
    assert rounding < 3e-2
    assert largest_difference(fast.generate(requests), exact) < 2 * rounding
    fast.close()
    plain.close()


def test_float32_agrees_with_generate_on_the_cpu(tiny_checkpoint, requests):
    fast = TransformersEngine(tiny_checkpoint, "cuda", "float32", image_preparation="pillow")
    plain = PlainTransformersEngine(tiny_checkpoint, "cpu")
    replies, expected = fast.generate(requests), plain.generate(requests)
    assert [reply.text for reply in replies] == [reply.text for reply in expected]
    assert largest_difference(replies, expected) < 1e-4
    fast.close()
    plain.close()


def test_compiled_and_recorded_forwards_agree_with_plain_ones(tiny_checkpoint, requests):
    engine = TransformersEngine(tiny_checkpoint, "cuda", "float32")
    before = engine.generate(requests)
    report = engine.warm_up(requests, batch_sizes=(1, 2, 4))
    assert (report.is_compiled, report.batch_sizes) == (True, (1, 2, 4))
    for size in (1, 2, 3, 4, len(requests)):
        engine.forget()
        replies = [r for i in range(0, len(requests), size) for r in engine.generate(requests[i : i + size])]
        assert [reply.text for reply in replies] == [reply.text for reply in before]
        assert largest_difference(replies, before) < 1e-4
    engine.close()


@pytest.mark.parametrize("answer", ["number", "signed_number"])
def test_a_small_models_batches_of_either_kind_are_replayed_whole(tiny_checkpoint, requests, answer):
    engine = TransformersEngine(tiny_checkpoint, "cuda", "float32")
    asked = [request for request in requests if request.answer == answer and not request.shared_frames]
    before = engine.generate(asked)
    assert engine.warm_up(asked).batch_sizes[-1] == 64
    engine.forget()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        replies = engine.generate(asked)
    counts = {event.key: event.count for event in profiled.key_averages()}
    assert counts["cudaGraphLaunch"] == 2  # the pictures, and the replies
    assert not any("attention" in name for name in counts)
    assert [reply.text for reply in replies] == [reply.text for reply in before]
    assert largest_difference(replies, before) < 1e-4
    engine.close()


def test_no_attention_is_planned_anew_for_each_shape(tiny_checkpoint, requests):
    engine = TransformersEngine(tiny_checkpoint, "cuda")
    was_on = torch.backends.cuda.cudnn_sdp_enabled()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        engine.generate(requests)
    names = {event.key for event in profiled.key_averages()}
    assert "aten::scaled_dot_product_attention" in names
    assert not [name for name in names if "cudnn_attention" in name]
    assert torch.backends.cuda.cudnn_sdp_enabled() == was_on
    engine.close()


def test_sleep_frees_the_device_and_wake_records_again(tiny_checkpoint, requests):
    engine = TransformersEngine(tiny_checkpoint, "cuda", "float32")
    engine.warm_up(requests[:3], batch_sizes=(1, 2))
    before = engine.generate(requests)
    held = torch.cuda.memory_allocated()
    engine.sleep()
    assert torch.cuda.memory_allocated() < held - 3e6  # the weights alone are 3.6 MB
    engine.wake()
    assert largest_difference(engine.generate(requests), before) < 1e-4
    engine.close()


def test_the_memory_bound_is_enforced(tiny_checkpoint, requests):
    torch.cuda.empty_cache()
    engine = TransformersEngine(tiny_checkpoint, "cuda", max_gpu_memory_gb=3.0)
    try:
        engine.generate(requests)
        assert 0 < engine.statistics().peak_memory <= 3.0e9
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(3_000_000_000, dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        engine.close()


def test_numbers_wait_for_the_device_once_per_call(tiny_checkpoint, requests):
    """Beside processes that draw on the GPU, each wait is one for this process's turn."""
    engine = TransformersEngine(tiny_checkpoint, "cuda")
    numbers = [request for request in requests if request.answer != "text"]
    expected = engine.generate(numbers)
    engine.forget()
    torch.cuda.set_sync_debug_mode("error")  # every wait but an event's, which is what a reply arrives by
    try:
        replies = engine.generate(numbers)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [reply.text for reply in replies] == [reply.text for reply in expected]
    engine.close()
