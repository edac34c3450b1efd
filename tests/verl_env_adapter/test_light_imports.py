"""Adapters' shared modules need no trainer, no torch, no simulator."""

import subprocess
import sys

PROGRAM = """
import sys

class Blocked:
    allowed = {"numpy", "gymnasium", "cloudpickle", "farama_notifications", "typing_extensions", "vlac_gym",
               "verl_env_adapter"}
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in self.allowed or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        raise ImportError(f"{name} is blocked in this test")

sys.meta_path.insert(0, Blocked())
import importlib
for name in ("action_text", "conversion", "env_pool", "env_process", "env_workers", "episode_env", "libero_loader",
             "settings", "verl_dataset", "verl_episode", "verl_phase", "verl_plugin", "isaac", "rlinf", "rlinf_check",
             "rlinf_episodes", "rlinf_options", "rlinf_reward_worker", "rlinf_starts"):
    importlib.import_module(f"verl_env_adapter.{name}")
print("light")
"""


def test_shared_modules_import_with_numpy_and_gymnasium_alone():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "light", done.stderr


def test_parquet_without_pyarrow_names_the_extra(tmp_path):
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from verl_env_adapter.verl_dataset import write_parquet\n"
        f"write_parquet([], Path({str(tmp_path)!r}) / 'x.parquet')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert 'pip install "vlac-gym[verl]"' in done.stderr
    assert list(tmp_path.iterdir()) == []
