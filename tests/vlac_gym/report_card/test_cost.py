"""What a critic costs, on numbers worked by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeing_critic import SeeingCritic

from vlac_gym.critic import make_critic
from vlac_gym.critic.wrapper import adapted
from vlac_gym.data import EpisodeDataset, EpisodeMeta
from vlac_gym.errors import CriticResponseError
from vlac_gym.report_card import cost
from vlac_gym.report_card.asking import AskedCritic, Call
from vlac_gym.report_card.card import CardConfig, make_card
from vlac_gym.report_card.episode_answers import EpisodeAnswers
from vlac_gym.report_card.page import write_card
from vlac_gym.report_card.sections import Bootstrap
from vlac_gym.report_card.statistics import refused
from vlac_gym.report_card.termination import Checks
from vlac_gym.types import CriticInfo

GIB = 2**30
FRAMES = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(3)]


class ListeningCritic(SeeingCritic):
    """Keeps every frame that it is shown, and the size of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []
        self.sizes: list[tuple[str, int]] = []
        self.references: list[Any] = []

    def success_prob(self, frames: Any, tasks: Any) -> Any:
        self.frames += [frame.tobytes() for frame in frames]
        self.sizes.append(("success_prob", len(frames)))
        return super().success_prob(frames, tasks)

    def progress(self, before: Any, after: Any, tasks: Any, references: Any = None) -> Any:
        self.frames += [frame.tobytes() for frame in [*before, *after]]
        self.sizes.append(("progress", len(before)))
        self.references.append(references)
        return super().progress(before, after, tasks)


def judged(wall_s: float | None, value_s: float = 1.0, checks: int = 50) -> EpisodeAnswers:
    meta = EpisodeMeta(
        "libero_spatial", 0, "t", 0, policy="expert", details={} if wall_s is None else {"wall_s": wall_s}
    )
    steps = np.arange(1, checks + 1)
    return EpisodeAnswers(
        index=0,
        meta=meta,
        checks=Checks(steps=steps, probs=np.zeros(checks), success=np.zeros(checks + 1, bool), cluster="s/0"),
        goal_progress=np.zeros(checks + 1),
        value_steps=np.array([0, checks]),
        values=np.zeros(2),
        forward=np.zeros(1),
        backward=np.zeros(1),
        value_s=value_s,
    )


def section(episodes: list[EpisodeAnswers], timed: list[Call], **options: Any) -> Any:
    asked = AskedCritic(SeeingCritic())
    return cost.cost_section(asked, episodes, timed, refused("x"), Bootstrap(20), **options)


def test_latency_and_throughput_by_hand() -> None:
    numbers = cost.latency([Call("progress", 4, seconds) for seconds in (0.3, 0.1, 1.0, 0.4, 0.2)])
    # 20 pairs in 2 s; sorted .1 .2 .3 .4 1.0, the 95th percentile lies 0.8 of the way from .4 to 1.0.
    assert numbers["items_per_s"].value == pytest.approx(10.0)
    assert numbers["latency_ms_p50"].value == pytest.approx(300.0)
    assert numbers["latency_ms_p95"].value == pytest.approx(880.0)


def test_the_stall_is_the_share_of_time_spent_waiting() -> None:
    # 50 checks of 20 ms and a second for the values, beside six seconds of rollout.
    assert cost.stall_fraction(50, 0.02, 1.0, 6.0) == pytest.approx(0.25)
    assert cost.stall_fraction(0, 0.02, 0.0, 6.0) == 0.0


def test_the_cards_stall_takes_the_median_single_check_and_skips_untimed_episodes() -> None:
    timed = [Call("success_prob", 1, s) for s in (0.01, 0.02, 0.9)] + [Call("success_prob", 4, 0.5)]
    # 2 s beside 6 s, and 2 s beside 2 s: (0.25 + 0.5) / 2.
    found = section([judged(6.0), judged(2.0), judged(None)], timed)["stall_fraction"]
    assert found.value == pytest.approx(0.375)
    assert found.n == 2
    none = section([judged(None)], timed)["stall_fraction"]
    assert (none.value, none.reason) == (
        None,
        "the episodes do not say how long they took; collect them again",
    )
    untimed = section([judged(6.0)], [], not_timed="it was not asked for")
    assert untimed["stall_fraction"].reason == "a single check was not timed: it was not asked for"
    assert untimed["by_batch"].reason == "it was not asked for"


def test_latency_is_told_for_each_batch_size() -> None:
    timed = [
        Call("success_prob", 4, 0.2), Call("success_prob", 1, 0.1),
        Call("progress", 1, 0.3), Call("success_prob", 1, 0.2),
    ]  # fmt: skip
    found = section([judged(1.0)], timed)["by_batch"]
    assert {kind: list(sizes) for kind, sizes in found.items()} == {
        "new_progress": ["batch_1"],
        "new_success_prob": ["batch_1", "batch_4"],
    }
    assert found["new_success_prob"]["batch_1"]["latency_ms_p50"].value == pytest.approx(150.0)
    assert found["new_success_prob"]["batch_4"]["items_per_s"].value == pytest.approx(20.0)


def test_every_timed_frame_is_new_and_like_the_recorded_ones() -> None:
    critic = ListeningCritic()
    before = [frame.copy() for frame in FRAMES]
    calls = cost.time_batches(critic, FRAMES, "t", batch_size=6, repeats=2, references=FRAMES[:2])
    # 64 and 16 are cut down to 6; each size is asked three times and counted twice.
    expected = [(kind, size) for size in (1, 4, 6) for _ in range(2) for kind in ("success_prob", "progress")]
    assert [(call.kind, call.batch) for call in calls] == expected
    assert len(critic.sizes) == 3 * 3 * 2
    assert len(set(critic.frames)) == len(critic.frames) == 3 * 3 * (1 + 4 + 6)
    assert all(frame.tobytes() not in critic.frames for frame in FRAMES)
    np.testing.assert_array_equal(FRAMES, before)
    changed = cost.unseen(FRAMES[1], np.random.default_rng(0))
    changed[-2:, -2:] = 10
    np.testing.assert_array_equal(changed, FRAMES[1])
    assert all(len(references) == 2 for references in critic.references)


def test_calls_without_an_answer_are_not_timed() -> None:
    class Mute(SeeingCritic):
        def success_prob(self, frames: Any, tasks: Any) -> Any:
            raise CriticResponseError("no number in 'well'")

    calls = cost.time_batches(Mute(), FRAMES, "t", batch_size=1, repeats=2)
    assert [call.kind for call in calls] == ["progress", "progress"]


@pytest.mark.parametrize(
    ("info", "peak", "expected"),
    [
        (CriticInfo("x", device="cuda"), 3.0 * GIB, 3.0),
        (CriticInfo("x", device="cuda:1"), None, "'cuda:1', but torch has used no GPU in this process"),
        (CriticInfo("x"), 3.0 * GIB, "the critic runs on a CPU"),
        (CriticInfo("x", is_privileged=True, device="cuda"), 3.0 * GIB, "the critic runs on a CPU"),
        (CriticInfo("x", device="remote"), 3.0 * GIB, "runs elsewhere"),
    ],
)
def test_gpu_memory_of_a_critic_in_this_process(
    monkeypatch: pytest.MonkeyPatch, info: CriticInfo, peak: float | None, expected: Any
) -> None:
    monkeypatch.setattr(cost, "cuda_memory_peak_bytes", lambda: peak)
    found = cost.gpu_memory(adapted(SeeingCritic()), info)
    if isinstance(expected, float):
        assert found.value == expected
    else:
        assert found.value is None
        assert expected in found.reason


@pytest.mark.parametrize(
    ("held", "expected"),
    [(2.5 * GIB, 2.5), (None, "does not say"), (0.0, "the server holds no GPU memory")],
)
def test_gpu_memory_of_a_server(held: float | None, expected: Any) -> None:
    class Served(SeeingCritic):
        def gpu_memory_bytes(self) -> float | None:
            return held

    served = adapted(Served())
    served.is_remote = True
    found = cost.gpu_memory(served, CriticInfo("remote", device="remote"))
    assert found.value == expected if isinstance(expected, float) else expected in found.reason


def test_a_card_and_its_page_tell_the_cost(tmp_path: Path, record: Callable[..., None]) -> None:
    for start in range(2):
        record(tmp_path, 0, start, succeeds=start == 0, wall_s=30.0)
    dataset = EpisodeDataset.open(tmp_path)
    config = CardConfig(resamples=10, probe_episodes=1, batch_size=8, cost_repeats=2)
    card = make_card(SeeingCritic(), "seeing", dataset, config)
    numbers = card.content["sections"]["cost"]
    assert list(numbers["by_batch"]["new_success_prob"]) == ["batch_1", "batch_4", "batch_8"]
    assert numbers["by_batch"]["new_progress"]["batch_8"]["latency_ms_p50"]["n"] == 2
    assert 0 < numbers["stall_fraction"]["value"] < 0.1
    assert numbers["stall_fraction"]["n"] == 2
    assert numbers["gpu_memory_gib"]["reason"] == "the critic runs on a CPU"
    assert numbers["questions_per_episode"]["value"] == 40 + 8 + 8 + 1  # timing is not counted
    page = write_card(card, tmp_path / "card")[1].read_text()
    assert "batch of 8" in page
    assert page.count("<svg") == 6


def test_a_privileged_critic_and_no_repeats_are_told_as_such(bank: EpisodeDataset) -> None:
    part = bank.select(lambda entry: entry.meta.task_id == 0)
    numbers = make_card(make_critic("oracle"), "oracle", part, CardConfig(resamples=10, probe_episodes=0))
    assert (
        numbers.content["sections"]["cost"]["by_batch"]["reason"]
        == "a privileged critic looks at no pictures"
    )
    config = CardConfig(resamples=10, probe_episodes=0, cost_repeats=0)
    critic = ListeningCritic()
    card = make_card(critic, "seeing", part, config)
    assert "cost_repeats is 0" in card.content["sections"]["cost"]["by_batch"]["reason"]
    assert ("success_prob", 1) not in critic.sizes
