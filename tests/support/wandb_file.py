"""What a W&B run wrote on this machine: `read_run`."""

import json
import struct
from pathlib import Path
from typing import Any

_BLOCK, _FIRST, _WHOLE_OR_LAST = 32768, 7, (1, 4)
"""LevelDB's log format, behind 7 bytes of W&B's: https://github.com/google/leveldb/blob/main/doc/log_format.md."""


def read_run(folder: Path) -> dict[str, Any]:
    """Project, name, config, rows and exit code of the one run in a `wandb` folder.

    Rows are metrics by step, W&B's own left out. Its service, which may still be writing, is ended first.
    """
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()
    [path] = folder.glob("offline-run-*/*.wandb")
    data, at, whole, found = path.read_bytes(), _FIRST, b"", {"rows": [], "exit": None}
    while at < len(data):
        if _BLOCK - at % _BLOCK < 7:  # too short for a header: padding
            at += _BLOCK - at % _BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in _WHOLE_OR_LAST:
            _add(found, Record.FromString(whole))
            whole = b""
    return found


def _add(found: dict[str, Any], record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        found |= {"project": record.run.project, "name": record.run.display_name}
        found["config"] = {key: value for key, value in config.items() if key != "_wandb"}
    elif kind == "history":
        items = {
            "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
        }
        found["rows"].append(
            {key: value for key, value in items.items() if not key.startswith("_") or key == "_step"}
        )
    elif kind == "exit":
        found["exit"] = record.exit.exit_code
