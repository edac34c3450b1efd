r"""How much of what N independent processes do a vector env keeps: env steps per second, side by side in one run.

    python benchmarks/vector_scaling.py --cores 2 --envs 2 8 --critics scripted          # here
    python benchmarks/vector_scaling.py --cores 16 --envs 64 16 --critics scripted nano sleep \
        --nano-spec 'nano?device=cuda' --markdown --json out.jsonl

The baseline are `--cores` processes that each play one env with random actions, without any vector env or critic: a
chunk of actions, one look, and a reset where the step limit is reached. Against it `make_vec`'s envs under
`VLACRewardWrapper` and `ActionChunk`, in `--cores` workers: in lockstep (`sync`), each at its own pace by `send` and
`recv` (`ready`) and by an `AsyncRollout` (`async`), and as two groups of a `PipelinedRollout` (`pipelined`). Step
limits differ from env to env, and no critic ends an episode (`done_threshold` 1.0), so that all play episodes of the
same lengths; the critic checks every `--done-interval` steps. A policy takes `--policy-ms` for each batch. `--peers`
adds LIBERO's own `SubprocVectorEnv` and, with `--rlinf-python` and `--lerobot-python` of environments that have them
and LIBERO, RLinf's and lerobot's vector envs, without a critic and one env per core, and says which are not measured.

Each measurement plays random actions of its own, from a generator that is seeded the same in every run. A critic may
keep what it has worked out of a picture, as nano keeps features: of pictures that an earlier measurement has shown, it
would answer sooner than in play.

A row's ratio is to the mean of the baseline before and after the rows of its envs and chunk; its processes live
throughout, and sleep while others are measured.

Critics: `none`, `scripted` (no time at all), `sleep` (waits as VLAC-2B's shapes take, see timed_critic.py), `nano`
(`--nano-spec` chooses its device), which is asked in every batch size before anything is measured; a row in which
torch compiled nevertheless says so.

Each line says what part of the baseline is lost, and where: `busy` is the workers' processor time per second and
worker, `ms/step` their processor time per env step; their product is the ratio. `main` is this process's processor
time per second (it shares the cores), `critic` the share of time in which a call was under way, `batch` frames per
call, `done` and `values` the same of each kind of question. `--niceness 5 0` plays everything with workers that
are less urgent to the system than this process, and again with workers that are not. `--markdown` ends with the tables
of scaling_table.py. Each measurement takes `--seconds`; what `--limit-s` leaves no time for is skipped and named.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from env_speed import describe_machine
from scaling_baseline import Independent
from scaling_critics import ClockedCritic, make_critics
from scaling_peers import peers_asked_for, why_not_measured
from scaling_table import ALONE, compared, holds, report
from scaling_ways import ENV_SETS, WAYS, make_vector_envs, measure

CRITICS = ("none", "scripted", "sleep", "nano")


class Run:
    """The measurements of a run, printed as they are made.

    Args:
        args: The command line.
        critics: By name.
    """

    def __init__(self, args: argparse.Namespace, critics: dict[str, ClockedCritic | None]) -> None:
        self.args, self.critics = args, critics
        self.lines: list[dict[str, Any]] = []
        self.skipped: list[str] = []
        self._tells_niceness = len(args.niceness) > 1
        self._numbers = itertools.count()  # of its measurements
        self._until_s = time.monotonic() + args.limit_s

    def play(self) -> None:
        """Measures all that was asked for, as long as there is time."""
        for cameras in self.args.cameras:
            if not self._has_time(f"{cameras} cameras"):
                continue
            alone = Independent(self.args, cameras)
            for num_envs in self.args.envs:
                self._play_envs(alone, cameras, num_envs)
            if self.args.peers and cameras == 2:  # the peers' envs always draw two
                for chunk in self.args.chunks:
                    if self._has_time(f"peers, chunk {chunk}"):
                        self._bracketed(alone, cameras, chunk, self._peers(chunk))
            alone.close()

    def _play_envs(self, alone: Independent, cameras: int, num_envs: int) -> None:
        args = self.args
        for (all_ways, groups, mode), niceness in itertools.product(ENV_SETS, args.niceness):
            ways = [way for way in all_ways if way in args.ways]
            name = f"{'/'.join(ways)}, {num_envs} envs, {cameras} cameras, niceness {niceness}"
            if not ways or not self._has_time(name):
                continue
            envs = make_vector_envs(args, cameras, num_envs, groups, mode, niceness)
            what = {"envs": num_envs, "cameras": cameras, "niceness": niceness}
            for chunk in args.chunks:
                if self._has_time(f"{name}, chunk {chunk}"):
                    self._bracketed(alone, cameras, chunk, self._rows(ways, envs, chunk, what))
            for env in envs:
                env.close()

    def _rows(
        self, ways: list[str], envs: list[Any], chunk: int, what: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        args = self.args
        for (critic_name, critic), way in itertools.product(self.critics.items(), ways):
            if self._has_time(f"{what}, chunk {chunk}, {critic_name}, {way}"):
                result = measure(way, envs, chunk, critic, args, next(self._numbers))
                every = chunk if critic is None else min(chunk, args.done_interval)
                row = {"way": way, "chunk": chunk, "critic_name": critic_name, "looked_every": every}
                yield row | what | result

    def _peers(self, chunk: int) -> Iterator[dict[str, Any]]:
        what = {"envs": self.args.cores, "cameras": 2, "niceness": 0}
        for name, peer in peers_asked_for(self.args):
            if not self._has_time(f"{name}, chunk {chunk}"):
                continue
            try:
                result = peer.measure(self.args, chunk)
            except SystemExit as e:
                print(f"{name} is not measured: {e}", flush=True)
                continue
            yield {"way": name, "chunk": chunk, "critic_name": "none", "looked_every": 1} | what | result

    def _bracketed(
        self, alone: Independent, cameras: int, chunk: int, rows: Iterable[dict[str, Any]]
    ) -> None:
        """Measures rows between two baselines, and keeps them with their ratio to the mean of both."""
        before = self._baseline(alone, cameras, chunk)
        measured = []
        for row in rows:
            measured.append(row | {"cores": self.args.cores})
            print(describe(row, self._tells_niceness), flush=True)
        after = self._baseline(alone, cameras, chunk)
        rates = [base["steps_per_s"] for base in (before, after)]
        print(f"  of {sum(rates) / 2:.0f} (before {rates[0]:.0f}, after {rates[1]:.0f}):", flush=True)
        for row in measured:
            row = compared(row, [before, after])
            self._keep(row)
            name = f"{row['way']}, {row['critic_name']}"
            if self._tells_niceness:
                name += f", niceness {row['niceness']}"
            print(f"  {name}: {row['ratio']:.2f}, held by {holds(row)}", flush=True)

    def _baseline(self, alone: Independent, cameras: int, chunk: int) -> dict[str, Any]:
        what = {"way": ALONE, "envs": self.args.cores, "cameras": cameras, "chunk": chunk}
        line = what | {"critic_name": "none", "cores": self.args.cores}
        line |= alone.measure(chunk, self.args.seconds)
        print(describe(line), flush=True)
        self._keep(line)
        return line

    def _keep(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self.args.json:
            with self.args.json.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _has_time(self, what: str) -> bool:
        if (
            time.monotonic() + 3 * self.args.seconds < self._until_s
        ):  # for a warm row and the closing baseline
            return True
        self.skipped.append(what)
        return False


def describe(row: dict[str, Any], tells_niceness: bool = False) -> str:
    """One measurement in one line."""
    text = f"{row['way']:11} {row['envs']:3} envs, {row['cameras']} cam, chunk {row['chunk']}, {row['critic_name']:8}"
    text += (
        f" {row['steps_per_s']:7.0f} steps/s | busy {row['busy']:.2f}, ms/step {row['cpu_ms_per_step']:.1f}"
    )
    if "look_ms" in row:
        text += f", look {row['look_ms']:.1f} ms, reset {row['reset_ms']:.0f} ms"
    if tells_niceness:
        text += f", niceness {row['niceness']}"
    if "main" in row:
        text += f", main {row['main']:.2f}"
    if "critic" in row:
        text += (
            f", critic {row['critic']:.2f} ({row['critic_ms']:.1f} ms, batch {row['frames_per_call']:.0f})"
        )
        for kind in ("done", "values"):
            share, ms, frames = (row[f"{kind}_{number}"] for number in ("share", "ms", "frames"))
            text += f", {kind} {share:.2f} ({ms:.1f} ms, {frames:.0f})"
    if row.get("compiled"):
        text += f", COMPILED {row['compiled']:.0f} GRAPHS MEANWHILE"
    return text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cores", type=int, default=len(os.sched_getaffinity(0)), help="processes, and workers"
    )
    parser.add_argument("--envs", type=int, nargs="+", help="envs; cores and 4 times as many by default")
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 2], choices=(1, 2))
    parser.add_argument("--chunks", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--critics", "--critic", nargs="+", default=["scripted"], choices=CRITICS)
    parser.add_argument("--peers", action="store_true", help="also others' vector envs, of task 0")
    for peer in ("rlinf", "lerobot"):
        parser.add_argument(
            f"--{peer}-python", help=f"for --peers: a Python that can import {peer} and LIBERO"
        )
    parser.add_argument("--nano-spec", default="nano", help="e.g. nano?device=cuda")
    parser.add_argument("--sleep", default="17,4.4", help="A,B: the sleeping critic takes A + B * frames ms")
    parser.add_argument(
        "--limits", type=int, nargs="+", default=[40, 80, 120, 160], help="step limits, in turn"
    )
    parser.add_argument("--done-interval", type=int, default=8)
    parser.add_argument("--min-ready", type=int, default=1, help="of recv, and of AsyncRollout")
    parser.add_argument("--window-ms", type=float, default=2.0, help="ask_window_s of the wrapper")
    parser.add_argument("--policy-ms", type=float, default=0.0)
    parser.add_argument(
        "--pin", action="store_true", help="pin_workers, and the baseline's processes likewise"
    )
    parser.add_argument(
        "--niceness",
        type=int,
        nargs="+",
        default=[0],
        help="worker_niceness; several are measured one after the other",
    )
    parser.add_argument("--suite", default="libero_spatial")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=8.0, help="per measurement")
    parser.add_argument("--limit-s", type=float, default=3600.0, help="begin nothing after this time")
    parser.add_argument("--markdown", action="store_true", help="end with tables for the docs")
    parser.add_argument("--json", type=Path, help="append a line per measurement")
    args = parser.parse_args()
    args.envs = args.envs or [args.cores, 4 * args.cores]
    if bad := [n for n in args.envs if n % args.cores]:
        parser.error(f"--envs must be multiples of --cores {args.cores}, got {bad}")
    if "pipelined" in args.ways and args.cores % 2:
        parser.error(f"--ways pipelined needs an even number of cores, got {args.cores}")
    if (args.rlinf_python or args.lerobot_python) and not args.peers:
        parser.error("--rlinf-python and --lerobot-python measure what --peers asks for; give --peers, too")
    if args.peers and (args.task or 2 not in args.cameras):
        parser.error(f"--peers plays task 0 with two cameras, got task {args.task}, cameras {args.cameras}")
    return args


def main() -> None:
    args = parse()
    print(describe_machine(), flush=True)
    for sentence in why_not_measured(args) if args.peers else ():
        print(sentence, flush=True)
    run = Run(args, make_critics(args))
    run.play()
    for what in run.skipped:
        print(f"skipped, out of time: {what}", file=sys.stderr)
    if args.markdown:
        print(f"\n{report(run.lines)}")


if __name__ == "__main__":
    main()
