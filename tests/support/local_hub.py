"""A local Hugging Face Hub (`hub_server.py`) and processes that use it through `huggingface_hub`: `LocalHub`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_USE = """
import json, sys
from vlac_gym.{module} import {function} as find
from vlac_gym.errors import ConfigError
for target in sys.argv[1:]:
    try:
        found = find(target)
        print(json.dumps({{"folder": str(found.folder), "name": found.name}}))
    except ConfigError as e:
        print(json.dumps({{"error": str(e)}}))
"""


class LocalHub:
    """Serves what is put under `root/OWNER/NAME/REVISION/`, until `stop`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        server = Path(__file__).with_name("hub_server.py")
        self._process = subprocess.Popen(
            [sys.executable, str(server), str(root)], stdout=subprocess.PIPE, text=True
        )
        port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        (self.root / "stall").unlink(missing_ok=True)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def requests(self) -> list[str]:
        """Of files and lists of files so far, as `GET config.json - 200`: method, file or page, range, status."""
        path = self.root / "requests.log"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            method, page, rest = line.split(" ", 2)
            if "/resolve/" in page:
                found.append(f"{method} {page.rpartition('/')[2]} {rest}")
            elif page.startswith("/api/models/"):
                found.append(f"{method} {page.partition('?')[0]} {rest}")
        return found

    def gets(self, name: str) -> list[str]:
        """Ranges of the requests for a file's content."""
        return [line.split()[2] for line in self.requests() if line.startswith(f"GET {name} ")]

    def use_in_this_process(self, monkeypatch: Any, home: Path) -> None:
        """Points `huggingface_hub` here, which reads the environment when it is imported, and that may be long ago."""
        from huggingface_hub import constants

        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_ASSETS_CACHE": str(home / "assets"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)

    def environment(self, home: Path, **variables: str) -> dict[str, str]:
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": str(ROOT),
            **variables,
        }

    def start(
        self, home: Path, *targets: str, use: str = "files.hub:find_model", **variables: str
    ) -> subprocess.Popen[str]:
        """A process that looks for models, each of which it prints as JSON."""
        module, _, function = use.partition(":")
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _USE.format(module=module, function=function), *targets],
            env=self.environment(home, **variables),
            cwd=home.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def find(self, home: Path, *targets: str, **options: str) -> list[dict[str, Any]]:
        return read(self.start(home, *targets, **options))[0]


def read(process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    """What a process of `LocalHub.start` found, and its stderr."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err


def wait_for(condition: Any, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"no {condition} in {timeout_s} s"
        time.sleep(0.02)
