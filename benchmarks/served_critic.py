"""`vlac-gym serve` as a process of its own, for benchmarks of the service: `serving`."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Served:
    """Where the server answers, and its process."""

    url: str
    pid: int


@contextmanager
def serving(spec: str, *options: str) -> Iterator[Served]:
    """Serves a critic, `TimedCritic` included, from when it is loaded; `options` are those of the command."""
    folder = str(Path(__file__).parent)
    program = (
        f"import sys; sys.path.insert(0, {folder!r}); from timed_critic import register_timed; register_timed();"
        "from vlac_gym.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "serve", "--critic", spec, "--port", "0"]
    command += ["--log-level", "warning", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = ""
    for line in process.stdout:
        if line.startswith("Listening at "):
            url = line.removeprefix("Listening at ").partition(";")[0]
        if line.startswith("Ready"):
            break
    else:
        sys.exit(f"The server did not start; it ended with {process.wait()}.")
    try:
        yield Served(url, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
