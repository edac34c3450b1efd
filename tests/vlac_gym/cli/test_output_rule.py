"""Every command that writes: a bad `--out` or argument costs one line and nothing else, before any work."""

import dataclasses
import importlib
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
from original_checkpoint import train_sentencepiece, write_original
from PIL import Image

from vlac_gym.cli import COMMANDS, attack, main, report_card, rollout, score
from vlac_gym.clone.policy import ClonePolicy, save_policy
from vlac_gym.critic.oracle import OracleCritic
from vlac_gym.critic.vlac import convert, tiny_checkpoint
from vlac_gym.data.episodes import Episode, EpisodeMeta, write_episode
from vlac_gym.envs.libero import LiberoEnv
from vlac_gym.errors import SimulatorError
from vlac_gym.evaluation.folder import EpisodeRecord, EvalFolder
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.frames.codec import EncodedFrames, encode_frame
from vlac_gym.service import server
from vlac_gym.train_nano import trainer
from vlac_gym.training import merge_adapter

OUT_OPTIONS = {"make-tiny-checkpoint": "--to", "convert": "--to", "merge-adapter": "--to"}  # --out elsewhere

WRITERS = {
    "rollout": ["--policy", "zero"],
    "score": ["INPUT/pictures", "--task", "open the drawer", "--critic", "nano"],
    "collect": ["--task-ids", "0", "--episodes", "1"],
    "report-card": ["--critic", "nano", "--episodes", "INPUT/bank"],
    "attack": ["--critic", "nano", "--policy", "INPUT/policy"],
    "export": ["--format", "ms-swift", "--episodes", "INPUT/bank", "--mismatch-share", "0"],
    "export-scenes": ["--task-ids", "0", "--num-starts", "1"],
    "train-critic": ["--data", "INPUT/bank", "--recipe.val-init-states", "1"],
    "clone": [
        *(
            "--data",
            "INPUT/bank",
            "--cameras",
            "agentview",
            "--image-size",
            "16",
            "--held-out-init-states",
            "none",
        )
    ],
    "compare": ["INPUT/run", "INPUT/run"],
    "convert": ["--from", "INPUT/original"],
    "make-tiny-checkpoint": [],
    "merge-adapter": ["--base", "INPUT/base", "--adapter", "INPUT/adapter"],
}
"""Command -> arguments that leave `--out` as the only thing that can be wrong."""

BAD = {
    "rollout": [
        ["--task-suite", "libero_spacial"],
        ["--critic", "nan"],
        ["--policy", "expart"],
        ["--done-threshold", "2"],
        ["--calibration", "absent.json"],
        ["--preset", "vlak"],
        ["--mode", "trian"],
        ["--image-size", "1"],
        ["--episodes", "many"],
    ],
    "score": [
        ["--done-threshold", "2"],
        ["--value-stride", "0"],
        ["--check-stride", "0"],
        ["--fps", "-1"],
        ["--every", "0"],
        ["--reference", "absent.mp4"],
        ["--reference", "INPUT/pictures", "--reference-count", "1"],
        ["--critic", "nan"],
    ],
    "collect": [
        ["--task-suite", "libero_spacial"],
        ["--task-ids", "99"],
        ["--task-ids", "4-2"],
        ["--init-states", "abc"],
        ["--policy", "expart"],
        ["--imperfect", "none=-1"],
        ["--image-size", "1"],
        ["--max-episode-steps", "0"],
        ["--cameras", "agentviev"],
        ["--quality", "0"],
        ["--workers", "0"],
        ["--episodes", "0"],
    ],
    "report-card": [
        ["--init-states", "abc"],
        ["--task-ids", "x"],
        ["--init-states", "44"],
        ["--done-threshold", "2"],
        ["--collect", "libero_spatial"],
        ["--references", "INPUT/bank"],
        ["--critic", "nan"],
        ["--episodes", "absent"],
        ["--resume"],
        ["--attack-runs", "absent"],
    ],
    "attack": [
        ["--critic", "nan"],
        ["--policy", "absent"],
        ["--tasks", "libero_spatial:1"],
        ["--tasks", "libero_spatial:0", "libero_spatial:0"],
        ["--init-states", "abc"],
        ["--init-states", "50"],
        ["--scenes", "absent"],
        ["--num-envs", "0"],
        ["--rounds", "0"],
        ["--noise", "2"],
        ["--learning-rate", "0"],
        ["--done-threshold", "2"],
        ["--calibration", "absent.json"],
        ["--camera", "agentviev"],
        ["--image-size", "15"],
        ["--image-size", "4096"],
        ["--device", "cudda"],
    ],
    "export": [
        ["--held-out-init-states", "abc"],
        ["--done-per-episode", "-1"],
        ["--mismatch-share", "2"],
        ["--episodes", "absent"],
        ["--format", "ms-swit"],
    ],
    "export-scenes": [
        ["--task-suite", "libero_spacial"],
        ["--task-ids", "99"],
        ["--num-starts", "0"],
        ["--num-starts", "51"],
        ["--texture-size", "0"],
    ],
    "train-critic": [
        ["--data", "absent"],
        ["--device", "cudda"],
        ["--recipe.steps", "0"],
        ["--recipe.start-from", "absent"],
        ["--recipe.val-init-states", "9"],
    ],
    "clone": [
        ["--data", "absent"],
        ["--steps", "0"],
        ["--device", "cudda"],
        ["--held-out-init-states", "abc"],
        ["--cameras", "wrist"],
    ],
    "compare": [["absent"], ["INPUT/bank"]],
    "convert": [["--from", "absent"]],
    "make-tiny-checkpoint": [["--seed", "-1"]],
    "merge-adapter": [
        ["--base", "absent"],
        ["--adapter", "absent"],
        ["--base", "INPUT/adapter"],
        ["--dtype", "int8"],
    ],
}
BAD_EVERYWHERE = [["--foo", "3"]]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    frames = [np.full((16, 16, 3), 20 * i, np.uint8) for i in range(6)]
    (root / "pictures").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(root / "pictures" / f"{i}.png")
    for init_state_id in (0, 1):
        success = np.arange(6) == 5
        view = EncodedFrames.from_bytes([encode_frame(frame, "png") for frame in frames])
        meta = EpisodeMeta("libero_spatial", 0, "stack", init_state_id, "expert", encoding="png")
        write_episode(
            root / "bank",
            Episode(
                meta=meta,
                actions=np.zeros((5, 7), np.float32),
                states=np.zeros((6, 8), np.float32),
                success=success,
                goal_progress=success.astype(np.float32),
                stages=np.full(6, ""),
                frame_steps=np.arange(6, dtype=np.int32),
                frames={"agentview": view},
            ),
        )
    save_policy(ClonePolicy(["libero_spatial:0"], image_size=16), root / "policy")
    (root / "run").mkdir()
    run = EvalFolder(root / "run", {"task_suite": "libero_spatial", "policy": "zero"})
    run.add(EpisodeRecord(0, 0, 0, 0, "stack", True, 5))
    write_original(root / "original", train_sentencepiece())
    for name, content in {
        "base/config.json": "{}",
        "base/model.safetensors": "",
        "adapter/adapter_config.json": '{"peft_type": "LORA", "base_model_name_or_path": "base"}',
        "adapter/adapter_model.safetensors": "",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    """Whatever takes time or writes results fails the test."""

    def forbid(owner, name):
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: pytest.fail(f"{name} was called"))

    for command in (attack, report_card, rollout, score):
        forbid(command, "make_critic")
    forbid(LiberoEnv, "reset")
    forbid(trainer, "_Trainer")
    forbid(convert, "_write_weights")
    forbid(tiny_checkpoint, "build_model")
    forbid(merge_adapter, "_load")


def call(command: str, out: str, inputs: Path, more: typing.Sequence[str] = ()) -> int:
    arguments = [argument.replace("INPUT", str(inputs)) for argument in (*WRITERS[command], *more)]
    return main([command, OUT_OPTIONS.get(command, "--out"), out, *arguments])


def one_line(capsys) -> str:
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_no_command_that_writes_is_left_out():
    kinds = {name: importlib.import_module(module).Args for name, (module, _) in COMMANDS.items()}
    writers = {
        name
        for name, kind in kinds.items()
        if {"out", "to", "target"} & {field.name for field in dataclasses.fields(kind)}
    }
    assert writers == WRITERS.keys() == BAD.keys()


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("out", ["/dev/null/out", "/proc/out", "TMP/file", "TMP/file/out"])
def test_unwritable_out_is_told_before_any_work(command, out, inputs, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert call(command, out.replace("TMP", str(tmp_path)), inputs) == 2
    assert "Can't write to" in (line := one_line(capsys)) or "got the file" in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", WRITERS)
def test_folder_in_use_is_told_before_any_work(command, inputs, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert call(command, str(tmp_path), inputs) == 2
    assert "Expected a new or empty folder" in one_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("command", WRITERS)
def test_second_command_into_one_folder_is_refused(command, inputs, tmp_path, capsys):
    with claim_folder(tmp_path / "out"):
        assert call(command, str(tmp_path / "out"), inputs) == 2
        assert "Another command is writing to" in one_line(capsys)


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("out", ["", " "])
def test_empty_out_is_not_the_current_folder(command, out, inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(command, out, inputs) == 2
    assert "Expected a value for --" in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", WRITERS)
def test_missing_out_is_told_in_one_line(command, capsys):
    assert main([command]) == 2
    assert f"Missing from vlac-gym {command}: " in one_line(capsys)


@pytest.mark.parametrize(
    ("command", "more"), [(name, bad) for name, cases in BAD.items() for bad in (*cases, *BAD_EVERYWHERE)]
)
def test_bad_argument_is_told_before_any_work_and_leaves_nothing(command, more, inputs, tmp_path, capsys):
    assert call(command, str(tmp_path / "deep" / "out"), inputs, more) == 2
    assert one_line(capsys).startswith(f"vlac-gym {command}: ")
    assert list(tmp_path.iterdir()) == []


def test_report_card_goes_on_collecting_only_when_asked_and_never_over_a_card(tmp_path, monkeypatch, capsys):
    def collect(options):
        raise SimulatorError(f"collects, resume={options.resume}")

    monkeypatch.setattr(report_card, "make_critic", lambda spec: OracleCritic())
    monkeypatch.setattr(report_card, "collect_with_progress", collect)
    (tmp_path / "collected").mkdir()
    command = ["report-card", "--critic", "oracle", "--collect", "libero_spatial", "--out", str(tmp_path)]
    assert main(command) == 2
    assert "holds collected; nothing is overwritten. Continue it with --resume" in one_line(capsys)
    assert main([*command, "--resume"]) == 1
    assert "collects, resume=True" in one_line(capsys)
    (tmp_path / "card.json").write_text("{}")
    assert main([*command, "--resume"]) == 2
    assert "holds card.json; nothing is overwritten. Choose another" in one_line(capsys)


def test_unknown_critic_is_told_before_a_server_listens(monkeypatch, capsys):
    monkeypatch.setattr(server, "serve", lambda *args, **kwargs: pytest.fail("the server was started"))
    assert main(["serve", "--critic", "nan", "--port", "0"]) == 2
    assert "Unknown critic 'nan'" in one_line(capsys)


def test_of_two_processes_one_writes_and_the_other_says_why_not(tmp_path):
    command = [sys.executable, "-m", "vlac_gym.cli", "make-tiny-checkpoint", "--to", str(tmp_path / "tiny")]
    pair = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    told = [process.communicate(timeout=300) for process in pair]
    assert sorted(process.returncode for process in pair) == [0, 2]
    (loser,) = [err for (_, err), process in zip(told, pair) if process.returncode == 2]
    assert len(loser.splitlines()) == 1
    assert (tmp_path / "tiny" / "config.json").exists()
