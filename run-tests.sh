#!/usr/bin/env bash
# Lint, types, import rules and the whole suite against real RabbitMQ and PostgreSQL.
#   ./run-tests.sh [--faults] [pytest arguments]
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
. launcher/venv.sh
prepare_venv requirements-dev.lock
export PATH=$PWD/.venv/bin:$PATH

step() {
    printf '== %s\n' "$*"
    "$@"
}

# Several workers, because tests mostly wait. One process for the whole fault matrix, so that it can
# report each row when it ends.
workers=3
[[ " $* " != *' --faults '* ]] || workers=0

step ruff check .
step ruff format --check .
step mypy .
step lint-imports --no-cache
coverage erase
step coverage run -m pytest -n "$workers" "$@"
coverage combine --quiet
coverage report --skip-covered
