import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlac_gym.critic.engines.batches import MAX_PADDING, form_batches, split_evenly


def test_sequences_of_one_length_fill_batches_evenly():
    assert [len(batch) for batch in form_batches([10] * 5, max_tokens=40)] == [2, 3]


def test_padding_over_a_tenth_starts_a_new_batch():
    # 100 and 91: 9 of 191 padded. 100, 91 and 70: 39 of 261, more than a tenth.
    assert form_batches([70, 100, 91], max_tokens=1000) == [[1, 2], [0]]


def test_a_sequence_longer_than_the_bound_gets_a_batch_of_its_own():
    assert form_batches([50, 5, 5], max_tokens=20) == [[0], [1, 2]]


def test_extra_tokens_of_each_row_count():
    assert [len(batch) for batch in form_batches([10] * 4, max_tokens=40, extra_per_row=10)] == [2, 2]


def test_no_sequences_make_no_batches():
    assert form_batches([], max_tokens=10) == []


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(1, 3000))
def test_every_sequence_runs_once_within_the_bounds(lengths, max_tokens):
    batches = form_batches(lengths, max_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[index] for index in batch]
        padded = max(sizes) * len(sizes)
        assert padded - sum(sizes) <= MAX_PADDING * sum(sizes)
        assert len(batch) == 1 or padded <= max_tokens


@pytest.mark.parametrize(
    ("count", "largest", "sizes"), [(0, 4, []), (4, 4, [4]), (5, 4, [2, 3]), (9, 4, [3, 3, 3])]
)
def test_runs_are_few_and_of_nearly_one_size(count, largest, sizes):
    spans = split_evenly(count, largest)
    assert [len(span) for span in spans] == sizes
    assert [i for span in spans for i in span] == list(range(count))
