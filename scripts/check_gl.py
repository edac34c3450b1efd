"""Exits 0 if MuJoCo can render without a display; else installs the library as root, or says how and exits 2.

Uses the standard library only: it runs before anything is installed.
"""

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import sys

PACKAGES = ("libegl1", "libgl1-mesa-dri", "libosmesa6")


def has_gl() -> bool:
    """Is EGL or OSMesa loadable?"""
    for name in ("libEGL.so.1", "libOSMesa.so.8", "libOSMesa.so.6"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def main() -> int:
    """Checks, installs where that is allowed, and reports."""
    if sys.platform != "linux" or has_gl():
        return 0
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("No EGL or OSMesa library: installing", *PACKAGES, flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(command, check=False, env=environment).returncode == 0 and has_gl():
            return 0
    print(
        "Rendering needs EGL or OSMesa, and neither library is here. Run:\n"
        f"  sudo {' '.join(command)}\nthen try again.",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
