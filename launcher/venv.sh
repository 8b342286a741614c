# shellcheck shell=bash
# Sourced by the scripts at the top of the checkout: a virtual environment with the pinned packages.

# Ends the script with one line on stderr.
fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Sets PYTHON to a Python 3.11 or newer: the one that the caller names, or the best there is.
find_python() {
    local candidate
    # The distribution's first: it is built with profile-guided optimisation, which version
    # managers leave out, and runs the services with a tenth less CPU.
    for candidate in ${PYTHON:-/usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3}; do
        # A name on the PATH proves little: version managers put up stubs that only print an error.
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        PYTHON=$candidate
        return
    done
    fail "Python 3.11 or newer is needed, and ${PYTHON:-none on the PATH} is not"
}

# Sets PIP to a command that installs into .venv: its own pip, or that of any Python here.
find_pip() {
    local candidate
    for candidate in .venv/bin/python python3.14 python3.13 python3.12 python3.11 python3; do
        PIP=("$candidate" -m pip --python .venv/bin/python)
        "${PIP[@]}" --version >/dev/null 2>&1 && return
    done
    return 1
}

# Makes .venv anew. Debian's Python comes without the part that puts pip there: then another
# Python's pip serves, or that part is installed.
create_venv() {
    find_python
    rm -rf .venv
    "$PYTHON" -m venv .venv >/dev/null 2>&1 && return
    if "$PYTHON" -m venv --clear --without-pip .venv 2>/dev/null && find_pip; then
        return
    fi
    local package said
    package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$PYTHON cannot make virtual environments: install $package (or python3-venv)"
    fi
    echo "Installing the package $package, which $PYTHON needs for virtual environments"
    said=$({ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$package"; } \
        2>&1) || fail "apt-get could not install $package: ${said##*$'\n'}"
    "$PYTHON" -m venv --clear .venv || fail "$PYTHON could not make .venv in $PWD"
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
        { .venv/bin/python -c '' 2>/dev/null && find_pip; } || create_venv
        find_pip || fail "there is no pip for $PWD/.venv"
        echo "Installing the pinned packages from $lock into .venv (about a minute the first time)"
        "${PIP[@]}" install -qq --disable-pip-version-check --require-hashes -r "$lock" ||
            fail 'the pinned packages could not be installed'
        # Last, so that an installation that was cut short is done again.
        printf '%s\n' "$wanted" >"$stamp"
    fi
    exec 9<&-
}
