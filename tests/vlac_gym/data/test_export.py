"""Exports: VLAC's own prompts with the right answers, and a LeRobot dataset that follows its schema."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlac_gym.critic.vlac.prompts import SYSTEM_PROMPT, done_prompt, pair_prompt
from vlac_gym.data import EpisodeDataset, EpisodeMeta, write_episode
from vlac_gym.data.export_lerobot import export_lerobot
from vlac_gym.data.export_ms_swift import SwiftOptions, export_ms_swift
from vlac_gym.data.recorder import EpisodeRecorder
from vlac_gym.data.verdicts import with_verdict
from vlac_gym.errors import ConfigError
from vlac_gym.frames.codec import FrameEncoding, decode_frame
from vlac_gym.frames.convention import ImageConvention

TASKS = ("put the bowl on the plate", "open the drawer")


def record(
    root: Path,
    task_id: int,
    init_state_id: int,
    *,
    succeeds: bool,
    stride: int = 1,
    first_success_step: int = 15,
    encoding: FrameEncoding = "png",
    camera: str = "agentview",
    slant: int = 0,
) -> None:
    """20 steps; frame i is grey 10 i, plus `slant` a column; progress i / 20, 1 from the first success on."""
    meta = EpisodeMeta(
        "libero_goal", task_id, TASKS[task_id], init_state_id, "expert", "none",
        frame_stride_steps=stride, encoding=encoding, seed=int(succeeds),
    )  # fmt: skip
    columns = (slant * np.arange(8)[:, None]).repeat(3, axis=1)
    recorder = EpisodeRecorder(meta)
    for step in range(21):
        success = succeeds and step >= first_success_step
        recorder.add(
            np.arange(8) + step,
            {"success": success, "goal_progress": 1.0 if success else min(step / 20, 0.7)},
            {camera: np.tile(np.uint8(10 * step + columns), (6, 1, 1))} if step % stride == 0 else None,
            action=np.full(7, -step / 20) if step else None,
        )
    write_episode(root, recorder.finish())


@pytest.fixture
def bank(tmp_path: Path) -> EpisodeDataset:
    root = tmp_path / "bank"
    for task_id in range(2):
        for start in range(4):
            record(root, task_id, start, succeeds=start % 2 == 0)
    return EpisodeDataset.open(root)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def grey(path: Path) -> int:
    """The step that a picture shows."""
    return int(decode_frame(path.read_bytes())[0, 0, 0]) // 10


def test_every_answer_is_what_the_simulator_says(bank: EpisodeDataset, tmp_path: Path) -> None:
    counts = export_ms_swift(bank, tmp_path / "out", SwiftOptions(mismatch_share=0.25, seed=1))
    lines = read_lines(tmp_path / "out" / "train.jsonl")
    done_texts = {done_prompt(task): task for task in TASKS}
    pair_texts = {pair_prompt(task): task for task in TASKS}
    kinds: Counter[str] = Counter()
    for line in lines:
        system, user, assistant = line["messages"]
        assert (system["role"], user["role"], assistant["role"]) == ("system", "user", "assistant")
        assert system["content"] == SYSTEM_PROMPT
        names = [Path(image).name for image in line["images"]]
        true_task = TASKS[int(names[0].split("-")[1][1:])]
        is_success_episode = "-s1-" in names[0]
        assert all(image.startswith("images/") for image in line["images"])
        steps = [grey(tmp_path / "out" / image) for image in line["images"]]
        progress = [1.0 if is_success_episode and s >= 15 else min(s / 20, 0.7) for s in steps]
        if user["content"] in done_texts:
            matches = done_texts[user["content"]] == true_task
            assert len(steps) == 1
            assert assistant["content"] == str(int(matches and progress[0] == 1.0))
            kinds[f"done {matches}"] += 1
        else:
            matches = pair_texts[user["content"]] == true_task
            low, high = min(progress), max(progress)
            percent = round(100 * (high - low) / (1 - low)) if high > low and matches else 0
            expected = f"{'+' if progress[1] > progress[0] else '-'}{percent}" if percent else "0"
            assert assistant["content"] == expected, (progress, line)
            kinds[f"pair {matches}"] += 1
    assert min(kinds[k] for k in ("done True", "done False", "pair True", "pair False")) >= 2
    assert sum(counts["train.jsonl"].values()) == len(lines)


def test_done_answers_are_balanced_and_pairs_come_both_ways(bank: EpisodeDataset, tmp_path: Path) -> None:
    counts = export_ms_swift(bank, tmp_path / "out", SwiftOptions(mismatch_share=0.0))["train.jsonl"]
    assert counts["done/0"] == counts["done/1"] >= 8
    assert counts["pair/+"] == counts["pair/-"] >= 20
    pairs = Counter(
        tuple(line["images"])
        for line in read_lines(tmp_path / "out" / "train.jsonl")
        if len(line["images"]) == 2
    )
    assert all(pairs[images[::-1]] == count for images, count in pairs.items())


def test_held_out_starts_share_no_picture_with_training(bank: EpisodeDataset, tmp_path: Path) -> None:
    export_ms_swift(bank, tmp_path / "out", held_out_init_states=[2, 3])
    train, val = (read_lines(tmp_path / "out" / name) for name in ("train.jsonl", "val.jsonl"))
    seen, held_out = ({image for line in lines for image in line["images"]} for lines in (train, val))
    assert seen
    assert held_out
    assert not seen & held_out
    assert all("-i02-" in image or "-i03-" in image for image in held_out)


def test_the_same_seed_draws_the_same_prompts(bank: EpisodeDataset, tmp_path: Path) -> None:
    texts = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        export_ms_swift(bank, tmp_path / folder, SwiftOptions(seed=seed))
        texts.append((tmp_path / folder / "train.jsonl").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_impossible_swift_exports_are_refused(bank: EpisodeDataset, tmp_path: Path) -> None:
    one_task = bank.select(lambda entry: entry.meta.task_id == 0)
    with pytest.raises(ConfigError, match=r"need two tasks, .* has 1"):
        export_ms_swift(one_task, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"has no camera 'wrist'; it has \['agentview'\]"):
        export_ms_swift(bank, tmp_path / "out", SwiftOptions(camera="wrist"))
    failures = bank.select(lambda entry: not entry.succeeded)
    with pytest.raises(ConfigError, match=r"train.jsonl would be empty: 4 episodes"):
        export_ms_swift(failures, tmp_path / "out", SwiftOptions(pairs_per_episode=0))
    with pytest.raises(ConfigError, match=r"mismatch_share in \[0, 0.5\], got 0.9"):
        SwiftOptions(mismatch_share=0.9)
    with pytest.raises(ConfigError, match=">= 0, got -1"):
        SwiftOptions(done_per_episode=-1)
    assert not (tmp_path / "out").exists()


def test_a_second_export_never_mixes_with_the_first(bank: EpisodeDataset, tmp_path: Path) -> None:
    export_ms_swift(bank, tmp_path / "out", held_out_init_states=[2, 3])
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    with pytest.raises(ConfigError, match=r"new or empty folder .* holds images, train.jsonl, val.jsonl"):
        export_ms_swift(bank, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


def test_demonstrations_become_a_lerobot_dataset(bank: EpisodeDataset, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "lerobot"
    assert export_lerobot(bank, out) == 4
    info = json.loads((out / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"]) == ("v3.0", 20)
    # Four successes, each up to the 15 actions that reach it.
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 60, 2)
    assert info["features"]["observation.images.agentview"] == {
        "dtype": "image", "shape": [6, 8, 3], "names": ["height", "width", "channels"],
        "info": {"image_convention": "upright"},
    }  # fmt: skip

    data = pq.read_table(out / info["data_path"].format(chunk_index=0, file_index=0))
    assert set(data.column_names) == set(info["features"])
    rows = data.to_pylist()
    assert [row["index"] for row in rows] == list(range(60))
    row = rows[15 + 14]
    assert (row["episode_index"], row["frame_index"]) == (1, 14)
    assert row["timestamp"] == pytest.approx(14 / 20)
    assert row["observation.state"] == [14.0 + i for i in range(8)]
    # The action of frame 14 is the one that leads to step 15.
    assert row["action"] == pytest.approx([-15 / 20] * 7)
    assert decode_frame(row["observation.images.agentview"]["bytes"])[0, 0].tolist() == [140] * 3

    episodes = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(e["dataset_from_index"], e["dataset_to_index"], e["length"]) for e in episodes] == [
        (0, 15, 15), (15, 30, 15), (30, 45, 15), (45, 60, 15),
    ]  # fmt: skip
    tasks = pq.read_table(out / "meta/tasks.parquet")
    assert dict(zip(tasks["task"].to_pylist(), tasks["task_index"].to_pylist())) == {
        "open the drawer": 0, "put the bowl on the plate": 1,
    }  # fmt: skip
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert {tasks["task"].to_pylist()[r["task_index"]] for r in rows[:30]} == {"put the bowl on the plate"}
    stats = json.loads((out / "meta/stats.json").read_text())
    assert stats["action"]["min"] == pytest.approx([-15 / 20] * 7)
    assert stats["action"]["max"] == pytest.approx([-1 / 20] * 7)
    assert stats["observation.state"]["mean"] == pytest.approx([7.0 + i for i in range(8)])
    # Four times the actions -1/20 … -15/20: the 1 % quantile lies between copies of -15/20.
    quantiles = {"q01": -0.75, "q10": -0.7, "q50": -0.4, "q90": -0.1, "q99": -0.05}
    for name, value in quantiles.items():
        assert stats["action"][name] == pytest.approx([value] * 7), name
    assert stats["frame_index"]["q99"] == pytest.approx([14.0])
    # Of each episode every picture, grey 0, 10, …, 140.
    pixels = stats["observation.images.agentview"]
    levels = {"min": 0, "max": 140, "mean": 70, "q01": 0, "q10": 10, "q50": 70, "q90": 130, "q99": 140}
    for name, level in levels.items():
        assert pixels[name] == [[[pytest.approx(level / 255)]]] * 3, name
    assert pixels["std"] == [[[pytest.approx(np.sqrt(1866.6667) / 255)]]] * 3
    assert pixels["count"] == [60]


def test_lerobot_is_given_the_actions_without_noise(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    record(tmp_path / "bank", 0, 0, succeeds=True)
    (episode,) = EpisodeDataset.open(tmp_path / "bank")
    write_episode(tmp_path / "noisy", dataclasses.replace(episode, clean_actions=episode.actions + 0.5))
    assert export_lerobot(EpisodeDataset.open(tmp_path / "noisy"), tmp_path / "out") == 1
    row = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet").to_pylist()[14]
    assert row["action"] == pytest.approx([-15 / 20 + 0.5] * 7)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_lerobot_pictures_are_mirrored_on_demand(tmp_path: Path, encoding: FrameEncoding) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    out, bank = tmp_path / "lerobot", tmp_path / "bank"
    record(bank, 0, 0, succeeds=True, encoding=encoding, slant=10)
    assert (
        export_lerobot(EpisodeDataset.open(bank), out, image_convention=ImageConvention.RAW_ROTATED_180) == 1
    )
    info = json.loads((out / "meta/info.json").read_text())
    assert info["features"]["observation.images.agentview"]["info"] == {"image_convention": "raw_rotated_180"}
    picture = pq.read_table(out / "data/chunk-000/file-000.parquet").to_pylist()[5]
    data = picture["observation.images.agentview"]["bytes"]
    assert data.startswith({"png": b"\x89PNG", "jpeg": b"\xff\xd8"}[encoding])
    # Step 5 is grey 50 at the left and 10 more in each of the 8 columns: mirrored, the left edge is the brightest.
    tolerance = {"png": 0, "jpeg": 2}[encoding]
    expected = np.arange(120, 40, -10)[:, None].repeat(3, axis=1)
    assert np.abs(decode_frame(data)[0].astype(int) - expected).max() <= tolerance


def test_impossible_lerobot_exports_are_refused(bank: EpisodeDataset, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    failures = bank.select(lambda entry: not entry.succeeded)
    with pytest.raises(ConfigError, match="no honest attempt"):
        export_lerobot(failures, tmp_path / "out")
    sparse = tmp_path / "sparse"
    record(sparse, 0, 0, succeeds=True, stride=2)
    with pytest.raises(ConfigError, match="--frame-stride-steps 1"):
        export_lerobot(EpisodeDataset.open(sparse), tmp_path / "out")
    solved = tmp_path / "solved"
    record(solved, 0, 0, succeeds=True, first_success_step=0)
    with pytest.raises(ConfigError, match="no honest attempt"):
        export_lerobot(EpisodeDataset.open(solved), tmp_path / "out")
    record(bank.root, 0, 9, succeeds=True, camera="wrist")
    with pytest.raises(ConfigError, match=r"agentview.* in every demonstration .*-i09-.* has .*wrist"):
        export_lerobot(EpisodeDataset.open(bank.root), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_lerobot(bank, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"new or empty folder .* holds data, meta"):
        export_lerobot(bank, tmp_path / "out")


def test_the_command_exports(
    bank: EpisodeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlac_gym.cli import main

    arguments = [
        "export",
        "--format",
        "ms-swift",
        "--episodes",
        str(bank.root),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--held-out-init-states", "2-3"]) == 0
    shown = capsys.readouterr().out
    assert "train.jsonl" in shown
    assert "val.jsonl" in shown
    assert "done/1" in shown
    folder = tmp_path / "out"
    assert f"ROOT_IMAGE_DIR={folder} swift sft --dataset {folder}/train.jsonl --val_dataset" in shown
    assert main(arguments) == 2
    assert "nothing is overwritten" in " ".join(capsys.readouterr().err.split())


def test_options_of_the_other_format_are_refused(
    bank: EpisodeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlac_gym.cli import main

    given = ["export", "--episodes", str(bank.root), "--out", str(tmp_path / "out")]
    assert main([*given, "--format", "lerobot", "--camera", "wrist", "--seed", "1"]) == 2
    assert "--camera, --seed: only --format ms-swift" in " ".join(capsys.readouterr().err.split())
    assert main([*given, "--format", "ms-swift", "--image-convention", "raw_rotated_180"]) == 2
    assert "--image-convention: only --format lerobot" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    assert main([*given, "--format", "lerobot", "--image-convention", "raw_rotated_180"]) == 0
    assert "4 demonstrations" in capsys.readouterr().out
    info = (tmp_path / "out/meta/info.json").read_text()
    assert "raw_rotated_180" in info


def test_pairs_are_drawn_of_no_episode_whose_progress_is_unknown(tmp_path: Path) -> None:
    root = tmp_path / "bank"
    for start in range(2):
        record(root, 0, start, succeeds=True)
        record(root, 0, 2 + start, succeeds=False)
    for episode in EpisodeDataset.open(root):
        if not episode.success.any():
            write_episode(root, with_verdict(episode, None))
    options = SwiftOptions(mismatch_share=0.0, pairs_per_episode=3, done_per_episode=4)
    export_ms_swift(EpisodeDataset.open(root), tmp_path / "swift", options)
    lines = read_lines(tmp_path / "swift" / "train.jsonl")
    assert sum(len(line["images"]) == 2 for line in lines) == 12  # 3 pairs of each of 2 successes, both ways
