"""A Hugging Face Hub of files, as a process: the endpoints that `huggingface_hub` asks for models.

    python tests/support/hub_server.py ROOT

serves ROOT/OWNER/NAME/REVISION/… as the files of the model OWNER/NAME and prints its port. A commit is the SHA-1 of
a revision's files. ROOT/requests.log gets a line per request: method, path, range, status. A folder OWNER/NAME with a
file `gated` gives its list of files, and nothing of what is in them. While ROOT/stall holds a file's name, that file's
second half does not come; ROOT/drop is the same for one request, whose connection closes instead.
"""

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(sys.argv[1])
LOCK = threading.Lock()
MODEL = r"(?P<repo>[^/]+/[^/]+)"
ROUTES = (
    ("info", re.compile(rf"/api/models/{MODEL}(?:/revision/(?P<revision>[^/]+))?")),
    ("tree", re.compile(rf"/api/models/{MODEL}/tree/(?P<revision>[^/]+)")),
    ("file", re.compile(rf"/{MODEL}/resolve/(?P<revision>[^/]+)/(?P<name>.+)")),
)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(
        b"".join(name.encode() + hashlib.sha1(b).digest() for name, b in files.items())
    ).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for kind, pattern in ROUTES:
            if match := pattern.fullmatch(urlsplit(self.path).path):
                found = {key: unquote(value) for key, value in match.groupdict(default="main").items()}
                return self.answer_for(kind, **found)
        return self.refuse(404, "EntryNotFound", f"no such page: {path}")

    def answer_for(self, kind: str, repo: str, revision: str, name: str = "") -> None:
        if not (ROOT / repo).is_dir():
            return self.refuse(401, "RepoNotFound", "Repository not found")
        commits = {}
        for folder in sorted(path for path in (ROOT / repo).iterdir() if path.is_dir()):
            files = files_of(folder)
            commits[folder.name] = commits[commit_of(files)] = files
        if revision not in commits:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = commits[revision]
        if kind == "file":
            return self.send_file(repo, files, name)
        listed = [
            {"type": "file", "path": path, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
            for path, b in files.items()
        ]
        siblings = [{"rfilename": path} for path in files]
        info = {"id": repo, "modelId": repo, "sha": commit_of(files), "siblings": siblings, "tags": []}
        return self.send(
            json.dumps(info if kind == "info" else listed).encode(), {"Content-Type": "application/json"}
        )

    def send_file(self, repo: str, files: dict[str, bytes], name: str) -> None:
        if (ROOT / repo / "gated").exists():
            return self.refuse(403, "GatedRepo", f"Access to model {repo} is restricted")
        if name not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        data = files[name]
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": commit_of(files),
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(data[start:], headers, 206 if wanted else 200, trouble=self.trouble(name))

    def trouble(self, name: str) -> str | None:
        """What shall happen half way; `drop` happens once."""
        with LOCK:
            for kind in ("stall", "drop"):
                if self.command == "GET" and (ROOT / kind).exists() and (ROOT / kind).read_text() == name:
                    if kind == "drop":
                        (ROOT / kind).unlink()
                    return kind
        return None

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send(b"", {"X-Error-Code": code, "X-Error-Message": message}, status)

    def send(
        self, data: bytes, headers: dict[str, str], status: int = 200, trouble: str | None = None
    ) -> None:
        with LOCK, (ROOT / "requests.log").open("a") as log:
            log.write(f"{self.command} {self.path} {self.headers.get('Range', '-')} {status}\n")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        for part in halves(data):
            self.wfile.write(part)
            self.wfile.flush()
            if trouble == "drop":
                self.close_connection = True
                return
            while trouble == "stall" and (ROOT / "stall").exists():
                time.sleep(0.01)

    def log_message(self, *args: object) -> None:
        pass


def halves(data: bytes) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    yield data[len(data) // 2 :]


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
