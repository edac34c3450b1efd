"""Runs examples/train_ppo.py: on the toy env in the normal suite, on real LIBERO where minutes are allowed."""

import importlib.util
import json
import math
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tensor_worlds import point_envs

from vlac_gym.clone.policy import ClonePolicy, load_policy, save_policy
from vlac_gym.errors import ConfigError

SCRIPT = Path(__file__).parents[2] / "examples" / "train_ppo.py"
TINY = {
    "tasks": "reach:0,reach:1",
    "num_envs": 4,
    "in_process": True,
    "image_size": 16,
    "step_limit": 6,
    "chunk_size": 4,
    "critic": "oracle",
    "learn": "all",
    "log_std": -0.5,
    "value_init_steps": 1,
    "episodes_per_env": 2,
    "minibatch_size": 6,
    "epochs": 2,
    "eval_every": 2,
    "eval_episodes": 6,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("train_ppo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_ppo"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["train_ppo"]


def metrics_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timeless = [
        {
            name: value
            for name, value in row["metrics"].items()
            if not name.startswith("time/") and "latency" not in name
        }
        for row in rows
    ]
    return [row["step"] for row in rows], timeless


@pytest.mark.parametrize(
    "options",
    [{"critic": "noisy_oracle:tpr=0.7,fpr=0.1"}, {"algorithm": "grpo", "group_size": 2, "kl_coef": 0.1}],
)
def test_two_iterations_and_two_after_a_resume_equal_four(example, tmp_path, options):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    example.train(example.Args(out=whole, iterations=4, **TINY | options))
    example.train(example.Args(out=parts, iterations=2, **TINY | options))
    with (parts / "metrics.jsonl").open(
        "a"
    ) as file:  # a run that was killed between its metrics and its checkpoint
        file.write('{"step": 999, "time_s": 0.0, "metrics": {"train/kl": 9.0}}\n{"step": 99')
    example.train(example.Args(out=parts, iterations=4, resume=True, **TINY | options))

    assert metrics_of(whole) == metrics_of(parts)
    ours, theirs = (load_policy(folder / "policy").state_dict() for folder in (whole, parts))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    steps, rows = metrics_of(whole)
    assert len(steps) == 5
    assert steps[0] == 0
    assert [row.get("eval/episodes") for row in rows] == [6.0, None, 6.0, None, 6.0]
    assert {row["rollout/episodes"] for row in rows[1:]} == {8.0}


def test_a_checkpoint_of_before_the_features_mean_is_refused_with_what_to_do(example, tmp_path):
    options = TINY | {"out": tmp_path, "iterations": 1, "eval_every": 0, "episodes_per_env": 1}
    example.train(example.Args(**options))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["policy"]["feature_mean"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(
        ConfigError, match=r"Expected feature_mean, .* in .*checkpoint\.pt, got .* begin anew"
    ):
        example.train(example.Args(**options | {"iterations": 2, "resume": True}))


def test_the_policy_is_asked_when_as_many_envs_are_ready_as_it_waits_for(example, tmp_path, monkeypatch):
    asked = []
    look = example.Actor.look
    monkeypatch.setattr(
        example.Actor, "look", lambda self, seen, rows: asked.append(len(rows)) or look(self, seen, rows)
    )
    for folder, ready in (("all", {}), ("one", {"min_ready": 1})):
        asked.clear()
        options = TINY | {"eval_every": 0, "episodes_per_env": 1} | ready
        example.train(example.Args(out=tmp_path / folder, iterations=1, **options))
        assert asked[0] == (1 if ready else 4)
        _, (row,) = metrics_of(tmp_path / folder)
        assert row["rollout/episodes"] == 4.0


def test_the_first_iterations_train_the_value_alone(example, tmp_path):
    example.train(example.Args(out=tmp_path / "a", iterations=1, **TINY))
    trained = load_policy(tmp_path / "a" / "policy").state_dict()
    untrained = example.starting_policy(example.Args(out=tmp_path, **TINY)).state_dict()
    changed = {name.partition(".")[0] for name in trained if not torch.equal(trained[name], untrained[name])}
    assert changed == {"value"}


def test_the_second_iteration_trains_the_policy_and_leaves_the_noise(example, tmp_path):
    example.train(example.Args(out=tmp_path / "a", iterations=2, **TINY))
    trained = load_policy(tmp_path / "a" / "policy").state_dict()
    untrained = example.starting_policy(example.Args(out=tmp_path, **TINY)).state_dict()
    changed = {name.partition(".")[0] for name in trained if not torch.equal(trained[name], untrained[name])}
    assert changed == {"encoders", "trunk", "mean", "value"}


@pytest.mark.parametrize(("critic", "moves"), [("oracle", True), ("scripted:0", False)])
def test_a_reward_that_says_nothing_moves_no_policy_once_its_values_are_learned(
    example, tmp_path, critic, moves
):
    options = TINY | {"critic": critic, "num_envs": 16, "epochs": 6, "value_init_steps": 6, "step_limit": 12}
    folder = tmp_path / "a"
    example.train(example.Args(out=folder, iterations=6, **options))
    before = load_policy(folder / "policy").state_dict()
    example.train(example.Args(out=folder, iterations=8, resume=True, **options))
    after = load_policy(folder / "policy").state_dict()
    changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == ({"encoders", "trunk", "mean", "value"} if moves else {"value"})


def test_equal_advantages_leave_a_policy_of_numbers_without_a_least_deviation(example, tmp_path):
    options = TINY | {"algorithm": "grpo", "group_size": 2, "critic": "scripted:0", "min_advantage_std": 0.0}
    example.train(example.Args(out=tmp_path / "a", iterations=2, **options))
    trained = load_policy(tmp_path / "a" / "policy").state_dict()
    assert all(weights.isfinite().all() for weights in trained.values())


def clone_of(folder):
    policy = ClonePolicy(["reach:0", "reach:1"], 4, 16)
    torch.nn.init.zeros_(policy.mean.weight)  # its actions are 0
    save_policy(policy, folder)
    return folder


def test_learning_an_offset_leaves_the_start_policy(example, tmp_path):
    options = TINY | {"learn": "offset", "policy": clone_of(tmp_path / "clone"), "learning_rate": 1e-2}
    options["warmup_steps"] = 0
    example.train(example.Args(out=tmp_path / "a", iterations=2, **options))
    trained = load_policy(tmp_path / "a" / "policy").state_dict()
    cloned = load_policy(tmp_path / "clone").state_dict()
    assert set(trained) - set(cloned) == {"offset.weight", "offset.bias"}
    assert {name.partition(".")[0] for name in cloned if not torch.equal(trained[name], cloned[name])} == {
        "log_std",
        "value",
    }
    assert trained["offset.weight"].abs().max() > 1e-3


def test_the_first_steps_of_a_policy_are_small_and_of_its_values_are_not(example, tmp_path):
    def moved(**options):
        args = example.Args(out=tmp_path, **TINY | {"epochs": 1, "minibatch_size": 1000, **options})
        run = example.Run(args)
        env = example.make_envs(args, 4)
        before = {name: value.clone() for name, value in run.actor.policy.state_dict().items()}
        data, _ = example.collect(run, env, dict.fromkeys(("time/policy",), 0.0))
        env.close()
        example.update(run, data, only_value=False)
        after = run.actor.policy.state_dict()
        furthest = {name: (after[name] - before[name]).abs().max().item() for name in before}
        return furthest["mean.weight"], furthest["value.0.weight"]

    rates = {"learning_rate": 1e-2, "value_learning_rate": 1e-2}
    assert moved(warmup_steps=0, **rates) == pytest.approx((1e-2, 1e-2), rel=0.05)  # Adam's first step
    assert moved(warmup_steps=20, **rates) == pytest.approx((1e-2 / 20, 1e-2), rel=0.05)


def test_the_noise_of_an_offset_is_the_same_for_all_actions_of_a_chunk(example, tmp_path):
    args = example.Args(out=tmp_path, **TINY | {"learn": "offset", "policy": clone_of(tmp_path / "clone")})
    run = example.Run(args)
    env = example.make_envs(args, 4)
    sent = []
    step = env.send

    def send(actions, *others, **more):
        sent.append(np.array(actions))
        return step(actions, *others, **more)

    env.send = send
    data, _ = example.collect(run, env, dict.fromkeys(("time/policy",), 0.0))
    env.close()
    assert data.drawn.shape[1:] == (1, 7)
    assert data.log_probs.shape == data.executed.shape == (len(data.values), 1)
    ages = data.seen["env_steps"].tolist()
    assert set(ages) == {0, 4}  # of two chunks of four steps
    assert all(age == 0 or before == 0 for before, age in pairwise(ages))
    _, _, means = run.actor(data.seen)
    assert np.ptp(sent[0], axis=1).max() < 1e-6 < np.abs(sent[0]).max()
    by_hand = torch.distributions.Normal(means.mean(1), math.exp(-0.5)).log_prob(data.drawn[:, 0]).sum(-1)
    assert torch.allclose(by_hand, data.log_probs[:, 0], atol=1e-4)


def test_tasks_take_turns_so_that_the_audit_s_window_sees_all(example, tmp_path):
    run = example.Run(example.Args(out=tmp_path, **TINY | {"episodes_per_env": 2, "audit_window": 4}))
    env = example.make_envs(run.args, 4)
    _, episodes = example.collect(run, env, dict.fromkeys(("time/policy",), 0.0))
    env.close()
    tasks = [episode.finished.env_index // run.args.envs_per_task for episode in episodes]
    assert tasks == [0, 1] * 4
    starts = example.plan(run.args, [[3, 5], [7, 9]])
    assert [start.options["init_state_id"] for start in starts] == [3, 7, 5, 9]


def test_pictures_on_a_device_train_the_same_policy(example, tmp_path, monkeypatch):
    options = {"tasks": "points:7", "scenes": tmp_path, "train_init_states": "0-1", "eval_init_states": "2"}
    options = TINY | options | {"critic": "random", "eval_episodes": 1, "iterations": 2}
    seen = []
    look = example.Actor.look

    def noted(actor, observations, rows):
        seen.append(type(observations["agentview_image"]))
        return look(actor, observations, rows)

    monkeypatch.setattr(example.Actor, "look", noted)
    for name, device in (("tensors", "cpu"), ("arrays", None)):

        def points(scenes, tasks, *, pictures, image_size, max_episode_steps, device=device):
            assert (scenes, pictures, image_size) == (tmp_path, "torch", 16)
            return point_envs(device, tasks, max_episode_steps)

        monkeypatch.setattr(example, "warp_envs", points)
        example.train(example.Args(out=tmp_path / name, **options))
    assert metrics_of(tmp_path / "tensors") == metrics_of(tmp_path / "arrays")
    assert seen[: len(seen) // 2] == [torch.Tensor] * (len(seen) // 2)
    assert seen[len(seen) // 2 :] == [np.ndarray] * (len(seen) // 2)


def test_advantages_by_hand(example):
    # Two episodes of two chunks and one, gamma 0.5, lambda 0.5.
    # Last chunk: 1 - 0.4 = 0.6. First: 0 + 0.5 * 0.4 - 0.2 + 0.25 * 0.6 = 0.15. Other episode: 0.5 - 0.1 = 0.4.
    got = example.gae(np.array([0.0, 1.0, 0.5]), np.array([0.2, 0.4, 0.1]), [2, 1], gamma=0.5, lam=0.5)
    assert got.tolist() == pytest.approx([0.15, 0.6, 0.4])


def test_group_advantages_by_hand(example):
    got = example.group_advantages([1.0, 0.5, 0.5, 0.25], ["a", "b", "a", "b"])
    assert got.tolist() == [0.25, 0.125, -0.25, -0.125]


def test_time_that_is_up_stops_with_a_checkpoint(example, tmp_path, capsys):
    example.train(example.Args(out=tmp_path / "a", iterations=50, max_minutes=1e-4, **TINY))
    assert "Time is up after iteration" in capsys.readouterr().out
    steps, _ = metrics_of(tmp_path / "a")
    assert len(steps) <= 2
    assert (tmp_path / "a" / "learning.png").exists()


def test_what_does_not_fit_is_refused_before_anything_is_made(example, tmp_path):
    with pytest.raises(ConfigError, match=r"held-out states to evaluate on, but \[25\]"):
        example.Args(out=tmp_path / "a", train_init_states="0-25")
    with pytest.raises(ConfigError, match="multiple of 2 tasks x group_size 4"):
        example.Args(out=tmp_path / "a", **TINY | {"group_size": 4})
    with pytest.raises(ConfigError, match="or --learn all"):
        example.Args(out=tmp_path / "a")
    with pytest.raises(ConfigError, match="group_size >= 2 for grpo"):
        example.Args(out=tmp_path / "a", algorithm="grpo")
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match="holds a run"):
        example.train(example.Args(out=tmp_path, **TINY))
    assert not (tmp_path / "a").exists()


def run_script(*options):
    command = [sys.executable, "-W", "error::UserWarning", str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)


def test_the_train_demo_of_the_makefile_leaves_a_run_with_picture_and_page(tmp_path):
    tiny = "ARGS=--iterations 1 --num-envs 2 --eval-episodes 2"
    plan = ["make", "-n", "-C", str(SCRIPT.parents[1]), "train-demo", f"OUT={tmp_path}/run", tiny]
    lines = subprocess.run(plan, capture_output=True, text=True, check=True).stdout.splitlines()
    command = next(shlex.split(line) for line in lines if "examples/train_ppo.py" in line)
    done = run_script(*command[2:])
    assert done.returncode == 0, done.stderr
    assert "iteration 1 | " in done.stdout
    assert f"See {tmp_path}/run/index.html" in done.stdout
    page = (tmp_path / "run" / "index.html").read_text()
    assert "a toy without physics" in page
    assert "reads the simulator" in page


@pytest.mark.slow
def test_libero_judged_by_nano_in_worker_processes(tmp_path):
    tiny = (
        "--num-envs 2 --envs-per-worker 1 --image-size 64 --step-limit 16 --iterations 2 --value-init-steps 1"
    )
    tasks = ("--tasks", "libero_spatial:0,libero_object:0", "--eval-every", 2, "--eval-episodes", 2)
    done = run_script(
        "--out", tmp_path / "run", *tiny.split(), *tasks, "--critic", "nano", "--calibration", "nano"
    )
    assert done.returncode == 0, done.stderr
    steps, rows = metrics_of(tmp_path / "run")
    assert steps == [0, 32, 64]
    assert [row.get("eval/episodes") for row in rows] == [2.0, None, 2.0]
    assert all(0.0 <= row["rollout/reward_mean"] <= 1.0 for row in rows[1:])
    assert all(math.isfinite(row["train/policy_loss"]) for row in rows[1:])
