"""The critic that ships with the package: its weights, its thresholds, and what it says of two real frames."""

from pathlib import Path

import numpy as np
import pytest

from vlac_gym.critic import Critic, make_critic
from vlac_gym.critic.knowledge import find_mismatches
from vlac_gym.critic.nano.factory import CHECKPOINT
from vlac_gym.errors import ConfigError
from vlac_gym.rule.calibration import SHIPPED_CALIBRATIONS, load_calibration
from vlac_gym.wrappers import VLACRewardWrapper

pytest.importorskip("torch")

FRAMES = Path(__file__).parents[3] / "data" / "nano"
TASK = "pick up the black bowl between the plate and the ramekin and place it on the plate"
MAX_WEIGHT_BYTES = 16_000_000


def frame(name: str) -> np.ndarray:
    """An agentview frame of libero_spatial task 0, init state 49 (held out), 256 x 256, JPEG."""
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(FRAMES / f"libero_spatial_0_{name}.jpg"))


@pytest.fixture(scope="module")
def nano() -> Critic:
    return make_critic("nano")


def test_nano_tells_the_start_of_an_episode_from_its_success(nano: Critic) -> None:
    start, success = nano.success_prob([frame("start"), frame("success")], [TASK, TASK])
    assert start < 0.05
    assert success > 0.9


def test_nano_sees_progress_forward_and_regress_backward(nano: Critic) -> None:
    start, success = frame("start"), frame("success")
    forward, backward, none = nano.progress([start, success, start], [success, start, start], [TASK] * 3)
    assert forward > 0.2
    assert backward < -0.2
    assert abs(none) < 0.02


def test_nanos_value_is_what_both_answers_let_expect(nano: Critic) -> None:
    frames = [frame("start"), frame("success")]
    done = float(nano.success_prob(frames[1:], [TASK])[0])
    progress = float(make_critic("nano", unfinished_value_limit=None).value(frames, TASK)[1])
    expected = done + (1 - done) * min(progress, 0.95)
    np.testing.assert_allclose(nano.value(frames, TASK), [0.0, expected], atol=1e-4)
    assert expected > progress + 0.01


def test_options_in_the_spec_replace_nanos_defaults() -> None:
    details = make_critic("nano:?unfinished_value_limit=0.5,reading=rich").describe().details
    assert (details["unfinished_value_limit"], details["reading"]) == (0.5, "rich")
    assert make_critic("nano").describe().details["unfinished_value_limit"] == 0.95


def test_nano_needs_the_right_instruction(nano: Critic) -> None:
    other = "pick up the black bowl on the wooden cabinet and place it on the plate"
    assert nano.success_prob([frame("success")], [other])[0] < 0.5


def test_nano_answers_the_same_alone_and_in_a_batch_and_again(nano: Critic) -> None:
    frames, tasks = [frame("start"), frame("success")], [TASK, TASK]
    together = nano.success_prob(frames, tasks)
    np.testing.assert_array_equal(make_critic("nano").success_prob(frames, tasks), together)
    alone = [nano.success_prob([one], [TASK])[0] for one in frames]
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_nano_sees_pictures_and_texts_only(nano: Critic) -> None:
    info = nano.describe()
    assert not info.is_privileged
    assert (info.name, info.model, info.details["reading"]) == ("nano", str(CHECKPOINT), "exact")


def test_the_weights_are_safetensors_of_at_most_16_mb() -> None:
    weights = [file for file in CHECKPOINT.iterdir() if file.stat().st_size > 100_000]
    assert [file.name for file in weights] == ["model.safetensors"]
    assert weights[0].stat().st_size <= MAX_WEIGHT_BYTES


def test_the_shipped_thresholds_load_by_name_and_were_measured_on_nano() -> None:
    calibration = load_calibration("nano")
    assert calibration == load_calibration(SHIPPED_CALIBRATIONS["nano"])
    assert (calibration.critic, calibration.meets_budget) == ("nano", True)
    assert (calibration.done_threshold, calibration.done_patience, calibration.done_interval) == (0.9, 2, 2)


def test_the_thresholds_are_those_of_the_shipped_weights_and_no_others(nano: Critic) -> None:
    measured = load_calibration("nano").critic_fingerprint
    assert nano.describe().fingerprint == measured
    assert (
        make_critic(f"transformers:{CHECKPOINT}?reading=exact,unfinished_value_limit=0.95")
        .describe()
        .fingerprint
        == measured
    )
    assert make_critic("nano:?reading=rich").describe().fingerprint != measured


def test_nano_says_that_it_knows_twenty_tasks_one_view_and_no_pictures_beside_the_frame(nano: Critic) -> None:
    knows = nano.describe().knows
    assert knows.task_suites == ("libero_spatial", "libero_object")
    assert len(knows.tasks) == len(set(knows.tasks)) == 20
    assert TASK in knows.tasks
    assert (knows.views, knows.inputs) == (("agentview",), ())
    goal = make_critic("nano", goal_image=frame("success")).describe()
    (mismatch,) = find_mismatches(goal, task=TASK)
    assert "does not know the input 'goal_image'" in mismatch.text


def test_the_tasks_that_nano_knows_are_the_suites_own_texts(nano: Critic) -> None:
    pytest.importorskip("libero")
    from vlac_gym.envs.libero.tasks import get_task

    suites = ("libero_spatial", "libero_object")
    texts = [get_task(suite, task_id).language for suite in suites for task_id in range(10)]
    assert list(nano.describe().knows.tasks) == texts


def test_nano_refuses_other_libero_tasks_at_reset(nano: Critic) -> None:
    pytest.importorskip("libero")
    from vlac_gym.envs.libero import LiberoEnv

    env = VLACRewardWrapper(LiberoEnv("libero_goal", image_size=32, cameras=("agentview",)), nano)
    try:
        with pytest.raises(
            ConfigError, match="does not know the task 'open the middle drawer of the cabinet'"
        ):
            env.reset(seed=0)
    finally:
        env.close()


def test_the_model_card_states_the_shipped_thresholds_and_size() -> None:
    card = (CHECKPOINT.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{(CHECKPOINT / 'model.safetensors').stat().st_size:,} bytes" in card
    shipped = load_calibration("nano")
    assert (
        f"threshold {shipped.done_threshold}, patience {shipped.done_patience}, "
        f"one check every {shipped.done_interval} steps" in card
    )


def test_another_argument_is_refused_with_the_way_to_load_a_checkpoint() -> None:
    with pytest.raises(ConfigError, match="transformers:PATH"):
        make_critic("nano:large")
