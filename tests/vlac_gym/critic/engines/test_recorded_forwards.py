"""Which batches a recording answers, and that it answers as the model does. Replays run as functions on a CPU here."""

import dataclasses
import itertools
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from vlac_gym.critic.engines import recorded_forwards  # noqa: E402
from vlac_gym.critic.engines import transformers as engine_module  # noqa: E402
from vlac_gym.critic.engines.base import EngineRequest  # noqa: E402
from vlac_gym.critic.engines.cuda_graphs import AnswerShape, PromptShape, answer_shapes  # noqa: E402
from vlac_gym.critic.engines.transformers import TransformersEngine  # noqa: E402
from vlac_gym.errors import CriticOverloadedError, CriticServerError  # noqa: E402

TASKS = ("open it", "open the drawer", "put the bowl on the plate and then close the drawer of the cabinet")


class Replayed:
    """What a CUDA graph does, without one: padded copies into buffers, the function, results in place."""

    def __init__(self, function, inputs):
        self._function, self._inputs = function, inputs
        self._output = function(*inputs)

    def replay(self, *values):
        for buffer, value in zip(self._inputs, values):
            buffer[tuple(slice(size) for size in value.shape)].copy_(value)
        for old, new in zip(self._tensors(self._output), self._tensors(self._function(*self._inputs))):
            old.copy_(new)
        return self._output

    @staticmethod
    def _tensors(result):
        if isinstance(result, torch.Tensor):
            return [result]
        return [getattr(pick, field.name) for pick in result for field in dataclasses.fields(pick)]


class Recorder:
    """Stands for `GraphRecorder`."""

    def __init__(self, device):
        assert device.type == "cpu"

    def new_pool(self):
        return None

    def record(self, function, inputs, pool):
        return Replayed(function, inputs)


@pytest.fixture
def recorded(fresh_engine, frames, done, pair, monkeypatch):
    """An engine with recordings for up to four requests."""
    monkeypatch.setattr(recorded_forwards, "GraphRecorder", Recorder)
    examples = [done(frames[0], task) for task in TASKS] + [pair(*frames[:2], task=task) for task in TASKS]
    record(fresh_engine, examples, (1, 2, 4))
    return fresh_engine


def record(engine, examples, batch_sizes):
    with torch.inference_mode():
        engine._record(examples, batch_sizes)


def replays(engine, requests):
    """The replies, and of each batch whether a recording answered it."""
    answered = []
    replay = engine._runner._replay

    def spying(batch, features):
        picks = replay(batch, features)
        answered.append(picks is not None)
        return picks

    engine._runner._replay = spying
    try:
        return engine.generate(requests), answered
    finally:
        engine._runner._replay = replay


def probabilities(replies):
    return [
        (reply.text, {c.token: np.exp(c.logprob) for token in reply.tokens for c in token.candidates})
        for reply in replies
    ]


def assert_alike(replies, expected):
    for (text, ours), (wanted, theirs) in zip(probabilities(replies), probabilities(expected), strict=True):
        assert text == wanted
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_whatever_comes_together_is_answered_as_without_recordings(
    recorded, shared_engine, frames, done, pair, thought
):
    rng, answered = random.Random(0), []
    kinds = (
        lambda a, b, task: done(a, task),
        lambda a, b, task: pair(a, b, task=task),
        lambda a, b, task: pair(a, b, frames[5:8], task=task),
        lambda a, b, task: dataclasses.replace(pair(a, b, task=task), max_new_tokens=1),
        lambda a, b, task: thought(a),
        lambda a, b, task: EngineRequest("", "Say a number.", (), "signed_number"),
    )
    for _ in range(25):
        asked = [
            rng.choices(kinds, (4, 4, 1, 1, 1, 1))[0](*rng.sample(frames, 2), rng.choice(TASKS))
            for _ in range(rng.randint(1, 6))
        ]
        replies, which = replays(recorded, asked)
        answered += which
        assert_alike(replies, shared_engine.generate(asked))
        if rng.random() < 0.2:
            recorded.forget()
    assert answered.count(True) > 10
    assert answered.count(False) > 10


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_few_requests_are_replayed_and_many_are_not(recorded, frames, pair, count):
    asked = [pair(a, b) for a, b in itertools.islice(itertools.permutations(frames, 2), count)]
    assert replays(recorded, asked)[1] == [count <= 4]


def test_a_long_shared_beginning_is_no_example(fresh_engine, frames, done, pair, monkeypatch):
    monkeypatch.setattr(recorded_forwards, "GraphRecorder", Recorder)
    record(fresh_engine, [pair(*frames[:2], references=frames[2:5]), done(frames[0])], (1,))
    shapes = fresh_engine._recorded.answers._recordings
    assert {shape.answer for shape in shapes} == {"number"}


def test_a_large_models_pairs_are_not_recorded(fresh_engine, frames, done, pair, monkeypatch):
    monkeypatch.setattr(recorded_forwards, "GraphRecorder", Recorder)
    monkeypatch.setattr(fresh_engine, "_is_small", False)
    record(fresh_engine, [pair(*frames[:2]), done(frames[0])], (1,))
    assert {shape.answer for shape in fresh_engine._recorded.answers._recordings} == {"number"}


def test_recordings_keep_to_the_most_tokens_of_a_forward(tiny_checkpoint, frames, done, monkeypatch):
    monkeypatch.setattr(recorded_forwards, "GraphRecorder", Recorder)
    engine = TransformersEngine(tiny_checkpoint, "cpu", max_batch_tokens=2500)
    record(engine, [done(frames[0])], (1, 2, 4, 16, 32))
    patches, answers = engine._parts.patches, engine._recorded.answers
    assert sorted(engine._recorded.encode._recordings) == [
        n for n in (1, 2, 4, 16, 32) if n * patches <= 2500
    ]
    assert max(shape.rows * shape.length for shape in answers._recordings) <= 2500
    assert max(shape.rows for shape in answers._recordings) < 32
    engine.close()


def test_out_of_memory_while_recording_says_what_to_lower(fresh_engine, frames, done, monkeypatch):
    def no_room(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(fresh_engine._recorded, "record", no_room)
    with pytest.raises(
        CriticServerError, match=r"up to 4 requests were recorded\. Lower batch_sizes or max_batch"
    ):
        record(fresh_engine, [done(frames[0])], (1, 4))


def test_shapes_of_each_kind_of_reply_fill_the_lengths_between_the_examples():
    prompts = [
        PromptShape("number", 1, 33),
        PromptShape("number", 1, 64),
        PromptShape("signed_number", 2, 90),
        PromptShape("signed_number", 1, 20),
    ]
    shapes = answer_shapes(prompts, (1, 4), max_tokens=300)
    assert shapes == [
        AnswerShape("number", 1, 1, 48),
        AnswerShape("number", 1, 4, 48),
        AnswerShape("number", 1, 1, 64),
        AnswerShape("number", 1, 4, 64),
        AnswerShape("signed_number", 2, 1, 96),  # four of them would be more than 300 tokens
        AnswerShape("signed_number", 1, 1, 32),
        AnswerShape("signed_number", 1, 4, 32),
    ]
    assert answer_shapes([], (1, 4), 300) == []


def test_out_of_memory_while_waking_leaves_it_asleep(fresh_engine, frames, done, monkeypatch):
    fresh_engine.warm_up([done(frames[0])])
    fresh_engine.sleep()

    def no_room(*args, **options):
        raise CriticServerError("Out of memory on cuda:0 while forwards were recorded.")

    with monkeypatch.context() as patched:
        patched.setattr(fresh_engine, "warm_up", no_room)
        with pytest.raises(CriticServerError, match="Out of memory"):
            fresh_engine.wake()
    with pytest.raises(CriticOverloadedError, match="asleep"):
        fresh_engine.generate([done(frames[0])])
    fresh_engine.wake()
    assert fresh_engine.generate([done(frames[0])])


@pytest.mark.parametrize(
    ("is_small", "tokens", "is_off"), [(False, 200, True), (True, 40_000, True), (False, 40_000, False)]
)
def test_only_a_large_models_largest_batches_may_plan_their_attention(
    fresh_engine, monkeypatch, is_small, tokens, is_off
):
    devices = []
    monkeypatch.setattr(engine_module, "without_cudnn_attention", devices.append)
    monkeypatch.setattr(fresh_engine, "_is_small", is_small)
    fresh_engine._attention(tokens)
    assert len(devices) == is_off


def test_both_the_pictures_and_the_replies_go_without_planned_attention(
    fresh_engine, frames, done, monkeypatch
):
    asked, attention = [], fresh_engine._attention
    monkeypatch.setattr(fresh_engine, "_attention", lambda tokens: asked.append(tokens) or attention(tokens))
    fresh_engine.generate([done(frame) for frame in frames[:3]])
    patches = fresh_engine._parts.patches
    assert asked[0] == 3 * patches
    assert len(asked) == 2
