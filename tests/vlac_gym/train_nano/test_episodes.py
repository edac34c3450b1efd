"""Episodes of several folders: which are kept back, which are fresh, and whose labels they carry."""

from pathlib import Path

import pytest
from recorded_bank import record

from vlac_gym.data import EpisodeDataset
from vlac_gym.errors import ConfigError
from vlac_gym.train_nano.episodes import read_training_episodes


def test_folders_are_split_by_state_and_those_after_the_first_are_fresh(tmp_path: Path) -> None:
    for start in range(3):
        record(tmp_path / "bank", 0, start, succeeds=True)
    record(tmp_path / "own", 0, 1, succeeds=False, policy="clone")
    record(tmp_path / "own", 0, 2, succeeds=False, policy="clone")
    names = [entry.meta.episode_id for entry in EpisodeDataset.open(tmp_path / "own").entries]
    found = read_training_episodes([tmp_path / "bank", tmp_path / "own"], [2], {names[0]: 10})
    assert [(e.meta.init_state_id, e.meta.policy, e.first_success_step) for e in found.train] == [
        (0, "expert", 25), (1, "expert", 25), (1, "clone", 10),
    ]  # fmt: skip
    assert [(e.meta.policy, e.first_success_step) for e in found.validation] == [
        ("expert", 25),
        ("clone", None),
    ]
    assert found.num_old == 2


def test_what_cant_be_trained_on_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "bank", 0, 0, succeeds=True)
    record(tmp_path / "bank", 0, 1, succeeds=True)
    with pytest.raises(ConfigError, match=r"Expected episodes for validation, but keeping .*\[7\]"):
        read_training_episodes([tmp_path / "bank"], [7])
    with pytest.raises(ConfigError, match="got 1 about others, such as 'strange'"):
        read_training_episodes([tmp_path / "bank"], [1], {"strange": 3})


def test_all_views_are_trained_on_one_by_one(tmp_path: Path) -> None:
    record(tmp_path / "bank", 0, 0, succeeds=True, views=("agentview", "wrist"))
    record(tmp_path / "bank", 0, 1, succeeds=True, views=("agentview", "wrist"))
    record(tmp_path / "own", 0, 2, succeeds=False, views=("wrist",))
    folders = [tmp_path / "bank", tmp_path / "own"]
    found = read_training_episodes(folders, [1], all_views=True)
    assert [list(episode.frames) for episode in found.train] == [["agentview"], ["wrist"], ["wrist"]]
    assert [list(episode.frames) for episode in found.validation] == [["agentview"], ["wrist"]]
    assert found.num_old == 2
    assert len(read_training_episodes(folders, [1]).train) == 2
