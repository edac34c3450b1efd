"""A policy that imitates its own episodes: noise from each row's generator, and saves that continue."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vlac_gym.clone.imitation import Imitator  # noqa: E402
from vlac_gym.clone.policy import ClonePolicy, load_policy  # noqa: E402
from vlac_gym.clone.recipe import CloneRecipe  # noqa: E402
from vlac_gym.errors import ConfigError, PolicyError  # noqa: E402

INFO = {"task_suite": "reach", "task_id": 0}
RECIPE = CloneRecipe(batch_size=4, learning_rate=1e-2, max_shift_px=0)


def imitator(noise: float = 0.1, device: str = "cpu") -> Imitator:
    torch.manual_seed(0)
    policy = ClonePolicy(["reach:0", "reach:1"], chunk_size=2, image_size=16, cameras=("agentview",))
    return Imitator(policy, RECIPE, noise=noise, device=device)


def seen(*shades: int) -> dict[str, np.ndarray]:
    pictures = np.stack([np.full((32, 32, 3), shade, np.uint8) for shade in shades])
    return {"agentview_image": pictures, "state": np.zeros((len(shades), 8), np.float32)}


def single(shade: int) -> dict[str, np.ndarray]:
    return {name: rows[0] for name, rows in seen(shade).items()}


def test_an_actions_noise_is_its_rows_own():
    with_noise, without = imitator(), imitator(noise=0.0)
    rngs = [np.random.default_rng(i) for i in range(2)]
    both = with_noise.act(seen(10, 200), [INFO] * 2, rngs)
    alone = with_noise.act(seen(200), [INFO], [np.random.default_rng(1)])
    assert both.shape == (2, 2, 7)
    assert both.dtype == np.float32
    np.testing.assert_allclose(both[1:], alone, atol=1e-6)
    means = without.act(seen(200), [INFO], [np.random.default_rng(1)])
    np.testing.assert_allclose(alone - means, np.random.default_rng(1).normal(0, 0.1, (1, 2, 7)), atol=1e-6)
    with pytest.raises(
        PolicyError, match=r"Expected a task that this policy was trained on \(.*\), got reach:2"
    ):
        with_noise.act(seen(10), [{**INFO, "task_id": 2}], [np.random.default_rng(0)])


def test_what_was_chosen_is_imitated_and_a_save_continues(tmp_path):
    one = imitator(noise=0.0)
    assert one.learn(3) is None
    before = one.act(seen(200), [INFO], [np.random.default_rng(0)])
    wanted = np.full((2, 7), 0.5, np.float32)
    seen_last = single(0)  # decided nothing
    one.choose([one.demonstration([single(200), single(200), seen_last], [wanted, wanted], INFO)])
    one.learn(60)
    after = one.act(seen(200), [INFO], [np.random.default_rng(0)])
    assert np.abs(after - 0.5).max() < 0.1 < np.abs(before - 0.5).min()
    one.save(tmp_path / "first.pt")
    one.choose([one.demonstration([single(10)], [-wanted], INFO)])
    one.learn(2)
    one.save(tmp_path / "second.pt")

    other = imitator(noise=0.0)
    other.load(tmp_path / "first.pt")
    np.testing.assert_array_equal(other.act(seen(200), [INFO], [np.random.default_rng(0)]), after)
    other.load(tmp_path / "second.pt")
    assert one.learn(2) == other.learn(2)  # the same three decisions and weights, the same step
    other.save_policy(tmp_path / "policy")
    assert load_policy(tmp_path / "policy").tasks == ("reach:0", "reach:1")


def test_an_offset_s_clock_is_the_episodes():
    one = imitator(noise=0.0)
    policy = one._policy
    with torch.no_grad():
        policy.add_offset().weight[0, 512 + 1] = 0.01  # of task 0: t
    infos = [{**INFO, "elapsed_steps": age} for age in (80, 130)]
    first, later = one.act(seen(10, 10), infos, [np.random.default_rng(0)] * 2)
    np.testing.assert_allclose(later[:, 0] - first[:, 0], 0.04, atol=1e-6)
    shown = [single(10)] * 3
    assert one.demonstration(shown, [first, first, first], INFO).env_steps.tolist() == [0, 2, 4]


def test_a_save_of_before_the_features_mean_is_refused_with_what_to_do(tmp_path):
    one = imitator()
    one.save(tmp_path / "round.pt")
    state = torch.load(tmp_path / "round.pt", weights_only=True)
    del state["policy"]["feature_mean"]
    torch.save(state, tmp_path / "round.pt")
    with pytest.raises(ConfigError, match=r"Expected feature_mean, .* in .*round\.pt, got .* begin anew"):
        imitator().load(tmp_path / "round.pt")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="Expected a device that torch can use, got 'mars'"):
        imitator(device="mars")
