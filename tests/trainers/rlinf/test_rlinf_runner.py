"""Two epochs of RLinf's own entry script and `EmbodiedRunner` with the example's policy, on a CPU.

FSDP2's actor, the huggingface rollout, RLinf's env worker on real LIBERO, nano in it. RLINF names a checkout of v0.3.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.trainer, pytest.mark.timeout(1800), pytest.mark.filterwarnings("default")]

pytest.importorskip("rlinf")
torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[3]
SMALL = [
    "runner.max_epochs=2",
    "runner.val_check_interval=1",
    "runner.save_interval=1",
    "algorithm.update_epoch=1",
    "actor.micro_batch_size=2",
    "actor.global_batch_size=4",  # 2 envs with 2 chunks of 8 steps each
    "actor.model.image_size=32",
    'actor.model.tasks=["libero_spatial:0"]',
    "actor.optim.lr=1e-3",
    "env.train.vlac_gym.env.tasks=[0]",
    "env.train.vlac_gym.env.image_size=64",
    "env.train.vlac_gym.placement.envs_per_worker=1",
    *(f"env.{phase}.total_num_envs=2" for phase in ("train", "eval")),
    *(f"env.{phase}.max_episode_steps=16" for phase in ("train", "eval")),
    *(f"env.{phase}.max_steps_per_rollout_epoch=16" for phase in ("train", "eval")),
]


@pytest.fixture
def train(tmp_path):
    """Trains with a config of the example, made small; returns the folder of its logs."""
    if "RLINF" not in os.environ:
        pytest.skip("RLINF is not set: RLinf's entry scripts are in its repository only, not in its wheel")

    def run(name, *overrides):
        embodied = Path(os.environ["RLINF"]) / "examples" / "embodiment"
        (tmp_path / "record").mkdir()
        support = str(ROOT / "tests" / "support")
        environment = {
            **os.environ,
            "EMBODIED_PATH": str(embodied),
            "GLOO_SOCKET_IFNAME": "lo",
            "LOG_DIR": str(tmp_path / "log"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [support, os.environ.get("PYTHONPATH")])),
            "RLINF_EXT_MODULE": "rlinf_extension",  # ours, and a record of what the wrapper paid
            "ROBOT_PLATFORM": "LIBERO",
            "VLAC_GYM_RLINF_CPU": "1",
            "VLAC_GYM_TEST_RECORD": str(tmp_path / "record"),
        }
        command = [sys.executable, f"{support}/rlinf_train.py", str(embodied / "train_embodied_agent.py")]
        command += ["--config-path", str(ROOT / "examples" / "train_rlinf"), "--config-name", name]
        subprocess.run([*command, *SMALL, *overrides], env=environment, check=True, timeout=1700)
        return tmp_path / "log"

    return run


def scalars(log):
    """TensorBoard's curves: name -> values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [folder] = {file.parent for file in log.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def paid_per_step(folder, mode):
    """Mean reward of the executed steps of each epoch of two chunks, as `VLACRewardWrapper` paid them."""
    lines = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    lines = [line for line in lines if line["mode"] == mode]
    epochs = [lines[i : i + 2] for i in range(0, len(lines), 2)]
    return [
        sum(sum(map(sum, line["rewards"])) for line in epoch) / sum(sum(line["executed"]) for line in epoch)
        for epoch in epochs
    ]


def weights(log, step):
    [file] = log.rglob(f"global_step_{step}/actor/**/full_weights.pt")
    return torch.load(file, map_location="cpu", weights_only=True)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("ppo", ["actor.optim.critic_warmup_steps=0"]),
        ("grpo", ["algorithm.group_size=2", "env.train.group_size=2"]),
    ],
)
def test_rlinf_updates_the_policy_on_the_critics_reward(train, tmp_path, name, overrides):
    log = train(name, *overrides)
    curves = scalars(log)

    assert curves["env/critic_mode"] == [1.0, 1.0]
    paid = paid_per_step(tmp_path / "record", "train")
    assert len(paid) == 2
    assert all(0.0 < reward < 1.0 for reward in paid)
    assert curves["rollout/rewards"] == pytest.approx(paid, rel=1e-5)

    first, second = weights(log, 1), weights(log, 2)
    changed = {key for key in first if not torch.equal(first[key], second[key])}
    assert {"policy.mean.weight", "policy.encoders.agentview.layers.0.weight"} <= changed
    assert ("value_head.0.weight" in changed) is (name == "ppo")
    assert "policy.log_std" not in changed
    assert all(math.isfinite(norm) and norm > 0.0 for norm in curves["train/actor/grad_norm"])

    assert curves["eval/critic_mode"] == [0.0, 0.0]
    assert curves["eval/success_once"] == [0.0, 0.0]  # two chunks solve nothing
    assert paid_per_step(tmp_path / "record", "eval") == [0.0, 0.0]


def test_rlinf_learns_an_offset_alone_and_evaluates_it(train, tmp_path):
    log = train(
        "ppo",
        "actor.optim.critic_warmup_steps=1",  # the optimizer's first step, that of the first epoch's one batch
        "actor.global_batch_size=4",
        "actor.model.learn=offset",
        "algorithm.reward_type=chunk_level",
        "algorithm.logprob_type=chunk_level",
    )
    curves = scalars(log)
    first, second = weights(log, 1), weights(log, 2)
    assert not first["policy.offset.weight"].any()
    assert second["policy.offset.weight"].any()
    changed = {key for key in first if not torch.equal(first[key], second[key])}
    assert changed == {key for key in first if "offset" in key or "value_head" in key}
    # Before the first update the rollout's policy, frozen weights included, is the actor's.
    assert curves["train/actor/approx_kl"][0] == pytest.approx(0.0, abs=1e-4)
    assert curves["train/actor/ratio"] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert curves["env/critic_mode"] == [1.0, 1.0]
    assert curves["eval/critic_mode"] == [0.0, 0.0]
    assert curves["eval/success_once"] == [0.0, 0.0]
    assert curves["eval/episode_len"] == [16.0, 16.0]


def test_rlinf_learns_nothing_from_episodes_that_lost_their_critic(train):
    log = train(
        "ppo",
        "actor.optim.critic_warmup_steps=0",
        "runner.max_epochs=1",
        "runner.val_check_interval=-1",
        "env.train.vlac_gym.critic.spec='own_critics:losing?words=between_the'",  # task 0, which both envs play
        "env.train.vlac_gym.critic.on_error=truncate",
    )
    curves = scalars(log)
    assert curves["env/critic_failed"] == [1.0]
    for name in ("actor/policy_loss", "critic/value_loss", "actor/grad_norm"):
        assert curves[f"train/{name}"] == [0.0]  # NaN where the actor's process masks nothing
