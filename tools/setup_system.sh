#!/usr/bin/env bash
# Installs through apt what pip cannot: `setup_system.sh` what the project needs to run, `setup_system.sh test` what some
# tests compare with. Silent where nothing is missing. Where the user may not install, one line says what to do.
set -euo pipefail

has_library() { { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -F "$1 " >/dev/null; }

# apt_install PACKAGE...: false where there is no apt, no right to use it, or no such package.
apt_install() {
    local as_root=()
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    echo "installing with apt: $*"
    local log
    log=$(mktemp)
    if "${as_root[@]}" apt-get -q update >"$log" 2>&1 &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -q install --no-install-recommends -y "$@" >"$log" 2>&1; then
        rm "$log"
    else
        grep '^E:' "$log" >&2 || true
        rm "$log"
        return 1
    fi
}

needed_to_run() {
    local python=${PYTHON:-} missing=()
    if [ -z "$python" ]; then
        echo "needs Python 3.11, 3.12 or 3.13: found none on the PATH; make PYTHON=/path/to/it names another" >&2
        return 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        missing+=("$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
    fi
    has_library libGL.so.1 || missing+=(libgl1)
    has_library libgthread-2.0.so.0 || missing+=(libglib2.0-0)
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}" || {
        echo "please install and run again: sudo apt install ${missing[*]}" >&2
        return 1
    }
}

wanted_by_tests() {
    [ -n "${YOLOPRUNE_LIBDARKNET:-}" ] || [ -e /usr/lib/darknet/libdarknet.so ] || has_library libdarknet.so ||
        apt_install darknet ||
        echo "stock Darknet is missing, the tests that compare with it are skipped (Debian: sudo apt install darknet)"
}

case "${1:-run}" in
    run) needed_to_run ;;
    test) wanted_by_tests ;;
    *) echo "usage: $0 [run|test]" >&2; exit 2 ;;
esac
