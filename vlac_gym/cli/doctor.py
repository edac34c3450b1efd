"""`vlac-gym doctor`: checks MuJoCo, rendering, LIBERO, starts, torch, ffmpeg and a critic; says how to mend each."""

__all__ = ["Args", "run"]

from dataclasses import dataclass

from vlac_gym.cli.doctor_checks import (
    Check,
    check_critic,
    check_libero,
    check_mujoco,
    check_packages,
    check_rendering,
    check_start_cache,
    check_torch,
    check_video,
)
from vlac_gym.critic.registry import check_critic as check_spec

_MARKS = {"ok": "ok      ", "note": "note    ", "broken": "BROKEN  "}


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to check beside this machine."""

    critic: str | None = None
    """Ask this critic one question, e.g. nano or http://host:8400; default: no critic is asked."""


def run(args: Args) -> int:
    """Prints every check; returns 0 if nothing is broken, else 1. `vlac-gym doctor --help` says more."""
    if args.critic is not None:
        check_spec(args.critic)
    checks = [check_packages, check_mujoco, check_rendering, check_libero, check_start_cache, check_torch]
    checks.append(check_video)
    results = []
    for check in checks:
        results.append(check())
        _show(results[-1])
    if args.critic is not None:
        print(f"asking {args.critic} …", flush=True)
        results.append(check_critic(args.critic))
        _show(results[-1])
    broken = [result.name for result in results if result.status == "broken"]
    print(f"\n{len(broken)} broken: {', '.join(broken)}." if broken else "\nEverything needed is here.")
    return 1 if broken else 0


def _show(check: Check) -> None:
    print(f"{_MARKS[check.status]}{check.name:<10} {check.found}", flush=True)
    if check.mend:
        print(f"{'':<19}mend: {check.mend}", flush=True)
