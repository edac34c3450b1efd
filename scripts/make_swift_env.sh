#!/usr/bin/env bash
# Builds a Python environment with ms-swift's inference engine beside this package (about 2 GB).
#
#   scripts/make_swift_env.sh DIR [pip options …]
#
# TRANSFORMERS=4.49.0 in the environment picks another version of transformers: the Python files inside VLAC's
# original checkpoint do not run under version 5.
#
# ms-swift wants torchvision, which the package's own environment does without, so it gets one of its own.
# Pip options, e.g. an extra index with CPU builds of torch, are passed to every installation.
set -euo pipefail

if [ $# -lt 1 ]; then
  echo "usage: scripts/make_swift_env.sh DIR [pip options …]" >&2
  exit 2
fi
dir=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3.11}

"$python" -m venv "$dir"
pip() { "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip "$@" "setuptools<82" wheel
pip "$@" "torch==2.13.0" "torchvision==0.28.0" "numpy<2.5"
"$dir/bin/python" "$root/scripts/mend_torchvision.py"
pip "$@" "ms-swift==4.6.0" "transformers==${TRANSFORMERS:-5.19.0}" "timm" "pytest>=8" "pytest-timeout>=2.3"
pip "$@" --no-deps --editable "$root"
pip "$@" "gymnasium>=1.1"
"$dir/bin/python" -c "from swift.infer_engine import TransformersEngine; print('ms-swift is ready in $dir')"
