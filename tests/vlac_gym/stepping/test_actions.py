"""Actions are checked before anything moves: whole numbers that a space lacks, for one env and for N."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from vlac_gym.errors import ConfigError
from vlac_gym.stepping.actions import check_action, checked_actions, chunk_space

CASES = [
    (spaces.Discrete(3), 2, 3),
    (spaces.Discrete(3, start=-1), -1, 2),
    (spaces.Discrete(3), 1, 1.5),
    (spaces.MultiDiscrete([2, 4]), [1, 3], [2, 0]),
    (spaces.MultiDiscrete([2, 4]), [0, 0], [0, -1]),
    (spaces.MultiBinary(2), [1, 0], [0, 2]),
    (spaces.Box(0, 9, (2,), np.int64), [0, 9], [0, 10]),
]


@pytest.mark.parametrize(("space", "good", "bad"), CASES)
def test_one_env_takes_what_its_space_has(space, good, bad):
    check_action(good, space)
    with pytest.raises(ConfigError, match=r"Expected an action in .*, got"):
        check_action(bad, space)


@pytest.mark.parametrize(("space", "good", "bad"), CASES)
def test_n_envs_take_what_their_space_has(space, good, bad):
    batched = batch_space(space, 2)
    taken = checked_actions(np.array([good, good]), batched, 2)
    np.testing.assert_array_equal(taken, [good, good])
    with pytest.raises(ConfigError, match=r"(?s)Expected actions in .*; nothing moved"):
        checked_actions(np.array([good, bad]), batched, 2)


@pytest.mark.parametrize("bad_number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_number_that_is_not_finite_is_refused(dtype, bad_number):
    space = spaces.Box(-1, 1, (2,), dtype)
    good, bad = np.array([0, np.finfo(dtype).max], dtype), np.array([0, bad_number], dtype)
    check_action(good, space)
    checked_actions(np.stack([good, good]), batch_space(space, 2), 2)
    with pytest.raises(ConfigError, match=r"Expected a finite action, got \[0.0, (nan|-?inf)\]"):
        check_action(bad, space)
    with pytest.raises(ConfigError, match=r"Expected finite actions, got NaN or infinity for envs \[1\]"):
        checked_actions(np.stack([good, bad]), batch_space(space, 2), 2)


class Tensor:
    """A tensor that PyTorch does not hand to numpy."""

    def __init__(self, error):
        self.error = error

    def __array__(self, *args, **kwargs):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("Use tensor.detach()"), TypeError("Use Tensor.cpu()")])
def test_a_tensor_that_numpy_can_not_read_is_refused_with_what_to_do(error):
    space = spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(ConfigError, match=r"Expected an action as one array, .*: Use [Tt]ensor\..*moved"):
        check_action(Tensor(error), space)
    with pytest.raises(ConfigError, match=r"Expected actions as one array, .*: Use [Tt]ensor\..*moved"):
        checked_actions(Tensor(error), batch_space(space, 2), 2)


def test_fractions_are_refused_where_a_box_has_whole_numbers():
    space = spaces.Box(0, 9, (2,), np.int64)
    check_action(np.array([0.0, 9.0]), space)
    with pytest.raises(ConfigError, match=r"Expected an action in .*, got \[0.5, 1.0\]"):
        check_action(np.array([0.5, 1.0]), space)


def test_floats_beyond_a_box_are_the_envs_own_affair():
    check_action(np.full(7, 3.0), spaces.Box(-1, 1, (7,)))


@pytest.mark.parametrize(
    ("space", "shape"), [(spaces.Discrete(3), (2, 1)), (spaces.Box(0, 1, (3,)), (2, 3, 1))]
)
def test_actions_with_an_axis_too_many_are_refused(space, shape):
    checked_actions(np.zeros(shape[:-1]), batch_space(space, 2), 2)
    with pytest.raises(ConfigError, match=r"Expected actions of shape .*, got \(2, .*1\); nothing moved"):
        checked_actions(np.zeros(shape), batch_space(space, 2), 2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"arm": np.array([np.nan, 0.0]), "grip": (0,)}, r"a finite action\['arm'\], got \[nan, 0.0\]"),
        ({"arm": np.zeros(3), "grip": (0,)}, r"an action\['arm'\] of shape \(2,\), got \(3,\)"),
        ({"arm": np.zeros(2), "grip": (2,)}, r"an action\['grip'\]\[0\] in Discrete\(2\), got 2"),
        ({"arm": np.zeros(2)}, r"action as a dict with the keys \['arm', 'grip'\].*; nothing moved"),
        ({"arm": np.zeros(2), "grip": ()}, r"action\['grip'\] as a tuple of 1, got \(\); nothing moved"),
    ],
)
def test_the_parts_of_one_envs_action_are_looked_at(bad, message):
    space = spaces.Dict(arm=spaces.Box(-1, 1, (2,)), grip=spaces.Tuple([spaces.Discrete(2)]))
    check_action({"arm": [0.5, 0.5], "grip": (1,)}, space)
    with pytest.raises(ConfigError, match=message):
        check_action(bad, space)


def test_a_chunks_rows_have_the_actions_bounds():
    space = chunk_space(spaces.Box(np.float32([-1, 0]), np.float32([1, 2])), 3)
    assert space == spaces.Box(np.float32([[-1, 0]] * 3), np.float32([[1, 2]] * 3))


@pytest.mark.parametrize(
    ("space", "size", "message"),
    [
        (spaces.Box(-1, 1, (2,)), 0, "chunk_size as an int >= 1, got 0"),
        (spaces.Box(-1, 1, (2, 2)), 3, r"Box action of shape \(A,\), got Box\(-1"),
        (spaces.Discrete(2), 3, r"Box action of shape \(A,\), got Discrete\(2\)"),
    ],
)
def test_a_chunk_of_other_actions_is_refused(space, size, message):
    with pytest.raises(ConfigError, match=message):
        chunk_space(space, size)
