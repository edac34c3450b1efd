"""Who is in a batch: fair between clients, one operation, whole episodes."""

import numpy as np

from vlac_gym.service.fair_queue import FairQueue
from vlac_gym.service.jobs import Job

FRAME = np.zeros((1, 1, 3), np.uint8)


def job(client: str, items: int, operation: str = "success_prob", key: object = None) -> Job:
    return Job(client, operation, [FRAME] * items, ["t"] * items, deadline=1.0, references_key=key)


def compose(queue: FairQueue, max_batch: int) -> list[tuple[str, int, int]]:
    return [(piece.job.client, piece.start, piece.stop) for piece in queue.compose(max_batch)]


def test_clients_get_equal_shares_and_what_one_leaves_goes_to_the_others():
    queue = FairQueue(1000)
    for waiting in (job("big", 100), job("small", 1), job("middle", 10)):
        queue.add(waiting)
    assert compose(queue, 12) == [
        ("big", 0, 4),
        ("small", 0, 1),
        ("middle", 0, 4),
        ("big", 4, 5),
        ("middle", 4, 5),
        ("big", 5, 6),
    ]
    assert queue.waiting == 111 - 12


def test_the_client_served_first_goes_to_the_end_of_the_line():
    queue = FairQueue(1000)
    for client in "abc":
        queue.add(job(client, 5))
    assert [
        piece[0] for piece in compose(queue, 1) + compose(queue, 1) + compose(queue, 1) + compose(queue, 1)
    ] == [
        "a",
        "b",
        "c",
        "a",
    ]


def test_a_request_larger_than_a_batch_is_spread_over_several():
    queue = FairQueue(1000)
    queue.add(job("a", 5))
    assert [compose(queue, 2) for _ in range(4)] == [[("a", 0, 2)], [("a", 2, 4)], [("a", 4, 5)], []]
    assert not queue


def test_requests_of_one_client_share_a_batch():
    queue = FairQueue(1000)
    queue.add(job("a", 2))
    queue.add(job("a", 2))
    assert compose(queue, 8) == [("a", 0, 2), ("a", 0, 2)]


def test_a_batch_has_one_operation_and_one_set_of_references():
    queue = FairQueue(1000)
    queue.add(job("a", 1, "progress", key=("r",)))
    queue.add(job("b", 1, "success_prob"))
    queue.add(job("c", 1, "progress", key=("r",)))
    queue.add(job("d", 1, "progress", key=("s",)))
    assert [[piece[0] for piece in compose(queue, 8)] for _ in range(3)] == [["a", "c"], ["b"], ["d"]]


def test_episodes_stay_whole_even_beyond_the_batch():
    queue = FairQueue(1000)
    queue.add(job("a", 9, "value"))
    queue.add(job("b", 3, "value"))
    queue.add(job("c", 4, "value"))
    assert compose(queue, 8) == [("a", 0, 9)]
    assert compose(queue, 8) == [("b", 0, 3), ("c", 0, 4)]


def test_one_client_may_hold_half_of_the_queue():
    queue = FairQueue(10)
    assert queue.has_room("a", 50)
    queue.add(job("a", 4))
    assert queue.has_room("a", 1)
    assert not queue.has_room("a", 2)
    assert queue.has_room("b", 6)
    assert not queue.has_room("b", 7)


def test_a_job_that_ended_early_leaves_the_line():
    queue = FairQueue(10)
    gone = job("a", 4)
    queue.add(gone)
    queue.add(job("b", 1))
    queue.compose(2)
    queue.remove(gone)
    queue.remove(gone)
    assert queue.waiting == 0
    assert queue.drain() == []
