# shellcheck shell=bash
# Sourced by the scripts at the top of the checkout: a virtual environment with the pinned packages.

# fail MESSAGE: ends the script with an error.
fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Sets PYTHON to a Python 3.11 or newer: $PYTHON if it is set, else the first of the usual ones.
find_python() {
    local candidate
    # The distribution's Python first: its build has profile-guided optimisation, which those of
    # version managers lack, and the services need a tenth less CPU with it.
    for candidate in ${PYTHON:-/usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3}; do
        # Run it: version managers put stubs on the PATH that only print an error.
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        PYTHON=$candidate
        return
    done
    fail "Python 3.11 or newer is required; ${PYTHON:-none on the PATH} is not"
}

# Sets PIP to a command that installs into .venv: its own pip, or that of another Python.
find_pip() {
    local candidate
    for candidate in .venv/bin/python python3.14 python3.13 python3.12 python3.11 python3; do
        PIP=("$candidate" -m pip --python .venv/bin/python)
        "${PIP[@]}" --version >/dev/null 2>&1 && return
    done
    return 1
}

# Creates .venv from scratch. Debian's Python lacks the module that installs pip: the pip of another
# Python replaces it, or else the package with that module is installed.
create_venv() {
    find_python
    rm -rf .venv
    "$PYTHON" -m venv .venv >/dev/null 2>&1 && return
    if "$PYTHON" -m venv --clear --without-pip .venv 2>/dev/null && find_pip; then
        return
    fi
    local package
    package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$PYTHON cannot create virtual environments: install $package (or python3-venv)"
    fi
    echo "Installing the package $package, which $PYTHON needs for virtual environments"
    "$PYTHON" -m launcher.apt "$package" || exit 1
    "$PYTHON" -m venv --clear .venv || fail "$PYTHON could not create $PWD/.venv"
}

# prepare_venv LOCK_FILE: installs what LOCK_FILE pins into .venv. Quick if that is done already.
prepare_venv() {
    local lock=$1 stamp=.venv/.installed-$1 wanted
    [ -f "$lock" ] || fail "$PWD/$lock is missing: the checkout is incomplete"
    wanted=$(sha256sum <"$lock")
    # Two first starts at the same time must not install into the same folder.
    exec 9<launcher/venv.sh
    ! command -v flock >/dev/null || flock 9
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -c '' 2>/dev/null; then
        { .venv/bin/python -c '' 2>/dev/null && find_pip; } || create_venv
        find_pip || fail "there is no pip for $PWD/.venv"
        echo "Installing the packages pinned in $lock into .venv (about a minute the first time)"
        "${PIP[@]}" install -qq --disable-pip-version-check --require-hashes -r "$lock" ||
            fail 'the pinned packages could not be installed'
        # Last, so that an interrupted installation is repeated.
        printf '%s\n' "$wanted" >"$stamp"
    fi
    exec 9<&-
}
