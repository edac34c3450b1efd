"""A beginning for programs that must do with numpy and gymnasium: `BLOCK_THE_REST`."""

BLOCK_THE_REST = """import sys

class Blocked:
    allowed = {"numpy", "gymnasium", "cloudpickle", "farama_notifications", "typing_extensions", "vlac_gym",
               "verl_env_adapter"}
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in self.allowed or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        raise ImportError(f"{name} is blocked in this test")

sys.meta_path.insert(0, Blocked())
"""
"""Source that lets a process import numpy, gymnasium, what they need, the standard library and this project only."""
