#!/usr/bin/env bash
# All that a fresh machine needs, with Python >= 3.11 and git:
#
#   ./build.sh demo    a grid on this machine runs a task of 100,000 items and checks every result
#   ./build.sh test    linters, types and the whole test suite, on real Redis, Docker and registry
#   ./build.sh setup   only the virtual environment, in .venv
#   ./build.sh wheel   the package, in dist/
set -euo pipefail
cd "$(dirname "$0")"

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

# A version manager may have a `python3.13` on PATH that cannot run, so each one is tried.
find_python() {
    local python
    for python in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    fail "no Python >= 3.11 found. Install one (Debian 12: apt install python3 python3-venv), or" \
        "name it: PYTHON=/path/to/python3.11 ./build.sh ..."
}

# setup [dev]: makes .venv, or leaves it alone if pyproject.toml is as it was.
setup() {
    local group=${1:-} stamp=.venv/installed-${1:-run}
    if [ ! -x .venv/bin/python ]; then
        local python
        python=$(find_python)
        echo "Making a virtual environment in .venv ..."
        "$python" -m venv .venv || {
            rm -rf .venv
            fail "$python cannot make one. On Debian: apt install python3-venv"
        }
    fi
    if ! cmp -s pyproject.toml "$stamp"; then
        echo "Installing what pyproject.toml names ..."
        .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
        .venv/bin/python -m pip install --quiet --editable . ${group:+--group "$group"}
        cp pyproject.toml "$stamp"
    fi
}

run_demo() {
    setup
    exec .venv/bin/gridcore demo "$@"
}

run_tests() {
    setup dev
    bash tests/packages.sh
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy gridcore computehub gridnode tests benchmarks examples
    # Two processes, as most tests wait for something; in the order of the files, so that the last
    # ones are the short ones. tests/conftest.py says what stays together.
    .venv/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder "$@" && return
    # What fails beside others and not alone has met a slow machine: it is named above all the same.
    echo "Once more, one at a time, those that failed:"
    .venv/bin/python -m pytest --last-failed --last-failed-no-failures none "$@"
}

build_wheel() {
    setup
    .venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
    ls dist/*.whl
}

command=${1:-}
shift || true
case $command in
    demo) run_demo "$@" ;;
    test) run_tests "$@" ;;
    setup) setup ;;
    wheel) build_wheel ;;
    '' | help | -h | --help)
        sed -n '2,7s/^# \{0,1\}//p' "$0"
        ;;
    *) fail "there is no command '$command'. Known: demo, test, setup, wheel" ;;
esac
