"""The command on the real simulator, with small pictures and few steps."""

import json
import signal
import subprocess
import sys
import time

import imageio_ffmpeg

from vlac_gym.cli import main

# The interpreter that runs the tests may ignore SIGINT (a background job does); the command must not.
_MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from vlac_gym.cli import main; sys.exit(main(sys.argv[1:]))"
)
_SMALL = ["--policy", "random", "--image-size", "64", "--max-episode-steps"]


def _check_run_is_whole(out, steps: int) -> list[dict]:
    summary = json.loads((out / "summary.json").read_text())
    rows = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    expected = [(e["episode"], step) for e in summary["episodes"] for step in range(1, steps + 1)]
    assert [(row["episode"], row["step"]) for row in rows] == expected
    for episode in summary["episodes"]:
        frames, _ = imageio_ffmpeg.count_frames_and_secs(str(out / episode["video"]))
        assert frames == steps + 1 + 30
        assert (out / episode["plot"]).read_bytes()[:4] == b"\x89PNG"
    assert not list(out.glob(".partial*"))
    return summary["episodes"]


def test_train_and_eval_episodes_of_libero_are_written(tmp_path):
    for mode in ("train", "eval"):
        assert main(["rollout", "--out", str(tmp_path / mode), "--mode", mode, *_SMALL, "6"]) == 0

    (trained,) = _check_run_is_whole(tmp_path / "train", steps=6)
    (evaluated,) = _check_run_is_whole(tmp_path / "eval", steps=6)
    assert trained["critic"]["value_frame_steps"] == [0, 5, 6]
    assert trained["return"] == trained["critic"]["values"][-1]
    assert evaluated["critic"]["calls"] == 0
    same = ("task", "task_suite", "task_id", "init_state_id", "seed", "steps", "success")
    assert {key: trained[key] for key in same} == {key: evaluated[key] for key in same}
    actions = [
        [json.loads(line)["action"] for line in (tmp_path / mode / "steps.jsonl").read_text().splitlines()]
        for mode in ("train", "eval")
    ]
    assert actions[0] == actions[1]


def test_interrupted_run_keeps_every_finished_episode_whole(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-c", _MAIN, "rollout", "--out", str(out), "--episodes", "500", *_SMALL, "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 240
        while not (out / "episode-001.mp4").exists() and process.poll() is None:
            assert time.monotonic() < deadline, "no second episode in 240 s"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=120)
    finally:
        process.kill()

    assert process.returncode == 130, errors
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert len(_check_run_is_whole(out, steps=3)) >= 2  # the interrupt came while episode 1 was being written
    assert "interrupted; what was finished is kept" in errors
    assert str(out / "index.html") in printed
