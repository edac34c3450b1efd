"""RLinf's extension module in tests: ours, plus a record of what the wrapper paid.

The record is taken below the adapter, from `VLACRewardWrapper`, so that a test compares two different things.
"""

import json
import os
from pathlib import Path
from typing import Any

from verl_env_adapter.rlinf import plugin


def register() -> None:
    plugin.register()
    _record_what_is_paid()


def _record_what_is_paid() -> None:
    from vlac_gym.wrappers.vector import VLACRewardWrapper

    if hasattr(VLACRewardWrapper, "_recorded"):
        return
    VLACRewardWrapper._recorded = True
    step_chunk = VLACRewardWrapper.step_chunk

    def recorded(self: Any, actions: Any) -> Any:
        result = step_chunk(self, actions)
        line = {
            "env": id(self),
            "mode": self.mode,
            "rewards": result.rewards.tolist(),
            "executed": result.executed_steps.tolist(),
            "terminated": result.terminations.tolist(),
            "truncated": result.truncations.tolist(),
        }
        folder = os.environ.get("VLAC_GYM_TEST_RECORD")
        if folder:
            with (Path(folder) / f"{os.getpid()}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        return result

    VLACRewardWrapper.step_chunk = recorded
