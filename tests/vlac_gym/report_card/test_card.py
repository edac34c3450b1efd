"""The whole card: it recovers what is known of a critic, refuses what it can't know, and feeds the wrapper."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeing_critic import SeeingCritic

from vlac_gym.critic import make_critic
from vlac_gym.critic.base import Critic
from vlac_gym.data import EpisodeDataset, write_episode
from vlac_gym.data.verdicts import HAS_VERDICT, with_verdict
from vlac_gym.errors import ConfigError, CriticResponseError
from vlac_gym.report_card.asking import AskedCritic
from vlac_gym.report_card.card import CardConfig, ReportCard, make_card
from vlac_gym.report_card.mistakes import film_strip, worst_mistakes
from vlac_gym.report_card.names import HEADLINES, SECTIONS
from vlac_gym.report_card.page import _budget_verdict, render_card, write_card
from vlac_gym.report_card.probes import paraphrases
from vlac_gym.report_card.sections import Bootstrap, episode_mean
from vlac_gym.report_card.termination import StopRule
from vlac_gym.rule.calibration import load_calibration
from vlac_gym.rule.reward import training_rule
from vlac_gym.types import CriticInfo, CriticKnowledge

CONFIG = CardConfig(resamples=50, probe_episodes=6)


def card_of(spec: str, bank: EpisodeDataset) -> ReportCard:
    return make_card(make_critic(spec), spec, bank, CONFIG)


@pytest.fixture(scope="module")
def oracle_card(bank: EpisodeDataset) -> ReportCard:
    return card_of("oracle", bank)


@pytest.fixture(scope="module")
def noisy_card(bank: EpisodeDataset) -> ReportCard:
    return card_of("noisy_oracle:tpr=0.8,fpr=0.05,seed=3", bank)


def value(card: ReportCard, *path: str) -> Any:
    node: Any = card.content["sections"]
    for name in path:
        node = node[name]
    return node["value"]


def test_the_oracle_is_perfect(oracle_card: ReportCard) -> None:
    card = oracle_card
    head = {name: estimate["value"] for name, estimate in card.content["headline"].items()}
    assert head == {
        "done_auroc_frames": 1.0, "done_f1_frames": 1.0, "episode_f1": 1.0, "false_positive_rate": 0.0,
        "miss_rate": 0.0, "delay_steps_median": 0.0, "voc_successes": pytest.approx(1.0),
        # Undone episodes end with value 0.694, above every failure (0.8 -> 0.8), so ranking is not perfect here:
        # 16 successes at 1.0 beat all 32 others.
        "auroc_final_value": 1.0,
    }  # fmt: skip
    assert card.content["calibration"]["done_threshold"] == 0.9
    assert card.content["calibration"]["done_patience"] == 1
    assert card.content["calibration"]["done_interval"] == 1
    assert value(card, "progress", "dense_truth", "sign_accuracy") == 1.0
    assert value(card, "progress", "dense_truth", "regression_recall") == 1.0
    assert value(card, "termination", "success_once") == 0.5
    assert value(card, "termination", "success_at_end") == pytest.approx(16 / 48)


def test_the_card_recovers_a_noisy_oracles_rates(noisy_card: ReportCard) -> None:
    card = noisy_card
    # 24 episodes x 16 successful steps, less 8 x 6 undone ones; the other checks of 48 x 40 are failures.
    positives = 24 * 16 - 8 * 6
    negatives = 48 * 40 - positives
    tpr, fpr = value(card, "detection", "frames", "tpr"), value(card, "detection", "frames", "fpr")
    assert tpr == pytest.approx(0.8, abs=3 * (0.8 * 0.2 / positives) ** 0.5)
    assert fpr == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / negatives) ** 0.5)
    assert value(card, "detection", "frames", "youden_j") == pytest.approx(tpr - fpr)
    check_fpr = value(card, "termination", "check_fpr")
    assert check_fpr == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / 960) ** 0.5)
    assert value(card, "termination", "independent_episode_fpr") == pytest.approx(1 - (1 - check_fpr) ** 40)
    assert value(card, "termination", "false_positive_rate") == pytest.approx(1 - 0.95**40, abs=0.25)
    rule = card.content["calibration"]
    assert rule["done_patience"] >= 2
    assert rule["false_positive_rate"] <= rule["false_stop_budget"] == 0.03


def test_what_failures_and_missed_successes_end_with(oracle_card: ReportCard, bank: EpisodeDataset) -> None:
    failures = [episode for episode in bank if not episode.success.any()]
    by_kind = oracle_card.content["sections"]["training"]["final_value_of_failures_by_kind"]
    assert sorted(by_kind) == sorted({episode.meta.imperfection for episode in failures})
    for kind, estimate in by_kind.items():
        own = [e.goal_progress[-1] for e in failures if e.meta.imperfection == kind]
        assert estimate["value"] == pytest.approx(np.mean(own), abs=1e-6)
        assert estimate["n"] == len(own)
    of_all = np.mean([episode.goal_progress[-1] for episode in failures])
    assert value(oracle_card, "training", "final_value_of_failures") == pytest.approx(of_all, abs=1e-6)
    missed = oracle_card.content["sections"]["training"]["final_value_of_missed_successes"]
    assert (missed["value"], missed["reason"]) == (None, "the rule stops every episode that ends in success")
    blind = card_of("noisy_oracle:tpr=0", bank)  # never says done, and is as good about progress
    assert value(blind, "training", "final_value_of_missed_successes") == pytest.approx(1.0)
    missed = blind.content["sections"]["training"]["final_value_of_missed_successes"]
    assert missed["n"] == sum(episode.ends_in_success for episode in bank)


def test_delay_and_error_bursts_show(bank: EpisodeDataset) -> None:
    late = card_of("noisy_oracle:delay=4", bank)
    assert value(late, "termination", "delay_steps_median") == 4.0
    assert value(late, "termination", "miss_rate") == 0.0
    bursts = card_of("noisy_oracle:fpr=0.3,autocorrelation=0.95,seed=1", bank)
    assert value(bursts, "termination", "error_autocorrelation") > 0.5
    measured = value(bursts, "termination", "false_positive_rate")
    assert measured < value(bursts, "termination", "independent_episode_fpr")


def test_a_missing_class_is_refused_with_its_reason(bank: EpisodeDataset) -> None:
    failures = bank.select(lambda entry: not entry.succeeded)
    card = card_of("oracle", failures)
    frames = card.content["sections"]["detection"]["frames"]
    for name in ("auroc", "tpr", "f1", "youden_j", "cohen_kappa", "fpr_at_tpr_0.9"):
        assert frames[name]["value"] is None, name
        assert frames[name]["reason"], name
    assert frames["fpr"]["value"] == 0.0
    assert card.content["calibration"] is None
    assert card.content["calibration_reason"] == "there are no successful episodes to choose thresholds on"


def test_episodes_whose_progress_is_unknown_say_nothing_of_dense_truth(
    bank: EpisodeDataset, tmp_path: Path
) -> None:
    for episode in bank[8:16]:
        judged_by_hand = (
            with_verdict(episode, episode.first_success_step) if episode.meta.task_id == 0 else episode
        )
        write_episode(tmp_path, judged_by_hand)
    mixed = EpisodeDataset.open(tmp_path)
    card = card_of("oracle", mixed)
    # The oracle's values are the progress; against steps of 0 and 1 they would not be.
    assert value(card, "progress", "dense_truth", "spearman") == pytest.approx(1.0)
    known = sum(not entry.meta.details.get(HAS_VERDICT, False) for entry in mixed.entries)
    assert 0 < card.content["sections"]["progress"]["dense_truth"]["sign_accuracy"]["n"] == known < len(mixed)
    assert render_card(card)
    alone = card_of("oracle", mixed.select(lambda entry: entry.meta.details.get(HAS_VERDICT, False)))
    assert value(alone, "progress", "dense_truth", "spearman") is None
    assert value(alone, "detection", "frames", "tpr") == 1.0
    assert render_card(alone)


def test_a_budget_that_nothing_meets_is_said_so(bank: EpisodeDataset, tmp_path: Path) -> None:
    class AlwaysDone(SeeingCritic):
        def success_prob(self, frames: Any, tasks: Any) -> Any:
            return np.ones(len(frames), np.float32)

    card = make_card(AlwaysDone(), "always", bank, CONFIG)
    assert card.content["calibration"]["meets_budget"] is False
    assert "no rule keeps false stops" in card.content["calibration_reason"]
    path, _ = write_card(card, tmp_path)
    assert load_calibration(path).meets_budget is False


def test_the_recommendation_becomes_a_training_rule(noisy_card: ReportCard, tmp_path: Path) -> None:
    path, _ = write_card(noisy_card, tmp_path / "card")
    calibration = load_calibration(path)
    rule = training_rule("vlac", **calibration.rule_options())
    assert (rule.done_threshold, rule.done_patience) == (
        calibration.done_threshold,
        calibration.done_patience,
    )
    assert calibration.critic == "noisy_oracle:tpr=0.8,fpr=0.05,seed=3"
    assert calibration.critic_fingerprint == make_critic(calibration.critic).describe().fingerprint
    assert calibration.episodes == 48
    assert calibration.task_suites == ("libero_spatial",)


def test_the_wrapper_takes_the_card_as_its_calibration(noisy_card: ReportCard, tmp_path: Path) -> None:
    from vlac_gym.envs.scripted import ScriptedEnv
    from vlac_gym.wrappers import VLACRewardWrapper

    path, _ = write_card(noisy_card, tmp_path)
    patience = noisy_card.content["calibration"]["done_patience"]
    assert patience >= 2
    env = VLACRewardWrapper(
        ScriptedEnv(success_steps=range(5, 40), max_episode_steps=40),
        critic=make_critic("oracle"),
        calibration=str(path),
        on_critic_mismatch="warn",  # the card's critic is a noisy one
    )
    env.reset(seed=0)
    steps = 0
    terminated = False
    while not terminated:
        _, reward, terminated, truncated, _ = env.step(np.zeros(7, np.float32))
        steps += 1
        assert not truncated
    # Success from step 5 on is called after as many checks as the card demands, not before min_steps.
    assert steps == max(5 + patience - 1, noisy_card.content["calibration"]["min_steps"])
    assert reward == 1.0


def test_a_critic_is_measured_beyond_what_it_knows_on_demand_only(
    bank: EpisodeDataset, tmp_path: Path
) -> None:
    critic = SeeingCritic()
    knows = CriticKnowledge(task_suites=("libero_goal",), views=("wrist",))
    critic.describe = lambda: CriticInfo("seeing", knows=knows)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"a task of the suite 'libero_spatial'.*the view 'agentview'"):
        make_card(critic, "seeing", bank, CONFIG)
    assert critic.texts == []
    card = make_card(critic, "seeing", bank, CONFIG, on_critic_mismatch="warn")
    assert len(card.content["unknown_to_the_critic"]) == 2
    page = write_card(card, tmp_path)[1].read_text()
    assert "Measured beyond what this critic knows: it does not know a task of the suite" in page


def test_a_critic_that_sees_gets_its_robustness_measured(bank: EpisodeDataset) -> None:
    critic = SeeingCritic()
    assert isinstance(critic, Critic)
    card = make_card(critic, "seeing", bank, CONFIG)
    robustness = card.content["sections"]["robustness"]
    # The first six episodes are three starts' successes (the first of them undone) and failures: "please" turns
    # the verdict of the two successes that hold to the end.
    assert robustness["wrong_instruction_false_success"]["value"] == 1.0
    assert robustness["wrong_instruction_false_success"]["n"] == 2
    assert robustness["paraphrase_flip_rate"]["value"] == pytest.approx(2 / 6)
    # Upside down the marks are gone: every verdict is "no", and the two successes flip.
    assert robustness["rotated_180"]["flip_rate"]["value"] == pytest.approx(2 / 6)
    assert robustness["rotated_180"]["balanced_accuracy"]["value"] == 0.5
    assert "please pick up the bowl 0 and place it on the plate" in critic.texts
    assert "pick up the bowl 1 and place it on the plate" in critic.texts


def test_a_privileged_critic_is_not_asked_about_changed_pictures(oracle_card: ReportCard) -> None:
    card = oracle_card
    assert card.content["critic"]["is_privileged"] is True
    assert card.content["sections"]["robustness"]["all"]["value"] is None


def test_unusable_answers_are_counted_and_cost_nothing_else(bank: EpisodeDataset) -> None:
    card = make_card(SeeingCritic(refuses=7), "seeing", bank, CardConfig(resamples=20, probe_episodes=0))
    answers = card.content["sections"]["cost"]["unusable_answers"]
    # Step 7 of each of 48 episodes; per episode 40 checks, 8 pairs both ways and one value list.
    assert answers["n"] == 48 * (40 + 8 + 8 + 1)
    assert answers["value"] == pytest.approx(1 / 57)
    assert value(card, "detection", "frames", "auroc") == 1.0


def test_a_critic_without_any_usable_answer_gets_reasons_and_no_thresholds(
    bank: EpisodeDataset, tmp_path: Path
) -> None:
    class Mute(SeeingCritic):
        def success_prob(self, frames: Any, tasks: Any) -> Any:
            raise CriticResponseError("no number in 'well'")

    card = make_card(Mute(), "mute", bank.select(lambda e: e.meta.task_id == 0), CONFIG)
    frames = card.content["sections"]["detection"]["frames"]
    assert {e["reason"] for e in frames.values()} == {"the critic gave no usable answer to a done check"}
    assert card.content["calibration"] is None
    assert value(card, "progress", "order_successes", "voc") == pytest.approx(1.0)
    path, _ = write_card(card, tmp_path)
    with pytest.raises(ConfigError, match="no usable answer to a done check"):
        load_calibration(path)


def test_a_critic_that_can_hardly_stop_is_said_so(bank: EpisodeDataset) -> None:
    class NeverDone(SeeingCritic):
        def success_prob(self, frames: Any, tasks: Any) -> Any:
            return np.zeros(len(frames), np.float32)

    card = make_card(NeverDone(), "never", bank.select(lambda e: e.meta.task_id == 0), CONFIG)
    assert "100% of the successes are missed" in card.content["calibration_reason"]


def test_calls_are_batched_and_every_question_is_asked_once(bank: EpisodeDataset) -> None:
    asked = AskedCritic(SeeingCritic(), batch_size=16)
    frames = [np.zeros((8, 8, 3), np.uint8)] * 40
    assert asked.success_prob(frames, ["t"] * 40).shape == (40,)
    assert [call.batch for call in asked.calls] == [16, 16, 8]
    assert asked.questions == 40


def test_held_out_tasks_are_measured_with_rules_chosen_without_them(
    bank: EpisodeDataset, oracle_card: ReportCard
) -> None:
    held_out = oracle_card.content["held_out_tasks"]
    assert held_out["false_positive_rate"]["value"] == 0.0
    assert held_out["false_positive_rate"]["n"] == 24
    one_task = bank.select(lambda entry: entry.meta.task_id == 0)
    assert card_of("oracle", one_task).content["held_out_tasks"] == {}


def test_the_worst_mistakes_come_first_with_their_film(bank: EpisodeDataset) -> None:
    card = card_of("noisy_oracle:tpr=0.3,fpr=0.2,seed=5", bank)
    found = worst_mistakes(card.judged, StopRule(0.9), per_kind=3)
    premature = [m for m in found if m.kind == "premature stop"]
    assert len(premature) == 3
    assert [m.severity for m in premature] == sorted((m.severity for m in premature), reverse=True)
    mistake = premature[0]
    assert mistake.severity == 25 - mistake.step
    judged = next(j for j in card.judged if j.index == mistake.index)
    strip = film_strip(bank[mistake.index], judged.checks, mistake.step)
    assert [frame.step for frame in strip if frame.is_event] == [mistake.step]
    assert len(strip) == 8
    assert strip == sorted(strip, key=lambda frame: frame.step)
    reset = film_strip(bank[mistake.index], judged.checks, 0)[0]
    assert (reset.step, reset.success_prob) == (0, None)  # the reset is never checked
    assert all(frame.jpeg.startswith(b"\xff\xd8") for frame in strip)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.found += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]


def test_the_files_are_whole_and_the_page_needs_no_network(noisy_card: ReportCard, tmp_path: Path) -> None:
    card_file, page_file = write_card(noisy_card, tmp_path / "card")
    content = json.loads(card_file.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["dataset"]["episodes"] == 48
    assert content["headline"].keys() == HEADLINES.keys()
    assert content["sections"].keys() == SECTIONS.keys() - {"under_optimisation"}
    page = page_file.read_text()
    assert re.findall(r"<h2>([A-Z])\. ", page) == list("ABCDEFG")
    links = Links()
    links.feed(page)
    assert links.tags.count("svg") == 5
    assert "script" not in links.tags
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in links.found), links.found[:3]
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "privileged" in page
    assert "premature stop" in page or "missed success" in page
    assert page.index("<h2>Worst mistakes</h2>") < page.index('<div class="mistake">') < page.index("<table>")
    assert page.index('<div class="mistake">') < page.index("<svg")


def test_texts_are_escaped_on_the_page(bank: EpisodeDataset, tmp_path: Path) -> None:
    card = make_card(SeeingCritic(), "<b>bold</b>", bank.select(lambda e: e.meta.task_id == 0), CONFIG)
    _, page = write_card(card, tmp_path)
    assert "<b>bold</b>" not in page.read_text()


def test_paraphrases_keep_the_meaning() -> None:
    assert paraphrases("pick up the bowl and place it on the plate") == [
        "please pick up the bowl and place it on the plate",
        "Pick up the bowl and place it on the plate.",
        "PICK UP THE BOWL AND PLACE IT ON THE PLATE",
        "grab the bowl and put it on the plate",
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"done_threshold": 1.5}, r"done_threshold in \[0, 1\]"),
        ({"check_interval": 0}, "check_interval >= 1"),
        ({"false_stop_budget": -0.1}, "false_stop_budget"),
        ({"cost_repeats": -1}, "cost_repeats >= 0"),
    ],
)
def test_a_bad_configuration_is_refused(config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CardConfig(**config)


def test_the_command_writes_a_card_and_refuses_half_a_question(
    bank: EpisodeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlac_gym.cli import main

    out = tmp_path / "out"
    arguments = ["report-card", "--critic", "oracle", "--out", str(out)]
    assert main(arguments) == 2
    assert "either --episodes DIR or --collect SUITE" in capsys.readouterr().err
    assert main([*arguments, "--episodes", str(bank.root), "--init-states", "77"]) == 2
    assert not out.exists()
    assert main([*arguments, "--episodes", str(bank.root), "--init-states", "0-2"]) == 0
    assert "Recommended:" in capsys.readouterr().out
    assert json.loads((out / "card.json").read_text())["dataset"]["episodes"] == 24
    assert (out / "index.html").stat().st_size > 20_000


def test_what_was_measured_outlives_a_page_that_can_not_be_drawn(
    noisy_card: ReportCard, tmp_path, monkeypatch
):
    def fail(card):
        raise OSError("no font")

    monkeypatch.setattr("vlac_gym.report_card.page.render_card", fail)
    with pytest.raises(OSError, match="no font"):
        write_card(noisy_card, tmp_path)
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(noisy_card.content))


@pytest.mark.parametrize(
    ("low", "high", "kind", "text"),
    [
        (0.0, 0.28, "open", "Too few failures (10) to tell whether false stops are within the budget"),
        (0.0, 0.029, "proven", "within the budget: the 95 % interval reaches from 0.0% to 2.9%"),
        (0.05, 0.28, "missed", "above the budget"),
        (None, None, "open", "no failed episodes"),
    ],
)
def test_advice_is_coloured_by_the_bound_of_the_interval_and_not_by_the_rate(low, high, kind, text) -> None:
    shown, verdict = _budget_verdict({"value": 0.0, "low": low, "high": high, "n": 10}, 0.03)
    assert shown == kind
    assert text in verdict


def test_few_failures_are_said_on_the_page(oracle_card: ReportCard) -> None:
    assert '<div class="advice open">' in render_card(oracle_card)
    assert "Too few failures (" in render_card(oracle_card)


def test_the_interval_of_a_tasks_mean_return_stays_within_the_returns() -> None:
    mean = episode_mean([1.0] * 9 + [0.0], Bootstrap(200, 0))
    assert (mean.value, mean.n, mean.interval) == (0.9, 10, "bootstrap over episodes")
    assert mean.low is not None
    assert mean.high is not None
    assert 0.5 < mean.low < 0.9 < mean.high <= 1.0


def test_shares_are_shown_in_percent(oracle_card: ReportCard) -> None:
    assert "<b>0.0%</b><span>failed episodes stopped as done</span>" in render_card(oracle_card)
