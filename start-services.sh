#!/usr/bin/env bash
# Starts the whole system, after installing what it needs: ./start-services.sh --help
set -u
# A relative run directory is relative to the caller's folder.
case ${RUN_DIR:-/} in /*) ;; *) export RUN_DIR=$PWD/$RUN_DIR ;; esac
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" || exit 1
. launcher/venv.sh
prepare_venv requirements-local.lock
exec .venv/bin/python -m launcher "$@"
