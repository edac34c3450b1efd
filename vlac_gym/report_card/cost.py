"""What a critic costs: `time_batches`, `gpu_memory`, `stall_fraction`, and the card's `cost_section`."""

__all__ = ["BATCH_SIZES", "cost_section", "gpu_memory", "latency", "stall_fraction", "time_batches", "unseen"]

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import numpy as np

from vlac_gym.critic.base import BaseCritic, Critic
from vlac_gym.critic.engines.cuda_memory import cuda_memory_peak_bytes
from vlac_gym.errors import CriticResponseError
from vlac_gym.report_card.asking import AskedCritic, Call
from vlac_gym.report_card.episode_answers import EpisodeAnswers
from vlac_gym.report_card.sections import Bootstrap, Judged, Section
from vlac_gym.report_card.statistics import Estimate, rate, refused
from vlac_gym.types import CriticInfo, Frame

BATCH_SIZES = (1, 4, 16, 64)
"""Batch sizes that are timed; those above the card's `batch_size` are cut down to it."""

_GIB = 2.0**30


def time_batches(
    critic: Critic,
    frames: Sequence[Frame],
    task: str,
    *,
    batch_size: int,
    repeats: int,
    references: Sequence[Frame] | None = None,
) -> list[Call]:
    """Times done checks and pairs at each of `BATCH_SIZES`, each on frames that the critic has never seen.

    One call of each size goes first and is not counted: it may allocate or compile. A call without a usable
    answer is not counted either.

    Args:
        critic: Who is timed; not a privileged one.
        frames: One or more, shown over and over, each time with a few other pixels.
        task: Instruction.
        batch_size: Largest batch.
        repeats: Counted calls of each kind and size.
        references: One-shot references of the pairs.
    """
    fresh = _never_seen(frames)
    calls: list[Call] = []
    for size in sorted({min(size, batch_size) for size in BATCH_SIZES}):
        tasks = [task] * size
        for repeat in range(repeats + 1):
            first, second, third = ([next(fresh) for _ in range(size)] for _ in range(3))
            timed = [
                _timed("success_prob", size, lambda: critic.success_prob(first, tasks)),  # noqa: B023
                _timed("progress", size, lambda: critic.progress(second, third, tasks, references)),  # noqa: B023
            ]
            if repeat:
                calls += [call for call in timed if call is not None]
    return calls


def unseen(frame: Frame, rng: np.random.Generator) -> Frame:
    """A copy whose last 2 x 2 pixels are drawn at random: a picture that no cache knows."""
    changed = frame.copy()
    corner = changed[-2:, -2:]
    corner[:] = rng.integers(0, 256, corner.shape, np.uint8)
    return changed


def latency(calls: Sequence[Call]) -> dict[str, Estimate]:
    """Throughput, and latency's median and 95th percentile, of calls of one kind.

    Returns:
        `items_per_s` (frames or pairs over the calls' total time), `latency_ms_p50` and `latency_ms_p95`.
    """
    seconds = np.array([call.seconds for call in calls])
    items = sum(call.batch for call in calls)
    return {
        "items_per_s": Estimate(items / max(float(seconds.sum()), 1e-9), n=items),
        "latency_ms_p50": Estimate(1e3 * float(np.quantile(seconds, 0.5)), n=len(calls)),
        "latency_ms_p95": Estimate(1e3 * float(np.quantile(seconds, 0.95)), n=len(calls)),
    }


def stall_fraction(checks: int, check_s: float, value_s: float, rollout_s: float) -> float:
    """Share of an episode's time in which it waits for its critic, if nothing runs meanwhile.

    Args:
        checks: Done checks of the episode.
        check_s: Time of one check at batch 1, s.
        value_s: Time of the value list, s.
        rollout_s: Time of policy, physics and rendering, s, above 0.
    """
    wait_s = checks * check_s + value_s
    return wait_s / (wait_s + rollout_s)


def gpu_memory(critic: BaseCritic, info: CriticInfo) -> Estimate:
    """GPU memory in GiB: torch's peak in this process, or what the critic's server holds.

    Torch's peak counts from `cuda_memory.reset_cuda_memory_peak` on. A critic whose
    `gpu_memory_bytes` tells is believed instead.
    """
    held = critic.gpu_memory_bytes()
    if held is not None:
        return Estimate(held / _GIB, n=1) if held else refused("the server holds no GPU memory")
    if critic.is_remote:
        return refused("the server does not say how much GPU memory it holds")
    if info.is_privileged or info.device == "cpu":
        return refused("the critic runs on a CPU")
    if info.device == "remote":
        return refused("the critic runs elsewhere, and nothing there tells its GPU memory")
    peak = cuda_memory_peak_bytes()
    if peak is None:
        return refused(f"the critic's device is {info.device!r}, but torch has used no GPU in this process")
    return Estimate(peak / _GIB, n=1)


def cost_section(
    asked: AskedCritic,
    judged: Judged,
    timed: Sequence[Call],
    memory: Estimate,
    boot: Bootstrap,
    *,
    not_timed: str = "",
) -> Section:
    """Calls made while judging, calls by batch size on new frames, GPU memory, stall, unusable answers.

    Args:
        asked: Who judged.
        judged: The episodes.
        timed: From `time_batches`.
        memory: From `gpu_memory`.
        boot: How the stall's interval is made.
        not_timed: Why `timed` is empty, if it is.
    """
    not_timed = not_timed or "there was no usable answer"
    section: dict[str, Estimate | Section] = {
        "questions_per_episode": Estimate(asked.questions / len(judged), n=len(judged))
        if judged
        else refused("there are no episodes"),
        "unusable_answers": rate(asked.failures, asked.questions, of="questions"),
        "gpu_memory_gib": memory,
        "stall_fraction": _stall(judged, timed, boot, not_timed),
        "by_batch": _by_batch(timed) if timed else refused(not_timed),
    }
    for kind, calls in _grouped(asked.calls, lambda call: call.kind).items():
        mean_batch = sum(call.batch for call in calls) / len(calls)
        section[kind] = {**latency(calls), "mean_batch": Estimate(mean_batch, n=len(calls))}
    return section


def _never_seen(frames: Sequence[Frame]) -> Iterator[Frame]:
    rng = np.random.default_rng()  # unseeded: a server keeps the pictures of the last card
    return (unseen(frame, rng) for frame in cycle(frames))


def _timed(kind: str, size: int, ask: Callable[[], object]) -> Call | None:
    start = time.perf_counter()
    try:
        ask()
    except CriticResponseError:
        return None
    return Call(kind, size, time.perf_counter() - start)


def _grouped(calls: Sequence[Call], key: Callable[[Call], str]) -> dict[str, list[Call]]:
    groups: dict[str, list[Call]] = {}
    for call in calls:
        groups.setdefault(key(call), []).append(call)
    return dict(sorted(groups.items()))


def _by_batch(timed: Sequence[Call]) -> Section:
    ordered = sorted(timed, key=lambda call: call.batch)
    return {
        f"new_{kind}": {
            f"batch_{size}": latency([call for call in calls if call.batch == size])
            for size in dict.fromkeys(call.batch for call in calls)
        }
        for kind, calls in _grouped(ordered, lambda call: call.kind).items()
    }


def _stall(judged: Judged, timed: Sequence[Call], boot: Bootstrap, not_timed: str) -> Estimate:
    single = [call.seconds for call in timed if call.kind == "success_prob" and call.batch == 1]
    if not single:
        return refused(f"a single check was not timed: {not_timed}")
    check_s = float(np.quantile(single, 0.5))

    def stall(episode: EpisodeAnswers) -> float | None:
        rollout_s = episode.meta.details.get("wall_s")
        if not isinstance(rollout_s, int | float) or rollout_s <= 0:
            return None
        return stall_fraction(len(episode.checks.steps), check_s, episode.value_s, rollout_s)

    return boot.mean(judged, stall, "the episodes do not say how long they took; collect them again")
