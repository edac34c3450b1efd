"""LIBERO's, RLinf's and lerobot's vector envs beside make_vec's, without a critic: `PEERS`, `peers_asked_for`."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from env_speed import OTHER_PYTHONS, run_part

from vlac_gym.envs.gl import configure_gl

PEER_STEPS = 40


@dataclass(frozen=True)
class Peer:
    """A vector env with a process per env, in lockstep, whose every env step draws both pictures.

    Attributes:
        part: The part of env_speed.py that measures it.
    """

    part: str

    @property
    def python(self) -> str | None:
        """The argument that holds the interpreter of its environment, which may be None; None for this one."""
        return OTHER_PYTHONS.get(self.part)

    def measure(self, args: argparse.Namespace, chunk: int) -> dict[str, float]:
        """Env steps per second of one env per core; resets, which compile each env's model anew, are not counted.

        Args:
            args: The command line.
            chunk: Env steps per call, where it takes several.

        Raises:
            SystemExit: It failed; the message says why.
        """
        configure_gl()  # for the other interpreter, which may know nothing of it
        options = argparse.Namespace(**vars(args), steps=PEER_STEPS, chunk=chunk)
        step = run_part(self.part, options, args.cores)["step of one env"]
        return {
            "steps_per_s": 1 / step["clock_s"],
            "busy": step["cpu_s"] / step["clock_s"] / args.cores,
            "cpu_ms_per_step": 1e3 * step["cpu_s"],
        }


PEERS = {
    "SubprocVectorEnv": Peer("libero_workers"),
    "RLinf": Peer("rlinf_workers"),
    "lerobot": Peer("lerobot_workers"),
}
"""By the name of their rows: LIBERO's and lerobot's as their evaluation drives them, RLinf's as its rollout does."""


def peers_asked_for(args: argparse.Namespace) -> Iterator[tuple[str, Peer]]:
    """Those whose interpreter is known, by name."""
    for name, peer in PEERS.items():
        if peer.python is None or getattr(args, peer.python):
            yield name, peer


def why_not_measured(args: argparse.Namespace) -> list[str]:
    """A sentence for each vector env that this run cannot measure."""
    asked = dict(peers_asked_for(args))
    return [
        f"{name}'s vector env is not measured: --{peer.python.replace('_', '-')} is not given."
        for name, peer in PEERS.items()
        if peer.python is not None and name not in asked
    ]
