"""What importing LIBERO and robosuite does to a process, each time in a new one."""

import subprocess
import sys

START = """
import logging, sys, warnings

class Watched(logging.FileHandler):
    def __init__(self, name, *arguments, **options):
        if str(name).startswith("/tmp/robosuite"):
            raise PermissionError(13, "Permission denied", name)
        super().__init__(name, *arguments, **options)

logging.FileHandler = Watched
from vlac_gym.envs.libero import LiberoEnv
env = LiberoEnv(image_size=16, cameras=("agentview",), settle_steps=1)
env.reset(options={"init_state_id": 0})
env.step([0.1] * 7)
import robosuite
print(robosuite.macros is sys.modules["robosuite.macros"], robosuite.macros.FILE_LOGGING_LEVEL)
print([handler for handler in logging.getLogger("robosuite_logs").handlers if isinstance(handler, Watched)])
env.close()
try:
    warnings.warn("a user's own", DeprecationWarning)
except DeprecationWarning:
    print("warnings are errors as before")
"""


def test_libero_starts_where_warnings_are_errors_and_robosuites_log_is_another_users():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "True None\n[]\nwarnings are errors as before\n"
