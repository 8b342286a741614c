# shellcheck shell=bash
# Sourced by the scripts at the top of the checkout: a virtual environment with the pinned packages.

# Ends the script with one line on stderr.
fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Sets PYTHON to a Python 3.11 or newer, one that can make virtual environments if there is any.
find_python() {
    PYTHON=
    local candidate
    # A name on the PATH proves little: version managers put up stubs that only print an error.
    for candidate in python3.14 python3.13 python3.12 python3.11 python3; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        PYTHON=${PYTHON:-$candidate}
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            PYTHON=$candidate
            return
        fi
    done
    [ -n "$PYTHON" ] || fail 'Python 3.11 or newer is needed, and none is on the PATH'
}

# Makes .venv anew. Debian's Python comes without the part that this needs.
create_venv() {
    find_python
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        local package said
        package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            fail "$PYTHON cannot make virtual environments: install $package (or python3-venv)"
        fi
        echo "Installing the package $package, which $PYTHON needs for virtual environments"
        said=$({ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$package"; } \
            2>&1) || fail "apt-get could not install $package: ${said##*$'\n'}"
    fi
    rm -rf .venv
    "$PYTHON" -m venv .venv || fail "$PYTHON could not make a virtual environment in $PWD/.venv"
}

# prepare_venv LOCK_FILE: brings .venv to what LOCK_FILE pins. Quick if it is there already.
prepare_venv() {
    local lock=$1 stamp=.venv/.installed-$1 wanted
    [ -f "$lock" ] || fail "$PWD/$lock is missing: the checkout is incomplete"
    wanted=$(sha256sum <"$lock")
    # Two first starts at once would install into each other's hands.
    exec 9<launcher/venv.sh
    ! command -v flock >/dev/null || flock 9
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -c '' 2>/dev/null; then
        .venv/bin/python -m pip --version >/dev/null 2>&1 || create_venv
        echo "Installing the pinned packages from $lock into .venv (about a minute the first time)"
        .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes \
            -r "$lock" || fail 'the pinned packages could not be installed'
        # Last, so that an installation that was cut short is done again.
        printf '%s\n' "$wanted" >"$stamp"
    fi
    exec 9<&-
}
