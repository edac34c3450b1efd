"""Makes a torchvision built for CUDA importable next to a CPU build of torch; for test environments only.

The package index carries one torchvision wheel, and its import fails under CPU torch with "operator
torchvision::nms does not exist": the compiled operators do not load, but their shapes are registered.
Declaring the two operators first is enough for everything in Python, image transforms included. The
declaration goes into the installed package, because servers import it in child processes.

Run with the environment's own Python:  DIR/bin/python scripts/mend_torchvision.py
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

MARK = "# Operators declared for a CPU build of torch.\n"
DECLARATION = (
    MARK
    + """import torch as _torch

_operators = _torch.library.Library("torchvision", "DEF")
_operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
)


def torchvision_imports() -> bool:
    """Whether a fresh interpreter can import torchvision."""
    done = subprocess.run([sys.executable, "-c", "import torchvision.transforms.v2"], capture_output=True)
    return done.returncode == 0


def main() -> int:
    """Declares the operators if the import fails without them; returns 0 if it works afterwards."""
    if torchvision_imports():
        print("torchvision imports as it is")
        return 0
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        print("torchvision is not installed in this environment", file=sys.stderr)
        return 1
    package = Path(spec.origin)
    text = package.read_text()
    if MARK not in text:
        package.write_text(DECLARATION + text)
    if not torchvision_imports():
        print(f"torchvision still does not import; see {package}", file=sys.stderr)
        return 1
    print(f"declared the missing operators in {package}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
