"""The real `swift sft` trains on an exported folder that was moved. `scripts/compare_engines.sh` runs it."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vlac_gym.critic.vlac.tiny_checkpoint import make_tiny_checkpoint
from vlac_gym.data import EpisodeDataset, EpisodeMeta, write_episode
from vlac_gym.data.export_ms_swift import export_ms_swift
from vlac_gym.data.recorder import EpisodeRecorder

pytestmark = pytest.mark.slow


def record(root: Path, task_id: int, init_state_id: int) -> None:
    """20 steps that are solved from step 12 on."""
    task = ("put the bowl on the plate", "open the drawer")[task_id]
    recorder = EpisodeRecorder(EpisodeMeta("libero_goal", task_id, task, init_state_id, "expert"))
    for step in range(21):
        info = {"success": step >= 12, "goal_progress": 1.0 if step >= 12 else step / 20}
        frame = np.full((64, 64, 3), 10 * step, np.uint8)
        action = np.zeros(7) if step else None
        recorder.add(np.zeros(8), info, {"agentview": frame}, action=action)
    write_episode(root, recorder.finish())


def sft(python: Path, folder: Path, checkpoint: Path, out: Path, **variables: str) -> str:
    """Two optimiser steps and one evaluation; returns what was said, raises if the command fails."""
    command = [python.with_name("swift"), "sft", "--model", checkpoint, "--model_type", "internvl"]
    command += ["--template", "internvl_hf", "--tuner_type", "full", "--torch_dtype", "float32"]
    command += ["--dataset", folder / "train.jsonl", "--val_dataset", folder / "val.jsonl"]
    command += ["--max_steps", "2", "--eval_steps", "2", "--logging_steps", "1"]
    command += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1"]
    command += ["--output_dir", out, "--report_to", "none", "--strict", "true"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
    done = subprocess.run(
        list(map(str, command)), env=environment, cwd=out.parent, capture_output=True, text=True, timeout=500
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
    return done.stdout + done.stderr


def test_swift_sft_trains_on_a_folder_that_was_moved(tmp_path: Path) -> None:
    python = os.environ.get("VLAC_SWIFT_PYTHON")
    if not python:
        pytest.skip("VLAC_SWIFT_PYTHON names no interpreter with ms-swift; run scripts/compare_engines.sh")
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny")
    for task_id in range(2):
        for init_state_id in range(2):
            record(tmp_path / "bank", task_id, init_state_id)
    bank = EpisodeDataset.open(tmp_path / "bank")
    export_ms_swift(bank, tmp_path / "made here", held_out_init_states=[1])
    folder = (tmp_path / "made here").rename(tmp_path / "the GPU machine")

    with pytest.raises(RuntimeError, match="images/libero_goal-t0"):
        sft(Path(python), folder, checkpoint, tmp_path / "lost")
    sft(Path(python), folder, checkpoint, tmp_path / "out", ROOT_IMAGE_DIR=str(folder))
    (log,) = (tmp_path / "out").rglob("logging.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [float(row["loss"]) for row in rows if "loss" in row]
    evaluations = [float(row["eval_loss"]) for row in rows if "eval_loss" in row]
    assert len(losses) == 2
    assert len(evaluations) >= 1
    assert np.isfinite([*losses, *evaluations]).all()
