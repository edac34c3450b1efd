"""One-shot references: which episode is shown, to whom, and what the card says of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from seeing_critic import SeeingCritic

from vlac_gym.critic.wrapper import adapted
from vlac_gym.data import EpisodeDataset, EpisodeMeta
from vlac_gym.errors import ConfigError
from vlac_gym.report_card.card import CardConfig, make_card
from vlac_gym.report_card.page import write_card
from vlac_gym.report_card.references import ReferencePicker, reads_references
from vlac_gym.types import CriticInfo

CONFIG = CardConfig(resamples=10, probe_episodes=2, cost_repeats=1)


class OneShotCritic(SeeingCritic):
    """Says that it reads references and keeps which (task, start) they came from, None for none."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[str, tuple[int, int], tuple[int, int] | None]] = []

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> Any:
        if len(before):
            self._note("progress", before[0], references)
        return super().progress(before, after, tasks)

    def value(self, frames: Any, task: str, references: Any = None) -> Any:
        self._note("value", frames[0], references)
        return super().value(frames, task)

    def describe(self) -> CriticInfo:
        return CriticInfo("one-shot", details={"num_references": 0})

    def _note(self, kind: str, frame: Any, references: Any) -> None:
        came_from = None if references is None else tuple(references[0][0, 0, :2].tolist())
        self.shown.append((kind, tuple(frame[0, 0, :2].tolist()), came_from))


@pytest.fixture
def dataset(tmp_path: Path, record: Callable[..., None]) -> EpisodeDataset:
    """Task 0 succeeds from starts 1 (spoilt), 3 and 5, and fails from 3; task 1 succeeds from start 2 alone."""
    record(tmp_path, 0, 1, succeeds=True, kind="drop")
    record(tmp_path, 0, 5, succeeds=True)
    record(tmp_path, 0, 3, succeeds=True)
    record(tmp_path, 0, 3, succeeds=False, kind="stop")
    record(tmp_path, 1, 2, succeeds=True)
    return EpisodeDataset.open(tmp_path)


def meta(task_id: int, init_state_id: int) -> EpisodeMeta:
    return EpisodeMeta("libero_spatial", task_id, "t", init_state_id, policy="expert")


def test_an_honest_success_of_another_start_is_spread_up_to_its_success(dataset: EpisodeDataset) -> None:
    picker = ReferencePicker(dataset)
    frames = picker.frames_for(meta(0, 0))
    assert frames is not None
    assert {tuple(frame[0, 0, :2]) for frame in frames} == {(0, 3)}
    # Success at step 25: every 25 / 8 = 3.125 steps, cut to whole ones.
    assert [int(frame[0, 1, 0]) for frame in frames] == [0, 3, 6, 9, 12, 15, 18, 21, 25]
    assert picker.frames_for(meta(0, 0)) is frames


def test_never_an_episode_of_the_same_start_or_another_task(dataset: EpisodeDataset) -> None:
    picker = ReferencePicker(dataset)
    frames = picker.frames_for(meta(0, 3))
    assert frames is not None
    assert tuple(frames[0][0, 0, :2]) == (0, 5)
    assert picker.frames_for(meta(1, 2)) is None
    assert picker.frames_for(meta(2, 0)) is None
    only_spoilt = ReferencePicker(dataset.select(lambda entry: entry.meta.init_state_id == 1))
    spoilt = only_spoilt.frames_for(meta(0, 0))
    assert spoilt is not None
    assert tuple(spoilt[0][0, 0, :2]) == (0, 1)


def test_a_reference_without_the_judged_view_is_refused(dataset: EpisodeDataset) -> None:
    with pytest.raises(ConfigError, match="has no camera 'wrist'"):
        ReferencePicker(dataset, "wrist").frames_for(meta(0, 0))


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (None, False),
        ({"reading": "exact"}, False),
        ({"num_references": 0}, True),
        ({"urls": ["http://host:8400"]}, False),
    ],
)
def test_a_critic_says_whether_it_reads_references(details: Any, expected: bool) -> None:
    assert reads_references(CriticInfo("x", details=details)) is expected


def test_values_and_pairs_are_judged_one_shot_and_counted(dataset: EpisodeDataset, tmp_path: Path) -> None:
    critic = OneShotCritic()
    card = make_card(critic, "one-shot", dataset, CONFIG, references=dataset)
    assert card.content["references"] == {
        "path": str(dataset.root), "frames": 9, "judged_with": 4, "judged_without": 1,
    }  # fmt: skip
    assert set(critic.shown) == {
        (kind, judged, came_from)
        for kind in ("value", "progress")
        for judged, came_from in (((0, 1), (0, 3)), ((0, 3), (0, 5)), ((0, 5), (0, 3)), ((1, 2), None))
    }
    assert [episode.num_references for episode in card.judged] == [9, 9, 9, 9, 0]
    _, page = write_card(card, tmp_path / "card")
    text = page.read_text()
    assert "values and pairs of 4 episodes were judged with 9 frames" in text
    assert "another start; for 1 there was none." in text


def test_without_references_none_are_shown(dataset: EpisodeDataset) -> None:
    critic = OneShotCritic()
    card = make_card(critic, "one-shot", dataset, CONFIG)
    assert card.content["references"] is None
    assert {came_from for _, _, came_from in critic.shown} == {None}


def test_a_critic_that_reads_none_is_refused_before_anything_is_asked(dataset: EpisodeDataset) -> None:
    critic = SeeingCritic()
    with pytest.raises(ConfigError, match=r"reads reference frames .*got 'seeing'"):
        make_card(critic, "seeing", dataset, CONFIG, references=dataset)
    assert critic.texts == []


def test_the_command_judges_one_shot(
    dataset: EpisodeDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vlac_gym.cli import main

    out = tmp_path / "out"
    arguments = ["report-card", "--critic", "oracle", "--out", str(out), "--episodes", str(dataset.root)]
    assert main([*arguments, "--references", str(dataset.root)]) == 2
    assert "Expected --references with --one-shot" in capsys.readouterr().err
    assert main([*arguments, "--one-shot"]) == 2
    assert "reads reference frames" in capsys.readouterr().err
    assert not out.exists()
    critic = OneShotCritic()
    monkeypatch.setattr("vlac_gym.cli.report_card.make_critic", lambda spec: adapted(critic))
    # Start 3 alone is judged, but the whole folder may be shown.
    assert main([*arguments, "--one-shot", "--init-states", "3"]) == 0
    assert {came_from for _, _, came_from in critic.shown} == {(0, 5)}
