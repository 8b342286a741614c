#!/usr/bin/env bash
# Measures the system on one that it starts for itself: ./run-benchmarks.sh --help
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. launcher/venv.sh
# Measuring needs no more than a running system does: requirements-local.lock. Only `publish` draws
# pictures, with matplotlib, which is in requirements-dev.lock.
lock=requirements-local.lock
[ "${1:-}" != publish ] || lock=requirements-dev.lock
prepare_venv "$lock"
# The smoke run, which is a test, installs nothing; nor is the generator needed to publish results.
if [[ " $* " != *' --smoke '* && ${1:-} != publish ]] && ! command -v wrk >/dev/null &&
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo 'Installing the package wrk, the load generator of the closed loop'
    # Without it the benchmark uses a generator of its own.
    .venv/bin/python -m launcher.apt wrk || true
fi
exec .venv/bin/python -m benchmarks "$@"
