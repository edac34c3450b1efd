"""A cloned policy drives envs it was trained for, and says what it misses in others."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from vlac_gym.cli import main
from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.policies import ChunkPolicy, make_policy

torch = pytest.importorskip("torch")

from clone_episodes import recorded  # noqa: E402

from vlac_gym.clone.policy import ClonePolicy, load_policy, save_policy  # noqa: E402

INFO = {"task_suite": "libero_spatial", "task_id": 3}
OTHER = {"task_suite": "libero_spatial", "task_id": 0}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    policy = ClonePolicy(["libero_spatial:0", "libero_spatial:3"], chunk_size=4, image_size=16)
    torch.nn.init.normal_(policy.mean.weight, std=0.5)
    save_policy(policy, tmp_path / "policy")
    return tmp_path / "policy"


def observation(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    pictures = {
        f"{name}_image": rng.integers(0, 256, (32, 32, 3), np.uint8) for name in ("agentview", "wrist")
    }
    return {**pictures, "state": rng.normal(size=8).astype(np.float32)}


def inputs(count: int):
    """A policy's own, of one camera and one task."""
    pictures = torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8)
    return {"agentview": pictures}, torch.randn(count, 8), torch.ones(count, 1)


def env(**changes):
    shapes = {"agentview_image": (32, 32, 3), "wrist_image": (32, 32, 3), "state": (8,), **changes}
    known = {name: spaces.Box(-1, 1, shape) for name, shape in shapes.items() if shape is not None}
    return SimpleNamespace(observation_space=spaces.Dict(known), action_space=spaces.Box(-1, 1, (7,)))


def test_actions_are_the_bounded_means_for_the_env_s_task(saved):
    policy = make_policy(f"clone:{saved}")
    assert isinstance(policy, ChunkPolicy)
    assert policy.cameras == ("agentview", "wrist")
    seen = observation(0)
    images = {name: torch.from_numpy(seen[f"{name}_image"])[None] for name in policy.cameras}
    with torch.no_grad():
        means, _, _ = load_policy(saved).eval()(
            images, torch.from_numpy(seen["state"])[None], torch.tensor([[0.0, 1.0]])
        )
    (chunk,) = policy.plan([seen], [INFO])
    np.testing.assert_allclose(chunk, means[0].clamp(-1, 1).numpy(), atol=1e-6)
    assert np.abs(means.numpy()).max() > 1  # something was bounded
    policy.reset(env(), seed=0)
    acted = [policy.act(observation(0 if step < 4 else 1), INFO) for step in range(5)]
    np.testing.assert_array_equal(acted[:4], chunk)
    np.testing.assert_allclose(acted[4], policy.plan([observation(1)], [INFO])[0][0], atol=1e-6)
    policy.reset(env(), seed=0)
    np.testing.assert_array_equal(policy.act(seen, INFO), chunk[0])
    assert len(make_policy(f"clone:{saved}?chunk_steps=2").plan([seen], [INFO])[0]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wrist_image": None}, r"pictures of agentview, wrist .* got agentview_image, state.*cameras="),
        ({"state": (7,)}, r"`state` of 8 numbers .* got \(7,\)"),
        ({"agentview_image": (8, 8, 3)}, r"16 x 16 pixels or more, RGB, .* agentview of shape \(8, 8, 3\)"),
    ],
)
def test_an_env_that_shows_something_else_is_refused(saved, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_policy(f"clone:{saved}").reset(env(**changes))


def test_what_does_not_fit_is_told(saved):
    policy = make_policy(f"clone:{saved}")
    with pytest.raises(
        PolicyError, match=r"trained on \(libero_spatial:0, libero_spatial:3\), got None:None"
    ):
        policy.plan([observation(0)], [{}])
    with pytest.raises(PolicyError, match="Expected an observation with the pictures"):
        policy.plan([{"state": np.zeros(8, np.float32)}], [INFO])
    with pytest.raises(ConfigError, match=r"chunk_steps from 1 to 4, .* got 5"):
        make_policy(f"clone:{saved}?chunk_steps=5")
    with pytest.raises(ConfigError, match=r"device that torch can use .* got 'mars'"):
        make_policy(f"clone:{saved}?device=mars")
    with pytest.raises(ConfigError, match=r"Expected a policy's config\.json"):
        make_policy(f"clone:{saved.parent}")
    small = SimpleNamespace(observation_space=env().observation_space, action_space=spaces.Box(-1, 1, (3,)))
    with pytest.raises(ConfigError, match=r"actions of 7 numbers .* \(3,\)"):
        policy.reset(small)


def test_from_episodes_to_a_rollout_by_two_commands(tmp_path, bank, capsys):
    data = bank(recorded(0), recorded(1))
    tiny = ["--steps", "2", "--batch-size", "2", "--image-size", "16", "--chunk-size", "4"]
    tiny += ["--demos-per-task", "1", "--seed", "3"]
    run = tmp_path / "run"
    assert main(["clone", "--data", str(data), "--out", str(run), "--device", "cpu", *tiny]) == 0
    assert f"vlac-gym rollout --policy clone:{run / 'policy'}" in capsys.readouterr().out
    assert json.loads((run / "policy" / "clone.json").read_text())["recipe"]["seed"] == 3
    small = ["--mode", "eval", "--image-size", "32", "--max-episode-steps", "6", "--no-video", "--no-frames"]
    out = tmp_path / "rollout"
    assert main(["rollout", "--policy", f"clone:{run / 'policy'}", "--out", str(out), *small]) == 0
    actions = [json.loads(line)["action"] for line in (out / "steps.jsonl").read_text().splitlines()]
    assert len(actions) == 6
    assert np.abs(actions).max() <= 1
    assert main(["rollout", "--policy", f"clone:{run}/none", "--out", str(tmp_path / "no"), *small]) == 2
    assert not (tmp_path / "no").exists()


def test_an_offset_changes_nothing_at_first_and_then_all_actions_of_a_chunk_alike(tmp_path):
    torch.manual_seed(0)
    policy = ClonePolicy(["a:0"], 3, 16, ["agentview"])
    seen = inputs(2)
    before, _, _ = policy(*seen)
    offset = policy.add_offset()
    assert policy.add_offset() is offset
    assert torch.equal(policy(*seen)[0], before)
    with torch.no_grad():
        offset.bias[1] = 0.25
    moved = policy(*seen)[0] - before
    assert torch.allclose(moved[:, :, 1], torch.full((2, 3), 0.25), atol=1e-6)
    assert moved[:, :, [0, 2, 3, 4, 5, 6]].abs().max() == 0
    (policy(*seen)[0] - before.detach()).sum().backward(inputs=[offset.bias, policy.mean.bias])
    assert offset.bias.grad.tolist() == [6.0] * 7  # two chunks of three actions

    save_policy(policy, tmp_path)
    assert torch.equal(load_policy(tmp_path)(*seen)[0], policy(*seen)[0])


@torch.no_grad()
def test_an_offset_knows_the_task_and_the_time(saved):
    policy = load_policy(saved).eval()
    offset = policy.add_offset()
    offset.weight[0, 512 + 3 + 1] = 0.1  # of action 0, task 3: t
    offset.weight[1, 512 + 3 + 2] = 0.1  # of action 1, task 3: t squared
    save_policy(policy, saved)
    acting = make_policy(f"clone:{saved}")
    seen, ages = observation(0), (80, 130, 0, 160, 400)
    chunks = acting.plan(
        [seen] * 6, [*({**INFO, "elapsed_steps": age} for age in ages), {**OTHER, "elapsed_steps": 0}]
    )
    images = {name: torch.from_numpy(seen[f"{name}_image"])[None] for name in policy.cameras}
    state, task = torch.from_numpy(seen["state"])[None], torch.tensor([[0.0, 1.0]])
    unknown = policy(images, state, task)[0][0]
    for chunk, t in zip(chunks, (0.0, 1.0, -1.6, 1.6, 1.6)):  # it stands still after 160
        expected = unknown.clone()
        expected[:, 0] += 0.4 * t
        expected[:, 1] += 0.4 * t**2
        np.testing.assert_allclose(chunk, expected.clamp(-1, 1).numpy(), atol=1e-5)
    other = policy(images, state, torch.tensor([[1.0, 0.0]]))[0][0]
    np.testing.assert_allclose(chunks[5], other.clamp(-1, 1).numpy(), atol=1e-5)


def test_an_offset_wants_to_know_the_time(saved):
    policy = load_policy(saved)
    policy.add_offset()
    save_policy(policy, saved)
    infos = [{**INFO, "elapsed_steps": np.array(3)}, INFO]
    with pytest.raises(
        PolicyError,
        match=r"Expected elapsed_steps in each info, .* got task_suite, task_id\. Let the env report",
    ):
        make_policy(f"clone:{saved}").plan([observation(0)] * 2, infos)
    assert len(make_policy(f"clone:{saved}").plan([observation(0)], infos[:1])) == 1


def test_an_offset_learned_without_the_time_does_not_read_it(saved):
    policy = load_policy(saved)
    assert not policy.reads_time
    offset = policy.requires_grad_(False).add_offset().requires_grad_(True)
    images = {name: torch.from_numpy(observation(0)[f"{name}_image"].copy())[None] for name in policy.cameras}
    seen = images, torch.zeros(1, 8), torch.tensor([[0.0, 1.0]])
    for env_steps, reads_time in ((None, False), (torch.tensor([40]), True)):
        optimizer = torch.optim.AdamW(offset.parameters(), lr=0.1)
        policy(*seen, env_steps)[0].sum().backward()
        optimizer.step()
        assert policy.reads_time is reads_time
        early, late = (policy(*seen, torch.tensor([age]))[0] for age in (0, 130))
        assert torch.equal(early, late) is not reads_time


@pytest.mark.parametrize("has_offset", [False, True])
def test_a_policy_of_before_the_features_mean_is_refused_with_what_to_do(saved, has_offset):
    weights = load_policy(saved).state_dict()
    del weights["feature_mean"]
    if has_offset:
        weights |= {"offset.weight": torch.zeros(7, 512), "offset.bias": torch.zeros(7)}
        config = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps({**config, "has_offset": True}))
    torch.save(weights, saved / "policy.pt")
    with pytest.raises(
        ConfigError, match=r"^Expected feature_mean, .*policy, got .* Clone again, or .*--resume"
    ):
        load_policy(saved)
    torch.save([1], saved / "policy.pt")
    with pytest.raises(ConfigError, match="Expected weights of the same policy in"):
        load_policy(saved)


@torch.no_grad()
def test_an_offset_reads_what_differs_from_the_features_mean():
    torch.manual_seed(0)
    policy = ClonePolicy(["a:0"], 1, 16, ["agentview"])
    seen = inputs(3)
    plain = policy(*seen)[0]
    policy.feature_mean.copy_(policy.features(*seen).mean(0))
    policy.add_offset().weight[:, :512] = 1.0
    moved = policy(*seen)[0] - plain
    assert moved.abs().max() > 0.1
    np.testing.assert_allclose(moved.mean(0).numpy(), 0.0, atol=1e-4)
