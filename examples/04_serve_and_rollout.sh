#!/usr/bin/env bash
# Serve a critic and judge LIBERO episodes through it. See docs/service.md.
#
#   examples/04_serve_and_rollout.sh                          # nano, the critic that ships with vlac-gym: no GPU
#   examples/04_serve_and_rollout.sh transformers:/path/to/vlac-2b --episodes 5
#   SERVE_OPTIONS="--ray --replicas 2" examples/04_serve_and_rollout.sh       # two replicas on a local Ray
#
# The first argument is the critic to serve; the others go to `vlac-gym rollout`. Prints the server's facts and
# the run's folder. OUT, PORT and SERVE_OPTIONS may be set in the environment.
set -euo pipefail

out=${OUT:-runs/served}
port=${PORT:-8400}
server=
trap '[[ -z $server ]] || { kill -TERM "$server" 2>/dev/null || true; wait "$server" || true; }' EXIT

judge=()
if [[ $# -gt 0 && $1 != --* ]]; then
    critic=$1
    shift
else
    critic=nano
    judge=(--calibration nano) # the thresholds that nano's report card recommends
fi

read -ra serve_options <<<"${SERVE_OPTIONS:-}"
vlac-gym serve --critic "$critic" --port "$port" --log-level warning "${serve_options[@]}" &
server=$!
until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/readyz"; do
    kill -0 "$server" 2>/dev/null || { echo "The server ended before it was ready." >&2; exit 1; }
    sleep 0.5
done
curl --silent "http://127.0.0.1:$port/v1/info"
echo

vlac-gym rollout --critic "http://127.0.0.1:$port" --out "$out" "${judge[@]}" "$@"

curl --silent "http://127.0.0.1:$port/metrics" | grep -E '^vlac_(requests_total|batch_items_sum|frame_hits_total)'
echo "The run is in $out."
