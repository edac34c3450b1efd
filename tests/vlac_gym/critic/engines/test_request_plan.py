from concurrent.futures import Future

import numpy as np
import pytest

from vlac_gym.critic.engines.base import EngineRequest
from vlac_gym.critic.engines.chat_prompts import EncodedPrompt
from vlac_gym.critic.engines.request_plan import Item, plan_batches

FRAME = np.zeros((2, 2, 3), np.uint8)


def item(index, ids, starts, digests, answer="number", shared=0, limit=16):
    """An item whose frames take two tokens each."""
    frames = tuple(FRAME for _ in starts)
    request = EngineRequest("", "", frames, answer, max_new_tokens=limit, shared_frames=shared)
    hashing = []
    for digest in digests:
        future = Future()
        future.set_result(digest)
        hashing.append(future)
    return Item(index, request, EncodedPrompt(np.array(ids), tuple(starts), 2), tuple(hashing))


def shapes(batches):
    return [([member.index for member in batch.items], batch.prefix_length) for batch in batches]


def test_checks_with_one_beginning_share_all_before_their_frame():
    items = [item(0, [1, 2, 9, 9, 3], [2], [b"a"]), item(1, [1, 2, 9, 9, 4], [2], [b"b"])]
    assert shapes(plan_batches(items, 100, ())) == [([0, 1], 2)]


def test_a_single_check_shares_nothing_unless_its_beginning_is_known():
    single = item(0, [1, 2, 9, 9, 3], [2], [b"a"])
    assert shapes(plan_batches([single], 100, ())) == [([0], 0)]
    assert shapes(plan_batches([single], 100, {single.prefix_key})) == [([0], 2)]


def test_shared_frames_belong_to_the_beginning_and_are_computed_apart_even_for_one_request():
    one = item(0, [1, 9, 9, 2, 9, 9, 3], [1, 4], [b"r", b"a"], shared=1)
    assert shapes(plan_batches([one], 100, ())) == [([0], 4)]


def test_another_reference_frame_is_another_beginning():
    items = [
        item(0, [1, 9, 9, 2, 9, 9, 3], [1, 4], [b"r", b"a"], shared=1),
        item(1, [1, 9, 9, 2, 9, 9, 3], [1, 4], [b"q", b"a"], shared=1),
    ]
    assert shapes(plan_batches(items, 100, ())) == [([0], 4), ([1], 4)]


def test_if_all_frames_are_shared_the_beginning_ends_behind_the_last():
    assert item(0, [1, 9, 9, 2, 3], [1], [b"r"], shared=1).prefix_length == 3


def test_a_request_without_frames_has_no_beginning_to_share():
    items = [item(0, [1, 2, 3], [], []), item(1, [1, 2, 3], [], [])]
    assert shapes(plan_batches(items, 100, ())) == [([0, 1], 0)]


def test_kinds_of_answers_run_apart():
    items = [
        item(i, [1, 9, 9, 3], [1], [b"a"], answer)
        for i, answer in enumerate(["number", "signed_number", "text"])
    ]
    batches = plan_batches(items, 100, ())
    assert [(batch.answer, batch.max_steps) for batch in batches] == [
        ("number", 1),
        ("signed_number", 2),
        ("text", 16),
    ]


@pytest.mark.parametrize(
    ("answer", "limit", "steps"), [("signed_number", 1, 1), ("number", 5, 1), ("text", 3, 3)]
)
def test_no_more_tokens_are_made_than_asked_for(answer, limit, steps):
    (batch,) = plan_batches([item(0, [1, 9, 9], [1], [b"a"], answer, limit=limit)], 100, ())
    assert batch.max_steps == steps


def test_a_prefix_counts_an_eighth_of_its_tokens_per_row():
    ids = [1] * 16 + [
        9,
        9,
        3,
        3,
        3,
        3,
        3,
        3,
    ]  # 16 before the frame, 8 of its own: 8 + 16 / 8 = 10 tokens a row
    items = [item(i, ids, [16], [bytes([i])]) for i in range(4)]
    assert [len(batch.items) for batch in plan_batches(items, 20, ())] == [2, 2]
