#!/usr/bin/env bash
# Measures the system on one that it starts for itself: ./run-benchmarks.sh --help
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. launcher/venv.sh
prepare_venv requirements.lock
# Tests install nothing.
if [[ " $* " != *' --smoke '* ]] && ! command -v wrk >/dev/null && [ "$(id -u)" = 0 ] &&
    command -v apt-get >/dev/null; then
    echo 'Installing the package wrk, which generates the load of the closed loop'
    { DEBIAN_FRONTEND=noninteractive apt-get update &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends wrk; } \
        >/dev/null || echo 'apt-get could not install wrk'
fi
exec .venv/bin/python -m benchmarks "$@"
