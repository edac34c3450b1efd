"""Episode files: what is written is what is read, and nothing half-written is ever seen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlac_gym.data import Episode, EpisodeDataset, EpisodeMeta, read_episode, write_episode
from vlac_gym.data.recorder import EpisodeRecorder
from vlac_gym.errors import ConfigError


def gradient_frame(offset: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[0:24, 0:32]
    return np.stack([rows * 8, columns * 7, np.full_like(rows, offset)], axis=2).astype(np.uint8)


def make_episode(init_state_id: int = 0, task_id: int = 3, encoding: str = "png", **meta: object) -> Episode:
    """Four steps, a frame every second one; success at step 2, lost again at step 4."""
    fields = {"policy": "expert", "imperfection": "none", "seed": 7, "frame_stride_steps": 2, **meta}
    recorder = EpisodeRecorder(
        EpisodeMeta("libero_spatial", task_id, "grasp the bowl", init_state_id, encoding=encoding, **fields)
    )
    for step, (success, progress) in enumerate(
        [(False, 0.0), (False, 0.5), (True, 1.0), (True, 1.0), (False, 0.75)]
    ):
        frames = {"agentview": gradient_frame(step), "wrist": gradient_frame(100 + step)}
        recorder.add(
            state=np.full(8, step, np.float32),
            info={"success": success, "goal_progress": progress},
            frames=frames if step % 2 == 0 else None,
            stage="reach" if step else "",
            action=np.full(7, step / 10, np.float32) if step else None,
        )
    return recorder.finish(note="über")


def test_an_episode_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = make_episode()
    episode = read_episode(write_episode(tmp_path, written))
    assert episode.meta == written.meta
    assert episode.meta.details == {"note": "über"}
    for name in ("actions", "states", "success", "goal_progress", "stages", "frame_steps"):
        np.testing.assert_array_equal(getattr(episode, name), getattr(written, name))
        assert getattr(episode, name).dtype == getattr(written, name).dtype
    assert list(episode.frames) == ["agentview", "wrist"]
    np.testing.assert_array_equal(episode.view("wrist")[1], gradient_frame(102))
    np.testing.assert_array_equal(episode.view()[-1], gradient_frame(4))
    assert (episode.num_steps, episode.first_success_step) == (4, 2)
    assert episode.is_undone
    assert not episode.ends_in_success


def test_an_episode_file_needs_no_pickle(tmp_path: Path) -> None:
    path = write_episode(tmp_path, make_episode())
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files)[:2] == ["actions", "frame_steps"]
        assert json.loads(archive["meta"].tobytes())["format"] == 1


def test_a_failed_write_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        np, "savez", lambda file, **_: file.write(b"half") and (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        write_episode(tmp_path, make_episode())
    assert list((tmp_path / "episodes").iterdir()) == []


def test_info_at_gives_the_simulators_signals_of_a_step() -> None:
    info = make_episode().info_at(1)
    assert info["success"] is False
    assert (info["goal_progress"], info["elapsed_steps"], info["task"]) == (0.5, 1, "grasp the bowl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": np.zeros(3, bool)}, "Expected 5 entries"),
        ({"goal_progress": np.full(5, np.nan, np.float32)}, r"goal_progress in \[0, 1\]"),
        ({"frame_steps": np.array([0, 2, 3], np.int32)}, "rising from 0 to 4"),
        ({"frame_steps": np.array([0, 4], np.int32)}, "Expected 2 frames of camera 'agentview', got 3"),
    ],
)
def test_an_inconsistent_episode_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(make_episode(), **change)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_episode(tmp_path, make_episode())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=path.name):
        EpisodeDataset.open(tmp_path)


def test_another_format_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = make_episode()
    monkeypatch.setattr("vlac_gym.data.episodes.EPISODE_FORMAT", 3)
    path = write_episode(tmp_path, replace(episode, clean_actions=episode.actions))
    monkeypatch.setattr("vlac_gym.data.episodes.EPISODE_FORMAT", 2)
    with pytest.raises(ConfigError, match="Expected episode format 1 to 2, got 3"):
        read_episode(path)


def test_only_an_episode_with_clean_actions_needs_the_newer_format(tmp_path: Path) -> None:
    episode = make_episode()
    plain = read_episode(write_episode(tmp_path / "plain", episode))
    assert plain.clean_actions is None
    assert plain.label_actions is plain.actions
    noisy = replace(episode, clean_actions=episode.actions + 1)
    path = write_episode(tmp_path / "noisy", noisy)
    again = read_episode(path)
    np.testing.assert_array_equal(again.label_actions, episode.actions + 1)
    np.testing.assert_array_equal(again.actions, episode.actions)
    formats = []
    for folder in ("plain", "noisy"):
        with np.load(tmp_path / folder / "episodes" / path.name) as archive:
            formats.append(json.loads(archive["meta"].tobytes())["format"])
    assert formats == [1, 2]
    with pytest.raises(ConfigError, match=r"clean_actions of shape \(\d+, 7\), as actions"):
        replace(episode, clean_actions=episode.actions[:-1])


def test_recording_needs_the_reset_first() -> None:
    recorder = EpisodeRecorder(EpisodeMeta("s", 0, "task", 0, "expert"))
    with pytest.raises(ConfigError, match="reset first"):
        recorder.add(np.zeros(8), {"success": False, "goal_progress": 0.0}, None, action=np.zeros(7))


def write_grid(root: Path) -> None:
    for task_id in (0, 1):
        for init_state_id in (0, 1, 2):
            write_episode(root, make_episode(init_state_id, task_id))


def test_splits_keep_whole_init_states_and_whole_tasks_apart(tmp_path: Path) -> None:
    write_grid(tmp_path)
    dataset = EpisodeDataset.open(tmp_path)
    train, held_out = dataset.split_by_init_state([2])
    assert (len(train), len(held_out)) == (4, 2)
    assert {e.meta.init_state_id for e in train.entries} == {0, 1}
    assert {e.meta.init_state_id for e in held_out.entries} == {2}
    train, held_out = dataset.split_by_task([("libero_spatial", 0)])
    assert {e.meta.task_id for e in train.entries} == {1}
    assert {e.meta.task_id for e in held_out.entries} == {0}
    with pytest.raises(ConfigError, match=r"held-out part of .* empty \(6 episodes"):
        dataset.split_by_init_state([9])
    with pytest.raises(ConfigError, match="rest of"):
        dataset.split_by_init_state(range(3))


def test_the_summary_counts_what_is_there(tmp_path: Path) -> None:
    write_grid(tmp_path)
    assert EpisodeDataset.open(tmp_path).summary() == {
        "episodes": 6, "steps": 24, "frames": 18, "successes": 6, "undone": 6, "imperfection/none": 6,
    }  # fmt: skip


def test_the_manifest_spares_a_scan_but_never_overrules_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_grid(tmp_path)
    EpisodeDataset.open(tmp_path).write_manifest()
    replaced = make_episode(0, 0)
    write_episode(tmp_path, replace(replaced, success=np.zeros(5, bool)))
    looked_at: list[str] = []
    from vlac_gym.data import dataset as module

    real = module.read_meta
    monkeypatch.setattr(module, "read_meta", lambda path: looked_at.append(path.name) or real(path))
    dataset = EpisodeDataset.open(tmp_path)
    assert looked_at == ["libero_spatial-t00-i00-expert-none-s7.npz"]
    assert [entry.succeeded for entry in dataset.entries] == [False, True, True, True, True, True]
    (tmp_path / "manifest.json").write_text("{half")
    assert len(EpisodeDataset.open(tmp_path)) == 6


def test_opening_what_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vlac-gym collect --out"):
        EpisodeDataset.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no episode"):
        EpisodeDataset.open(tmp_path)
