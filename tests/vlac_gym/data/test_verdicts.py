"""A person's labels: what the file may hold, and what they make of an episode."""

from pathlib import Path

import numpy as np
import pytest
from recorded_bank import record

from vlac_gym.data import EpisodeDataset
from vlac_gym.data.verdicts import HAS_VERDICT, read_verdicts, with_verdict
from vlac_gym.errors import ConfigError


def test_a_step_is_a_success_from_there_on_and_nothing_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.csv"
    file.write_text("episode_id,success_step,who\nfirst,30,Ada\nsecond,,Ada\n")
    assert read_verdicts(file) == {"first": 30, "second": None}
    record(tmp_path, 0, 0, succeeds=True)  # success from step 25 on, of 40
    (episode,) = EpisodeDataset.open(tmp_path)
    late = with_verdict(episode, 30)
    assert (late.first_success_step, int(late.success.sum())) == (30, 11)
    np.testing.assert_array_equal(late.goal_progress, late.success.astype(np.float32))
    assert late.meta.details[HAS_VERDICT] is True
    assert not with_verdict(episode, None).success.any()
    assert HAS_VERDICT not in episode.meta.details
    with pytest.raises(ConfigError, match=r"Expected success_step from 0 to 40 of episode .*, got 41"):
        with_verdict(episode, 41)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("episode,success_step\na,1\n", "Expected the columns episode_id, success_step"),
        ("episode_id,success_step\na,1\na,\n", "'a' again in line 3"),
        ("episode_id,success_step\na,soon\n", "in line 2 of .*, got 'soon'"),
        ("", "Expected the columns"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "verdicts.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_verdicts(tmp_path / "verdicts.csv")
    with pytest.raises(ConfigError, match="Expected a CSV file of verdicts"):
        read_verdicts(tmp_path / "absent.csv")
