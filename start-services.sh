#!/usr/bin/env bash
# Starts the whole system, installing what it needs first: ./start-services.sh --help
set -u
# A run directory given by a relative path is meant from where the caller stands.
case ${RUN_DIR:-/} in /*) ;; *) export RUN_DIR=$PWD/$RUN_DIR ;; esac
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" || exit 1
. launcher/venv.sh
prepare_venv requirements.lock
exec .venv/bin/python -m launcher "$@"
