"""Measures the transformers engine against one `generate` per request, on the same weights, in one run.

    python benchmarks/critic_speed.py                    # VLAC-2B's shapes, random weights, first GPU
    python benchmarks/critic_speed.py --sizes tiny --device cpu --frames 32

Prints a Markdown table; `--out` writes the numbers as JSON. The naive loop is what the VLAC reference does:
each request alone, pictures prepared by Pillow on the host, every frame encoded for every request, and
`generate` until the end mark (2 tokens for a done check, 3 for a pair).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from vlac_gym.critic.engines.base import EngineReply, EngineRequest
from vlac_gym.critic.engines.plain_transformers import PlainTransformersEngine
from vlac_gym.critic.engines.transformers import TransformersEngine
from vlac_gym.critic.vlac.tiny_checkpoint import (
    ModelSizes,
    build_config,
    save_checkpoint,
    train_tokenizer,
)

VLAC_2B = ModelSizes(
    vision_layers=24,
    vision_width=1024,
    vision_heads=16,
    vision_mlp=4096,
    text_layers=24,
    text_width=2048,
    text_heads=16,
    text_kv_heads=8,
    head_dim=128,
    text_mlp=8192,
    max_positions=32768,
    vocab_size=92553,
)
"""InternViT-300M and InternLM2-1.8B, as InternVL2-2B's config.json gives them."""

SYSTEM = (
    "You are a visual-language assistant designed to interpret spatial and task-related information from images "
    "and text. Provide precise, context-aware responses and actionable guidance to assist in achieving task "
    "objectives."
)
TASK = "pick up the black bowl between the plate and the ramekin and place it on the plate"
DONE = f"The 1 means yes, the 0 means no. Check if the robot has completed its task: <task> {TASK} </task> <done>"
PAIR = (
    "Image-1: <image>\nImage-2: <image>\nCompare two images and evaluate whether the second image is closer to "
    "achieving task objectives compared to the first image. + score means the second image is closer, - score "
    "means the first image is closer\nResponse the relative progressing of target task follow <score>. "
    f"The target task is: <task> {TASK} </task> <score>"
)
NUM_PAIRS = 40
NUM_REFERENCES = 9


@dataclass(frozen=True)
class Row:
    """One line of the table; `ratio` is how many times faster than the naive loop."""

    what: str
    value: float
    unit: str
    naive: float | None = None
    ratio: float | None = None
    target: str = ""


def main() -> None:
    """Builds the checkpoint, measures, prints, and fails if fast and naive outputs disagree."""
    args = _arguments()
    torch.backends.cudnn.allow_tf32 = False  # torch's default would make `generate` differ in float32
    frames = _frames(args.frames + 2 * NUM_PAIRS + 64)
    with tempfile.TemporaryDirectory() as folder:
        path = build_checkpoint(Path(folder) / "checkpoint", args.sizes, args.device)
        rows = _measure(path, args, frames)
    print(f"{_machine(args.device)}\n\n{_table(rows)}")
    if args.out:
        record = {
            "machine": _machine(args.device),
            "command": " ".join(sys.argv),
            "rows": [asdict(r) for r in rows],
        }
        args.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    failed = [
        row.what
        for row in rows
        if row.what.startswith("largest difference") and row.value > float(row.target)
    ]
    if failed:
        sys.exit(f"Fast and naive outputs disagree: {', '.join(failed)}")


def build_checkpoint(path: Path, sizes: str, device: str) -> Path:
    """Writes random weights in the chosen shapes, bfloat16 for the large model."""
    import transformers

    tokenizer = train_tokenizer()
    config = build_config(VLAC_2B if sizes == "2b" else ModelSizes(), tokenizer)
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.InternVLForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    with torch.no_grad():
        model.lm_head.weight[len(tokenizer) :] = 0  # rows without a token can't be compared by name
    save_checkpoint(path, model.to(torch.bfloat16 if sizes == "2b" else torch.float32), tokenizer)
    return path


def _measure(path: Path, args: argparse.Namespace, frames: list[np.ndarray]) -> list[Row]:
    naive = PlainTransformersEngine(path, args.device)
    naive_times, naive_replies = _naive(naive, frames)
    rows = _agreement_in_float32(path, args.device, frames)
    naive.close()
    del naive
    started = time.perf_counter()
    engine = TransformersEngine(path, args.device, max_gpu_memory_gb=args.max_gpu_memory_gb)
    rows.append(Row("load", time.perf_counter() - started, "s"))
    engine.generate([done(frames[0])])
    rows.append(Row("prompt of a done check", engine.statistics().prompt_tokens, "tokens"))
    cold = _single_latency_ms(engine, frames[:12])
    report = engine.warm_up([done(frames[0]), pair(frames[0], frames[1])])
    rows.append(Row("warm-up (compile, record graphs)", report.seconds, "s"))
    rows.append(_versus("single done check before warm-up", cold, "ms", naive_times["done"] * 1e3))
    warm = _single_latency_ms(engine, frames[12:52])
    rows.append(_versus("single done check", warm, "ms", naive_times["done"] * 1e3, "< 15 ms"))
    rows.append(_throughput(engine, frames[: args.frames], naive_times["done"], args.device))
    rows += _value_lists(engine, frames, naive_times, args.device)
    rows += _agreement(engine, naive_replies, frames)
    if torch.device(args.device).type == "cuda":
        rows.append(Row("peak memory", engine.statistics().peak_memory / 1e9, "GB", target=_bound(args)))
    engine.close()
    return rows


def done(frame: np.ndarray) -> EngineRequest:
    """A done check."""
    return EngineRequest(SYSTEM, DONE, (frame,), "number")


def pair(before: np.ndarray, after: np.ndarray, references: tuple[np.ndarray, ...] = ()) -> EngineRequest:
    """A pair, after reference frames and the episode's first frame if references are given."""
    if not references:
        return EngineRequest(SYSTEM, PAIR, (before, after), "signed_number")
    *shown, first = references
    steps = "\n".join(f" {100 * i // (len(shown) - 1)}% <image>" for i in range(len(shown)))
    head = f"<trajectory> <task> {TASK} </task>:{steps}\n</trajectory>0% <image>\n"
    head += "This image is the trajectory beginning of the following two images\n"
    frames = (*shown, first, before, after)
    return EngineRequest(SYSTEM, head + PAIR, frames, "signed_number", shared_frames=len(references))


def _naive(
    engine: PlainTransformersEngine, frames: list[np.ndarray]
) -> tuple[dict[str, float], list[EngineReply]]:
    """Seconds per request of each kind, and replies for the agreement check."""
    references = tuple(frames[NUM_PAIRS + 1 : NUM_PAIRS + 2 + NUM_REFERENCES])
    kinds = {
        "done": [_until_end(done(frame), 2) for frame in frames[:20]],
        "pair": [_until_end(pair(a, b), 3) for a, b in pairwise(frames[:12])],
        "pair with references": [_until_end(pair(a, b, references), 3) for a, b in pairwise(frames[:12])],
    }
    times = {}
    for kind, requests in kinds.items():
        engine.generate(requests[:2])
        times[kind] = _seconds(lambda requests=requests: engine.generate(requests)) / len(requests)
    checked = [done(frame) for frame in frames[:20]] + [pair(a, b) for a, b in pairwise(frames[:12])]
    return times, engine.generate(checked)


def _until_end(request: EngineRequest, tokens: int) -> EngineRequest:
    return replace(request, answer="text", max_new_tokens=tokens)


def _single_latency_ms(engine: TransformersEngine, frames: list[np.ndarray]) -> float:
    """Median of done checks of unseen frames, one at a time."""
    times = [_seconds(lambda frame=frame: engine.generate([done(frame)])) for frame in frames]
    return statistics.median(times[2:]) * 1e3


def _throughput(engine: TransformersEngine, frames: list[np.ndarray], naive: float, device: str) -> Row:
    """Done checks per second over unseen frames, in one call; the better of two."""
    rates = []
    for _ in range(2):
        engine.generate([done(frame) for frame in frames[:64]])
        engine.forget()
        rates.append(len(frames) / _seconds(lambda: engine.generate([done(f) for f in frames])))
    target = ">= 300 frames/s" if torch.device(device).type == "cuda" else ""
    rate = max(rates)
    return Row("done checks, batched", rate, "frames/s", 1 / naive, rate * naive, target)


def _value_lists(
    engine: TransformersEngine, frames: list[np.ndarray], naive: dict[str, float], device: str
) -> list[Row]:
    """Pairs of an episode: after its done checks, and from nothing."""
    episode = frames[: NUM_PAIRS + 1]
    references = tuple(frames[NUM_PAIRS + 1 : NUM_PAIRS + 2 + NUM_REFERENCES])
    rows = []
    for kind, shown, target in (("pair", (), ">= 4x"), ("pair with references", references, ">= 6x")):
        requests = [pair(a, b, shown) for a, b in pairwise(episode)]
        engine.generate(requests)  # kernels for these shapes
        engine.forget()
        afresh = _seconds(lambda requests=requests: engine.generate(requests))
        engine.forget()
        engine.generate([done(frame) for frame in (*episode, *shown)])
        encoded = engine.statistics().frames_encoded
        after = _seconds(lambda requests=requests: engine.generate(requests))
        forwards = engine.statistics().frames_encoded - encoded
        name = f"value list of {NUM_PAIRS} pairs" + (f", {NUM_REFERENCES} references" if shown else "")
        slow = naive[kind] * NUM_PAIRS * 1e3
        rows.append(
            _versus(
                f"{name}, after done checks ({forwards} vision forwards)", after * 1e3, "ms", slow, target
            )
        )
        rows.append(_versus(f"{name}, nothing cached", afresh * 1e3, "ms", slow))
    return rows


def _agreement(
    engine: TransformersEngine, expected: list[EngineReply], frames: list[np.ndarray]
) -> list[Row]:
    """In the engine's own dtype, frames prepared on the device; nothing on a CPU, which runs float32 anyway."""
    dtype = engine.describe()["dtype"]
    if dtype == "float32":
        return []
    requests = [done(frame) for frame in frames[:20]] + [pair(a, b) for a, b in pairwise(frames[:12])]
    worst = largest_difference(engine.generate(requests), expected)
    return [Row(f"largest difference of probabilities, {dtype}", worst, "", target="0.02")]


def _agreement_in_float32(path: Path, device: str, frames: list[np.ndarray]) -> list[Row]:
    requests = [done(frame) for frame in frames[:6]] + [pair(a, b) for a, b in pairwise(frames[:5])]
    naive = PlainTransformersEngine(path, device, "float32")
    expected = naive.generate(requests)
    naive.close()
    del naive
    engine = TransformersEngine(path, device, "float32", image_preparation="pillow")
    worst = largest_difference(engine.generate(requests), expected)
    engine.close()
    return [Row("largest difference of probabilities, float32", worst, "", target="0.0001")]


def largest_difference(replies: list[EngineReply], expected: list[EngineReply]) -> float:
    """Largest difference of a first token's probability, renormalised over the candidates both name.

    Random weights spread the full softmax over the whole vocabulary; renormalising restores the scale on which
    a critic reads its answer.
    """
    worst = 0.0
    for ours, theirs in zip(replies, expected):
        left = {c.token: c.logprob for c in ours.tokens[0].candidates}
        right = {c.token: c.logprob for c in theirs.tokens[0].candidates}
        common = sorted(left.keys() & right.keys())
        a, b = (np.exp([side[token] for token in common]) for side in (left, right))
        worst = max(worst, float(np.abs(a / a.sum() - b / b.sum()).max()), 0.0 if len(common) >= 5 else 1.0)
    return worst


def _seconds(run: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _versus(what: str, value: float, unit: str, naive: float, target: str = "") -> Row:
    return Row(what, value, unit, naive, naive / value, target)


def _frames(count: int) -> list[np.ndarray]:
    """Distinct smooth pictures, uint8 (256, 256, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return [np.ascontiguousarray(frame.repeat(16, 0).repeat(16, 1)) for frame in coarse]


def _table(rows: list[Row]) -> str:
    lines = ["| what | engine | naive loop | ratio | target |", "|---|---|---|---|---|"]
    for row in rows:
        naive = "" if row.naive is None else f"{row.naive:.4g} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}x"
        lines.append(f"| {row.what} | {row.value:.4g} {row.unit} | {naive} | {ratio} | {row.target} |")
    return "\n".join(lines)


def _bound(args: argparse.Namespace) -> str:
    return f"<= {args.max_gpu_memory_gb} GB (max_gpu_memory_gb)" if args.max_gpu_memory_gb else ""


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else "CPU"
    return f"{name}, torch {torch.__version__}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", choices=("2b", "tiny"), default="2b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=1024, help="frames of the batched run")
    parser.add_argument("--max-gpu-memory-gb", type=float, default=None)
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
