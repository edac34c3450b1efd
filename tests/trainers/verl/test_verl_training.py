"""Two steps of verl 0.9.1's own `main_ppo`, started by the example's command, on a CPU: GRPO on the wrapper's pay.

All is verl's (task runner, V1 trainer, TransferQueue, FSDP2 actor, GRPO, checkpoints, validation) but the device and
the engine that samples the policy (`verl_cpu`). Run by `scripts/test_verl.sh`, in an environment that has verl.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("default"),  # verl's and Ray's own warnings are not ours to mend.
]

pytest.importorskip("verl")

ROOT = Path(__file__).parents[3]
SAMPLES = 4

ON_A_CPU = [
    "trainer.device=cpu",
    "trainer.n_gpus_per_node=1",
    "ray_kwargs.ray_init.num_cpus=8",
    "+ray_kwargs.ray_init.num_gpus=1",  # verl's workers ask for one; Ray takes our word
    "+ray_kwargs.ray_init.address=local",
    "+ray_kwargs.ray_init.include_dashboard=false",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "reward.num_workers=1",
    "data.dataloader_num_workers=0",
    "actor_rollout_ref.rollout.name=transformers",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile=false",
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32}",
    "actor_rollout_ref.model.use_remove_padding=false",
    "actor_rollout_ref.model.enable_gradient_checkpointing=false",
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
]

SMALL = [
    "data.shuffle=false",
    "data.train_batch_size=2",
    "data.max_response_length=96",
    f"actor_rollout_ref.rollout.n={SAMPLES}",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "actor_rollout_ref.actor.checkpoint.save_contents=[hf_model]",
    "trainer.logger=[console,file]",
    "trainer.total_training_steps=2",
    "trainer.val_before_train=false",
    "trainer.test_freq=2",
    "trainer.save_freq=1",
]


@dataclass
class Training:
    """What verl left behind of its two steps.

    Attributes:
        policies: Folders of the policy before the first step, after it, and after the second.
        metrics: Step -> what verl logged.
        rows: Step -> the rows of verl's batch, as it dumped them: `uid` is {prompt}_{sample}_{chunk}.
        replies: What the policy was asked and said, in training as in validation.
        values: What nano was asked for at the end of an episode: the task and its value, in the order of its answers.
    """

    policies: list[Path]
    metrics: dict[int, dict[str, float]]
    rows: dict[int, list[dict[str, Any]]]
    replies: list[dict[str, Any]]
    values: list[tuple[str, float]]

    def paid(self, step: int, prompt: str) -> list[float]:
        """What nano gave the episodes of one prompt, none of which was done before its limit."""
        count = len(self.values) // 2
        [task] = {
            row["input"].split("Task: ")[1].split("\n")[0] for row in self.rows[step] if prompt in row["uid"]
        }
        return [value for name, value in self.values[(step - 1) * count : step * count] if name == task]

    def returns(self, step: int) -> dict[str, dict[str, float]]:
        """Prompt -> sample -> the reward of the episode, which verl gives to each of its rows."""
        returns: dict[str, dict[str, float]] = defaultdict(dict)
        for row in self.rows[step]:
            prompt, sample, _ = row["uid"].rsplit("_", 2)
            if prompt.startswith("pad"):  # verl fills its mini-batch with rows that train nothing.
                continue
            assert returns[prompt].setdefault(sample, row["score"]) == row["score"]
        return returns

    def advantages(self, step: int) -> dict[str, float]:
        """{prompt}_{sample} -> GRPO's advantage by hand."""
        import torch

        advantages = {}
        for prompt, returns in self.returns(step).items():
            group = torch.tensor(list(returns.values()))
            spread = group.std() + 1e-6
            for sample, value in returns.items():
                advantages[f"{prompt}_{sample}"] = ((value - group.mean()) / spread).item()
        return advantages

    def reply(self, row: dict[str, Any]) -> dict[str, Any]:
        """The tokens of a row, which verl dumped as text without special tokens."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.policies[0])
        for reply in self.replies:
            texts = [
                tokenizer.decode(reply[name], skip_special_tokens=True)
                for name in ("prompt_ids", "token_ids")
            ]
            if reply["global_steps"] == row["step"] - 1 and texts == [row["input"], row["output"]]:
                return reply
        raise AssertionError(f"nobody said {row['output']!r}")


@pytest.fixture(scope="module")
def training(make_block, tmp_path_factory) -> Training:
    from tiny_policy import write_tiny_speaker
    from verl_rows import agent_loop_file

    folder = tmp_path_factory.mktemp("training")
    policy = write_tiny_speaker(folder / "policy")
    write_data(folder / "data")
    block = make_block(f"recorded_nano:make?path={folder / 'nano.jsonl'}")
    block["env"]["chunk"] = 3
    overrides = [
        agent_loop_file(folder, block, prompt="{instructions}\nTask: {task}\nState: {state}"),
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"trainer.rollout_data_dir={folder / 'rows'}",
        f"hydra.run.dir={folder / 'hydra'}",
    ]
    run_example([*ON_A_CPU, *SMALL, *overrides], folder)
    saved = [folder / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface" for step in (1, 2)]
    return Training(
        policies=[policy, *saved],
        metrics={line["step"]: line["data"] for line in read_lines(folder / "metrics.jsonl")},
        rows={step: read_lines(folder / "rows" / f"{step}.jsonl") for step in (1, 2)},
        replies=read_lines(folder / "replies.jsonl"),
        values=[
            (line["task"], line["answer"][-1])
            for line in read_lines(folder / "nano.jsonl")
            if line.get("kind") == "value"
        ],
    )


def write_data(folder: Path) -> None:
    """A start of each of two tasks for each step, and one of task 0 for validation."""
    from verl_env_adapter.verl.dataset import build_rows, write_parquet
    from vlac_gym.envs.libero.tasks import get_task

    tasks = [get_task("libero_spatial", task_id) for task_id in (0, 1)]
    write_parquet(build_rows(tasks, [0, 1], "train"), folder / "train.parquet")
    write_parquet(build_rows(tasks[:1], [2], "eval"), folder / "val.parquet")


def run_example(overrides: list[str], folder: Path) -> None:
    """`examples/train_verl/run.sh`, again where Ray's own 30 s for a node are too short for a busy machine."""
    support = str(ROOT / "tests" / "support")
    environment = {
        **os.environ,
        "DATA": str(folder / "data"),
        "MODEL": str(folder / "policy"),
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(filter(None, [support, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu",
        "VERL_ENGINE_DEVICE": "cuda",  # verl's table has its FSDP engine for no CPU
        "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"),
        "VLAC_GYM_TEST_REPLIES": str(folder / "replies.jsonl"),
    }
    command = ["bash", str(ROOT / "examples" / "train_verl" / "run.sh"), *overrides]
    log = folder / "log.txt"
    for _ in range(3):
        with log.open("w") as file:
            done = subprocess.run(
                command, env=environment, cwd=folder, stdout=file, stderr=file, timeout=1700, check=False
            )
        if done.returncode == 0 or "timed out during startup" not in log.read_text():
            break
    assert done.returncode == 0, log.read_text()[-20_000:]


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def episode_of(row: dict[str, Any]) -> str:
    """{prompt}_{sample}"""
    episode: str = row["uid"].rsplit("_", 1)[0]
    return episode


def log_likelihoods(policy: Path, replies: list[dict[str, Any]]) -> list[float]:
    """Of each reply's tokens after its prompt."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    sums = []
    for reply in replies:
        tokens, start = torch.tensor(reply["prompt_ids"] + reply["token_ids"]), len(reply["prompt_ids"])
        with torch.no_grad():
            log_probs = model(tokens[None]).logits[0, start - 1 : -1].log_softmax(-1)
        sums.append(log_probs.gather(1, tokens[start:, None]).sum().item())
    return sums


def test_rewards_of_the_batch_are_the_very_numbers_that_nano_gave(training):
    for step in (1, 2):
        returns = training.returns(step)
        assert len(returns) == 2
        for prompt, samples in returns.items():
            paid = training.paid(step, prompt)
            assert sorted(samples.values()) == pytest.approx(sorted(paid), rel=1e-6)
            assert len({*paid}) == SAMPLES
            assert all(0.0 < value < 1.0 for value in paid)


def test_advantages_are_grpos_of_these_rewards(training):
    for step in (1, 2):
        advantages = training.advantages(step).values()
        assert len(advantages) == 2 * SAMPLES
        assert training.metrics[step]["critic/advantages/max"] == pytest.approx(max(advantages), abs=1e-3)
        assert training.metrics[step]["critic/advantages/min"] == pytest.approx(min(advantages), abs=1e-3)


def test_each_step_changes_the_actors_weights(training):
    from safetensors.torch import load_file

    before, after, at_end = [load_file(policy / "model.safetensors") for policy in training.policies]
    assert before.keys() == after.keys() == at_end.keys()
    for first, second in ((before, after), (after, at_end)):
        assert not [name for name in first if first[name].equal(second[name])]
    for step in (1, 2):
        assert 0.0 < training.metrics[step]["actor/grad_norm"] < float("inf")


def test_a_step_makes_what_was_paid_more_likelier_than_what_was_paid_less(training):
    advantages = training.advantages(1)
    rows = [row for row in training.rows[1] if episode_of(row) in advantages]
    replies = [training.reply(row) for row in rows]
    before, after = (log_likelihoods(policy, replies) for policy in training.policies[:2])
    gains = [new - old for old, new in zip(before, after, strict=True)]
    assert sum(advantages[episode_of(row)] * gain for row, gain in zip(rows, gains, strict=True)) > 0.0


def test_episodes_are_played_by_the_newest_weights(training):
    for step in (1, 2):  # verl compares the engine's probabilities with its actor's.
        assert training.metrics[step]["training/rollout_probs_diff_max"] < 1e-4
    assert {reply["global_steps"] for reply in training.replies} == {0, 1, 2}


def test_validation_by_the_trainer_is_the_simulators_and_asks_no_critic(training):
    assert training.metrics[2]["val-core/vlac_gym/libero_spatial/acc/mean@1"] == 0.0
    assert training.metrics[2]["val-aux/vlac_gym/libero_spatial/is_eval/mean@1"] == 1.0
    assert len(training.values) == 2 * 2 * SAMPLES  # two steps of two prompts
