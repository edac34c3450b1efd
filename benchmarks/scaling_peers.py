"""Other vector envs beside make_vec's, without a critic: LIBERO's, and which ones are not measured, and why."""

import argparse
from importlib import import_module

from env_speed import run_part

PEER_STEPS = 40
LIBERO = "SubprocVectorEnv"
NOT_DRIVEN = {"lerobot": "lerobot.envs.libero", "RLinf": "rlinf.envs.libero.libero_env"}
"""Whose vector env -> the module that holds it or its envs."""


def measure_libero(args: argparse.Namespace) -> dict[str, float]:
    """LIBERO's `SubprocVectorEnv` as its evaluation drives it: a process per env, in lockstep, two pictures every step.

    Resets, which compile each env's model anew, are not counted.

    Raises:
        SystemExit: It failed; the message says why.
    """
    options = argparse.Namespace(
        suite=args.suite, steps=PEER_STEPS, image_size=args.image_size, lerobot_python=None
    )
    step = run_part("libero_workers", options, args.cores)["step of one env"]
    return {
        "steps_per_s": 1 / step["clock_s"],
        "busy": step["cpu_s"] / step["clock_s"] / args.cores,
        "cpu_ms_per_step": 1e3 * step["cpu_s"],
    }


def why_not_measured() -> list[str]:
    """A sentence for each vector env that this benchmark cannot measure."""
    said = []
    for name, module in NOT_DRIVEN.items():
        try:
            import_module(module)
        except ImportError as e:
            said.append(f"{name}'s vector env is not measured: {e}.")
        else:
            said.append(f"{name}'s vector env is not measured: this benchmark does not drive it.")
    return said
