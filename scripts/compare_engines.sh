#!/usr/bin/env bash
# Compares all engines on one tiny checkpoint, ms-swift and vLLM included, on the CPU, fine-tunes that checkpoint with
# ms-swift on an exported folder, and has vLLM load what merge-adapter wrote.
#
#   scripts/compare_engines.sh DIR [pip options …]
#
# Makes DIR/swift and DIR/vllm (about 5 GB, some minutes) unless they are there, then runs the agreement tests
# with the interpreter $PYTHON (default: .venv/bin/python of this repository).
set -euo pipefail

if [ $# -lt 1 ]; then
  echo "usage: scripts/compare_engines.sh DIR [pip options …]" >&2
  exit 2
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)

for engine in swift vllm; do
  if [ ! -f "$dir/$engine/ready" ]; then
    PYTHON=python3.11 "$root/scripts/make_${engine}_env.sh" "$dir/$engine" "$@"
    touch "$dir/$engine/ready"
  fi
done
cd "$root"
VLAC_SWIFT_PYTHON="$dir/swift/bin/python" VLAC_VLLM_PYTHON="$dir/vllm/bin/python" \
  "${PYTHON:-.venv/bin/python}" -m pytest -q -rP -m "slow or not slow" tests/vlac_gym/critic/engines/test_agreement.py \
  tests/vlac_gym/data/test_swift_sft.py tests/vlac_gym/training/test_merge_adapter.py
