"""Adapters' shared modules need no trainer, no torch, no simulator."""

import subprocess
import sys

from light_imports import BLOCK_THE_REST

PROGRAM = (
    BLOCK_THE_REST
    + """
import importlib
for name in ("common.conversion", "common.env_pool", "common.env_report", "common.env_stack", "common.libero_loader",
             "common.ray_executor", "common.settings", "isaac.env", "rlinf.check", "rlinf.episodes", "rlinf.options",
             "rlinf.plugin", "rlinf.starts", "simplevla.check", "simplevla.memory", "simplevla.recipe",
             "verl.action_text", "verl.async_envs", "verl.dataset", "verl.episode",
             "verl.phase", "verl.plugin"):
    importlib.import_module(f"verl_env_adapter.{name}")
print("light")
"""
)


def test_shared_modules_import_with_numpy_and_gymnasium_alone():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "light", done.stderr


def test_parquet_without_pyarrow_names_the_extra(tmp_path):
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from verl_env_adapter.verl.dataset import write_parquet\n"
        f"write_parquet([], Path({str(tmp_path)!r}) / 'x.parquet')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert 'pip install "vlac-gym[verl]"' in done.stderr
    assert list(tmp_path.iterdir()) == []
