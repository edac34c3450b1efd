"""Conventions and shapes at the border to a trainer, on arrays small enough to check by hand."""

import numpy as np
import pytest

from verl_env_adapter.common.conversion import (
    check_actions,
    chunk_columns,
    rename_keys,
    stack_images,
    stack_vectors,
)
from vlac_gym.errors import AdapterContractError
from vlac_gym.frames.convention import ImageConvention


def picture() -> np.ndarray:
    """2 x 2 pixels whose red channel reads 1 2 / 3 4."""
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[..., 0] = [[1, 2], [3, 4]]
    return frame


def test_actions_of_one_step_become_chunks_of_one():
    actions = check_actions(np.ones((2, 7)), num_envs=2, action_size=7, max_chunk=8, where="step")
    assert actions.shape == (2, 1, 7)
    assert actions.dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 9, 7), (3, 8, 7), (2, 8, 6), (7,), (2, 0, 7)])
def test_actions_of_another_shape_are_refused(shape):
    with pytest.raises(AdapterContractError, match=r"shape \(2, 1\.\.8, 7\) from chunk_step"):
        check_actions(np.zeros(shape), num_envs=2, action_size=7, max_chunk=8, where="chunk_step")


def test_actions_that_are_not_finite_name_their_envs():
    actions = np.zeros((3, 1, 7))
    actions[1, 0, 2] = np.nan
    with pytest.raises(AdapterContractError, match=r"envs \[1\]"):
        check_actions(actions, num_envs=3, action_size=7, max_chunk=1, where="step")


def test_text_is_no_action():
    with pytest.raises(AdapterContractError, match="Expected numbers as actions"):
        check_actions("left", num_envs=1, action_size=7, max_chunk=1, where="step")


def test_pictures_stack_in_the_convention():
    stacked = stack_images([picture(), picture()], ImageConvention.RAW, "full_image")
    assert stacked.shape == (2, 2, 2, 3)
    assert stacked[1, ..., 0].tolist() == [[3, 4], [1, 2]]


@pytest.mark.parametrize("frame", [np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), None])
def test_pictures_of_another_kind_are_refused(frame):
    with pytest.raises(AdapterContractError, match=r"full_image\[1\] as uint8"):
        stack_images([picture(), frame], ImageConvention.UPRIGHT, "full_image")


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(AdapterContractError, match="of one shape for all envs"):
        stack_images([picture(), np.zeros((4, 4, 3), np.uint8)], ImageConvention.UPRIGHT, "full_image")


def test_vectors_stack_with_the_dtype_that_the_trainer_wants():
    stacked = stack_vectors([np.array([1.0, 2.0]), np.array([3.0, 4.0])], "state", np.float64)
    assert stacked.dtype == np.float64
    assert stacked.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(AdapterContractError, match="as a vector"):
        stack_vectors([np.zeros((1, 2))], "state")


def test_observation_gets_the_trainers_names():
    observation = {"agentview_image": 1, "state": 2}
    assert rename_keys(observation, {"full_image": "agentview_image"}, "verl") == {"full_image": 1}
    with pytest.raises(AdapterContractError, match=r"wrist_image.*env\.cameras"):
        rename_keys(observation, {"wrist": "wrist_image"}, "verl")


def test_chunk_that_ends_early_keeps_its_end_and_pays_once():
    columns = chunk_columns([0.0, 1.0], terminated=True, truncated=False, num_columns=4)
    assert columns.rewards.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert columns.terminated.tolist() == [False, True, True, True]
    assert columns.truncated.tolist() == [False] * 4
    assert (columns.rewards.dtype, columns.terminated.dtype) == (np.float32, bool)


def test_chunk_after_the_end_stays_ended():
    columns = chunk_columns([], terminated=False, truncated=True, num_columns=3)
    assert columns.rewards.tolist() == [0.0] * 3
    assert columns.truncated.tolist() == [True] * 3


def test_whole_chunk_of_a_running_episode_ends_nowhere():
    columns = chunk_columns([0.1, 0.2], terminated=False, truncated=False, num_columns=2)
    assert columns.rewards.tolist() == np.array([0.1, 0.2], np.float32).tolist()
    assert not columns.terminated.any()


@pytest.mark.parametrize("rewards", [[0.0], [0.0, 0.0, 0.0]])
def test_columns_that_can_not_be_right_are_refused(rewards):
    with pytest.raises(AdapterContractError, match="Expected 2 executed steps"):
        chunk_columns(rewards, terminated=False, truncated=False, num_columns=2)
