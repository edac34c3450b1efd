"""The `vlac-gym` command: one module per subcommand, imported only when it is called."""

__all__ = ["COMMANDS", "main"]

import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence

from vlac_gym.errors import ConfigError, DependencyNotInstalled, VlacGymError, unknown_name

COMMANDS: dict[str, tuple[str, str]] = {
    "rollout": ("vlac_gym.cli.rollout", "Run episodes with a critic; write mp4, plots, summary and a page."),
    "eval": ("vlac_gym.cli.eval", "Measure a policy's success on LIBERO, by the simulator alone."),
    "compare": ("vlac_gym.cli.compare", "Compare evaluations over the same starts, or report cards."),
    "convert": ("vlac_gym.cli.convert", "Turn VLAC's own checkpoint into the native Hugging Face format."),
    "score": ("vlac_gym.cli.score", "Judge a video with a critic; write JSON, plot and annotated mp4."),
    "tasks": ("vlac_gym.cli.tasks", "List task suites and tasks."),
    "doctor": ("vlac_gym.cli.doctor", "Check GL, LIBERO, torch, GPU and critic; say how to mend each."),
    "make-tiny-checkpoint": (
        "vlac_gym.cli.make_tiny_checkpoint",
        "Write a tiny InternVL checkpoint with random weights, for tests.",
    ),
    "merge-adapter": ("vlac_gym.cli.merge_adapter", "Put a LoRA adapter into its base, as one checkpoint."),
    "serve": ("vlac_gym.cli.serve", "Serve a critic over HTTP to many rollout workers."),
    "train-critic": ("vlac_gym.cli.train_critic", "Train the nano critic from recorded episodes."),
    "clone": ("vlac_gym.cli.clone", "Train a small policy from recorded episodes, by behaviour cloning."),
    "collect": (
        "vlac_gym.cli.collect",
        "Record episodes: successes, failures, near misses, undone successes.",
    ),
    "report-card": (
        "vlac_gym.cli.report_card",
        "Measure how far a critic can be trusted; recommend thresholds.",
    ),
    "attack": (
        "vlac_gym.cli.attack",
        "Search for failures that a critic pays for, by filtered imitation in LIBERO or a GPU's worlds.",
    ),
    "export-scenes": (
        "vlac_gym.cli.export_scenes",
        "Write LIBERO tasks down for a GPU's simulator, make_vec(backend='warp').",
    ),
    "export": ("vlac_gym.cli.export", "Turn recorded episodes into fine-tuning or behaviour-cloning data."),
}
"""Command -> (module, one line of help). A module has `Args` (a dataclass) and `run(args) -> int`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit status: 0 well, 1 failed while running, 2 wrong usage."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from vlac_gym import __version__

        print(__version__)
        return 0
    if os.getcwd() not in sys.path:
        sys.path.append(
            os.getcwd()
        )  # where module:factory of a user's own is looked for, as `python -m` does
    try:
        if args[0] not in COMMANDS:
            raise unknown_name("command", args[0], COMMANDS)
        status = _run(args[0], args[1:])
        sys.stdout.flush()
        return status
    except (ConfigError, DependencyNotInstalled) as e:
        return _fail(args[0], e, 2)
    except BrokenPipeError as e:
        if not _reader_is_gone():
            return _fail(args[0], e, 1)
        return 128 + signal.SIGPIPE
    except (VlacGymError, OSError) as e:
        return _fail(args[0], e, 1)
    except KeyboardInterrupt:
        print(f"vlac-gym {args[0]}: interrupted; what was finished is kept.", file=sys.stderr)
        return 130


def _run(command: str, args: Sequence[str]) -> int:
    from vlac_gym.cli.parsing import parse_arguments

    module_name, help_line = COMMANDS[command]
    module = importlib.import_module(module_name)
    parsed = parse_arguments(module.Args, args, prog=f"vlac-gym {command}", description=help_line)
    status: int = module.run(parsed)
    return status


def _fail(command: str, error: Exception, status: int) -> int:
    text = " ".join(str(error).split())  # one line, whatever a library put into its message
    print(f"vlac-gym {command}: {text or type(error).__name__}", file=sys.stderr)
    return status


def _reader_is_gone() -> bool:
    """Whether stdout's reader left, as `| head` does; what is still to be written is then thrown away."""
    try:
        watch = select.poll()
        watch.register(sys.stdout.fileno(), select.POLLOUT)
        is_gone = any(event & select.POLLERR for _, event in watch.poll(0))
    except OSError:  # stdout is no file
        return False
    if is_gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_gone


def _overview() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items())
    return f"usage: vlac-gym COMMAND [--help] …\n\n{rows}"
