# Makes the Python environment of the project; sourced by scripts/run, scripts/test and .ci/run.
# Needs Python 3.11 or newer and nothing else, and writes only below the project folder.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$project/.venv
log=$project/.leadferry/logs/install.log

# Prints the first command that is a Python of 3.11 or newer.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    echo "Leadferry needs Python 3.11 or newer, and none was found among python3, python3.11 … python3.14." >&2
    echo "Install one (Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python) and try again." >&2
    return 1
}

# Runs a command with its output in the log; shows the end of it only when the command fails.
quietly() {
    if ! "$@" >>"$log" 2>&1; then
        echo "This failed: $*" >&2
        tail -n 40 "$log" >&2
        echo "The whole output is in $log" >&2
        return 1
    fi
}

# Says every quarter of a minute how far an installation is, until it is stopped.
tell_progress() {
    local begins total
    begins=$(($(wc -l <"$log") + 1))
    total=$(grep -c '==' "$1")
    while sleep 15 && kill -0 $$ 2>/dev/null; do
        if (($(said_since "$begins" '^Installing collected packages'))); then
            echo "  all packages found, writing them into .venv" >&2
        else
            echo "  $(said_since "$begins" '^Collecting ') of $total packages found" >&2
        fi
    done
}

# Counts the lines of the log that match, from a line on.
said_since() {
    tail -n "+$1" "$log" | grep -ac "$2" || true
}

# Makes .venv; where the system's Python comes without ensurepip, its pip (if there is one) fills the gap.
make_venv() {
    local python
    python=$(find_python) || return 1
    rm -rf "$venv"
    if "$python" -m venv "$venv" >>"$log" 2>&1; then
        return
    fi
    rm -rf "$venv"
    if "$python" -m venv --without-pip "$venv" >>"$log" 2>&1 &&
        "$python" -m pip --python "$venv/bin/python" install --no-cache-dir --disable-pip-version-check pip >>"$log" 2>&1; then
        return
    fi
    rm -rf "$venv"
    echo "$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
    echo "The whole output is in $log" >&2
    return 1
}

# What an installation depends on; when it changes (or the folder was moved), the next start installs again.
fingerprint() {
    echo "$project"
    "$venv/bin/python" --version
    cat "$project/pyproject.toml" "$project/$1"
}

# make_environment requirements.txt: brings .venv to what that file pins; at once when it is there already.
# With LEADFERRY_VENV set, that environment is used as it is, with this checkout's code.
make_environment() {
    local requirements=$1 stamp progress failed=
    if [ -n "${LEADFERRY_VENV:-}" ]; then
        venv=$LEADFERRY_VENV
        if [ ! -x "$venv/bin/python" ]; then
            echo "LEADFERRY_VENV is $venv, but there is no bin/python in it" >&2
            return 1
        fi
        export PYTHONPATH=$project/include${PYTHONPATH:+:$PYTHONPATH}
        return
    fi
    stamp=$venv/leadferry-$requirements
    mkdir -p "$project/.leadferry/logs"
    if "$venv/bin/python" --version >/dev/null 2>&1; then
        if [ -f "$stamp" ] && [ "$(fingerprint "$requirements")" = "$(cat "$stamp")" ]; then
            return
        fi
    else
        : >"$log"
        make_venv || return 1
    fi
    echo "Installing $requirements into .venv; the first time this takes some minutes." >&2
    tell_progress "$project/$requirements" &
    progress=$!
    # No cache: nothing outside the project folder is written, whatever HOME is.
    quietly "$venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check -r "$project/$requirements" || failed=1
    kill "$progress" 2>/dev/null || true
    [ -z "$failed" ] || return 1
    quietly "$venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check --no-deps -e "$project" || return 1
    fingerprint "$requirements" >"$stamp"
}
