"""Other recorded views of the same moments against the judged one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from seeing_critic import SeeingCritic

from vlac_gym.data import EpisodeDataset
from vlac_gym.errors import CriticResponseError
from vlac_gym.report_card.card import CardConfig, make_card
from vlac_gym.report_card.names import label_of
from vlac_gym.report_card.robustness_section import picture_change

CONFIG = CardConfig(resamples=10, cost_repeats=0)


@pytest.fixture
def two_views(tmp_path: Path, record: Callable[..., None]) -> EpisodeDataset:
    """Two successes and two failures in three views."""
    views = ("agentview", "wrist", "agentview@shadow")
    for start in range(2):
        record(tmp_path, 0, start, succeeds=True, views=views)
        record(tmp_path, 0, start, succeeds=False, kind="stop", views=views)
    return EpisodeDataset.open(tmp_path)


def robustness(dataset: EpisodeDataset, **changes: Any) -> Any:
    config = CardConfig(resamples=10, cost_repeats=0, **changes)
    return make_card(SeeingCritic(), "seeing", dataset, config).content["sections"]["robustness"]


def test_flips_and_balanced_accuracy_by_hand() -> None:
    # Verdicts yes yes no no; changed: yes no yes no. Two of four differ; TPR 1/2 and TNR 1/2.
    numbers = picture_change([0.95, 0.95, 0.1, 0.1], [0.9, 0.89, 0.95, 0.1], [True, True, False, False], 0.9)
    assert numbers["flip_rate"].value == 0.5
    assert numbers["flip_rate"].interval == "wilson"
    assert numbers["balanced_accuracy"].value == 0.5
    # Three successes of which two are found, one failure that is found: (2/3 + 1) / 2.
    uneven = picture_change([1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], 0.5)
    assert uneven["balanced_accuracy"].value == pytest.approx(5 / 6)
    assert picture_change([1, 1], [1, 1], [1, 1], 0.5)["balanced_accuracy"].value is None


def test_every_other_view_is_compared_with_the_judged_one(two_views: EpisodeDataset) -> None:
    found = robustness(two_views)
    assert found["unchanged"]["balanced_accuracy"]["value"] == 1.0
    assert list(found["views"]) == ["wrist", "agentview@shadow"]
    # The wrist sees no success: both successes flip to "no".
    assert found["views"]["wrist"]["flip_rate"]["value"] == 0.5
    assert found["views"]["wrist"]["balanced_accuracy"]["value"] == 0.5
    assert found["views"]["agentview@shadow"]["flip_rate"]["value"] == 0.0
    assert found["views"]["agentview@shadow"]["balanced_accuracy"]["value"] == 1.0


def test_the_judged_view_may_be_any(two_views: EpisodeDataset) -> None:
    found = robustness(two_views, camera="wrist")
    assert found["unchanged"]["balanced_accuracy"]["value"] == 0.5
    assert list(found["views"]) == ["agentview", "agentview@shadow"]
    assert found["views"]["agentview"]["flip_rate"]["value"] == 0.5


def test_an_unusable_answer_to_a_wording_leaves_the_other_answers_in(two_views: EpisodeDataset) -> None:
    class DeafToCapitals(SeeingCritic):
        def success_prob(self, frames: Any, tasks: Any) -> Any:
            if any(task.isupper() for task in tasks):
                raise CriticResponseError("no number")
            return super().success_prob(frames, tasks)

    found = make_card(DeafToCapitals(), "x", two_views, CONFIG).content["sections"]["robustness"]
    wordings = found["unusable_paraphrase_answers"]["n"]
    assert found["unusable_paraphrase_answers"]["value"] == 4 / wordings  # capitals, once for each episode
    assert wordings >= 12
    # "please" makes this critic say no: both successes flip, both failures stay.
    assert (found["paraphrase_flip_rate"]["value"], found["paraphrase_flip_rate"]["n"]) == (0.5, 4)
    assert found["jpeg_30"]["flip_rate"]["n"] == 4


def test_views_without_any_usable_answer_are_refused_with_that_reason(two_views: EpisodeDataset) -> None:
    class MuteAboutLastFrames(SeeingCritic):
        def success_prob(self, frames: Any, tasks: Any) -> Any:
            raise CriticResponseError("no number")

    views = make_card(MuteAboutLastFrames(), "x", two_views, CONFIG).content["sections"]["robustness"][
        "views"
    ]
    assert (views["value"], views["reason"]) == (None, "no other view got a usable answer")


def test_a_view_without_usable_answers_leaves_those_episodes_out(two_views: EpisodeDataset) -> None:
    class MuteAboutBlindFrames(SeeingCritic):
        def success_prob(self, frames: Any, tasks: Any) -> Any:
            if any(f[0, 0, 2] >= 10 and f[0, 1, 0] == 40 and not f[0, 1, 1] for f in frames):
                raise CriticResponseError("too dark")
            return super().success_prob(frames, tasks)

    content = make_card(MuteAboutBlindFrames(), "x", two_views, CONFIG).content
    views = content["sections"]["robustness"]["views"]
    assert (
        views["wrist"]["flip_rate"]["n"] == 2
    )  # the failures; the successes' last wrist frames bring no answer
    assert views["agentview@shadow"]["flip_rate"]["n"] == 4


def test_a_single_view_is_refused_with_what_to_do(bank: EpisodeDataset, two_views: EpisodeDataset) -> None:
    alone = robustness(bank.select(lambda entry: entry.meta.task_id == 0))["views"]
    assert alone["value"] is None
    assert alone["reason"].startswith("only one view is recorded; collect with --cameras agentview wrist")
    assert robustness(two_views, probe_episodes=0)["views"]["reason"] == "no episode was probed"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("agentview@diffuse", "agentview in a warm light"),
        ("wrist@shadow", "wrist with shadows"),
        ("batch_16", "batch of 16"),
        ("wrist", "wrist"),
        ("flip_rate", "verdict flips"),
    ],
)
def test_views_have_names_for_readers(name: str, label: str) -> None:
    assert label_of(name) == label
