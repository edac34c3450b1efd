"""Each preset against the shapes that its project's own evaluation sends and receives, and what it refuses."""

import dataclasses

import numpy as np
import pytest
from openpi_client.image_tools import resize_with_pad

from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.policies.presets import PRESETS, get_preset

INFO = {"task": "put the bowl on the plate"}


def observation(size: int = 256) -> dict[str, np.ndarray]:
    """Upright pictures whose left half is dark and whose right half is bright, the lower quarter red."""
    frame = np.zeros((size, size, 3), np.uint8)
    frame[:, size // 2 :] = 200
    frame[3 * size // 4 :, :, 0] = 255
    return {
        "agentview_image": frame,
        "wrist_image": 255 - frame,
        "state": np.arange(8, dtype=np.float32) / 8,
    }


def chunk(rows: int, gripper: float) -> np.ndarray:
    actions = np.zeros((rows, 7), np.float32)
    actions[:, 0] = np.arange(rows) / 100
    actions[:, 6] = gripper
    return actions


# What each project's evaluation gives its model: name -> dtype and shape, or the type of what is no array.
SEEN = {
    "openvla_oft": {
        "full_image": "uint8 (224, 224, 3)",
        "wrist_image": "uint8 (224, 224, 3)",
        "state": "float32 (8,)",
        "instruction": "str",
    },
    "openpi": {
        "observation/image": "uint8 (224, 224, 3)",
        "observation/wrist_image": "uint8 (224, 224, 3)",
        "observation/state": "float32 (8,)",
        "prompt": "str",
    },
    "lerobot": {
        "observation.images.image": "uint8 (256, 256, 3)",
        "observation.images.image2": "uint8 (256, 256, 3)",
        "observation.state": "float32 (8,)",
        "task": "str",
    },
}


def test_every_preset_has_recorded_shapes():
    assert SEEN.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_sees_what_its_projects_evaluation_shows_it(name):
    given = get_preset(name).model_input(observation(), INFO)
    found = {
        key: f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        for key, value in given.items()
    }
    assert found == SEEN[name]
    first, second = (value for value in given.values() if np.ndim(value) == 3)
    # Turned by 180 degrees from bottom-up: upright, left and right exchanged. The bright half is now on the left.
    assert first[10, 10, 1] > 190
    assert first[10, -10, 1] < 10
    assert first[-10, -10, 0] > 245  # red stays below
    assert second[10, 10, 1] < 65
    np.testing.assert_array_equal(
        next(v for v in given.values() if np.ndim(v) == 1), np.arange(8, dtype=np.float32) / 8
    )
    assert [value for value in given.values() if isinstance(value, str)] == [INFO["task"]]


def test_openpis_pictures_are_those_of_its_client():
    rng = np.random.default_rng(0)
    upright = rng.integers(0, 256, (256, 256, 3), np.uint8)
    seen = get_preset("openpi").model_input({**observation(), "agentview_image": upright}, INFO)
    theirs = resize_with_pad(np.ascontiguousarray(upright[::-1][::-1, ::-1]), 224, 224)
    np.testing.assert_array_equal(seen["observation/image"], theirs)


@pytest.mark.parametrize(
    ("name", "rows", "gripper", "expected_rows", "expected_gripper"),
    [
        ("openvla_oft", 8, 1.0, 8, -1.0),  # 1 opens there, -1 here
        ("openvla_oft", 8, -0.002, 8, 1.0),
        ("openpi", 10, 0.97, 5, 0.97),  # pi0.5 answers with 10
        ("openpi", 50, -1.0, 5, -1.0),  # pi0 with 50
        ("lerobot", 50, -1.0, 1, -1.0),
    ],
)
def test_chunks_become_the_envs_actions(name, rows, gripper, expected_rows, expected_gripper):
    actions = get_preset(name).actions(chunk(rows, gripper))
    assert (actions.shape, actions.dtype) == ((expected_rows, 7), np.float32)
    assert actions[:, 6].tolist() == pytest.approx([expected_gripper] * expected_rows)
    assert actions[:, 0].tolist() == pytest.approx([i / 100 for i in range(expected_rows)])


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("openvla_oft", chunk(5, 1.0), r"chunks of shape \(8, 7\) by preset openvla_oft, got \(5, 7\)"),
        ("openvla_oft", chunk(9, 1.0), r"\(8, 7\) by preset openvla_oft, got \(9, 7\)"),
        ("openpi", chunk(4, 1.0), r"\(5 or more, 7\) by preset openpi, got \(4, 7\)"),
        ("openpi", np.zeros((10, 32)), r"preset openpi, got \(10, 32\)"),
        ("lerobot", np.zeros(7), r"preset lerobot, got \(7,\)"),
        (
            "openvla_oft",
            chunk(8, -1.0),
            r"gripper in \[-0.5, 1.5\] by preset openvla_oft, got -1 in action 0",
        ),
        ("openpi", chunk(10, 2.0), r"gripper in \[-1.5, 1.5\] by preset openpi, got 2"),
        ("lerobot", np.full((1, 7), 3.0), r"motion 0 in \[-2, 2\] by preset lerobot, got 3 in action 0"),
        ("openpi", np.full((5, 7), np.nan), "motion 0 .* by preset openpi, got nan"),
        ("openpi", [["a"] * 7] * 5, "chunk of numbers by preset openpi, got list"),
    ],
)
def test_a_chunk_of_another_convention_is_refused(name, wrong, message):
    with pytest.raises(PolicyError, match=message):
        get_preset(name).actions(wrong)


def test_what_is_not_executed_is_not_checked():
    actions = chunk(10, 1.0)
    actions[5:] = 100.0
    assert get_preset("openpi").actions(actions).shape == (5, 7)


def test_missing_pictures_unknown_names_and_empty_chunks_are_refused():
    blind = {key: value for key, value in observation().items() if key != "wrist_image"}
    with pytest.raises(
        ConfigError, match=r"Preset openpi needs wrist_image .*cameras=\('agentview', 'wrist'\)"
    ):
        get_preset("openpi").model_input(blind, INFO)
    with pytest.raises(ConfigError, match=r"Unknown policy preset 'openvla'.*'openvla_oft'"):
        get_preset("openvla")
    with pytest.raises(ConfigError, match=r"chunk_steps >= 1 for preset openpi, got 0"):
        dataclasses.replace(get_preset("openpi"), chunk_steps=0)
