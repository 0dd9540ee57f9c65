#!/usr/bin/env bash
# Installs what Debian and Ubuntu lack for the demo and the tests, and nothing that is there already.
#   system-deps.sh            what `make demo` needs
#   system-deps.sh --docker   and the Docker engine, for `make test`
#   system-deps.sh --bench    and what perf_analyzer runs with where it does not by itself, for `make bench`
#   system-deps.sh --cluster  and what the images and the one-node Kubernetes of the tests are made with, for `make e2e`
# Where it cannot install, it says what to install, and fails unless only tests would miss it.
set -euo pipefail

docker="" cluster="" bench=""
for flag in "$@"; do
    case "$flag" in
        --docker) docker=1 ;;
        --bench) bench=1 ;;
        --cluster) docker=1 cluster=1 ;; # the images are built by the engine
        *)
            echo "usage: system-deps.sh [--docker] [--bench] [--cluster]" >&2
            exit 2
            ;;
    esac
done

python="${PYTHON:-python3}"

missing=()
need() { # need PACKAGE TEST...: the package, unless the test succeeds
    local package="$1"
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

shared_libpython() {
    "$python" - <<'PY'
import ctypes, sys, sysconfig
name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
for place in (f"{sysconfig.get_config_var('LIBDIR')}/", f"{sys.base_prefix}/lib/", ""):
    try:
        ctypes.CDLL(place + name)
        break
    except OSError:
        if not place:
            raise
PY
}

on_path() { # /usr/sbin is not on everybody's PATH
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1"
}

docker_engine() { # one that runs, Docker Desktop's too, or one that can be started
    [ -S /var/run/docker.sock ] || [ -n "${DOCKER_HOST:-}" ] || on_path dockerd
}

cni_plugins() {
    [ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ]
}

old_glibc() { # older than the one that perf_analyzer asks for
    "$python" -c 'import platform; raise SystemExit(tuple(map(int, platform.libc_ver()[1].split("."))) >= (2, 38))'
}

if ! command -v "$python" >/dev/null; then
    echo "error: $python: no such program; install python3 (3.10 to 3.13), or set PYTHON" >&2
    exit 1
fi
version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
case "$version" in
    3.10 | 3.11 | 3.12 | 3.13) ;;
    *)
        echo "error: $python is Python $version; the embedded Triton of the demo runs with 3.10 to 3.13: set PYTHON to one of them" >&2
        exit 1
        ;;
esac

need "python$version-venv" "$python" -c 'import ensurepip, venv'
# Triton's Python backend is linked to the interpreter's shared library.
need "libpython$version" shared_libpython
if [ "$docker" ]; then
    need docker.io docker_engine
    need openssl command -v openssl
fi
if [ "$bench" ] && [ -z "${PERF_ANALYZER:-}" ] && old_glibc; then
    need debootstrap on_path debootstrap
fi
if [ "$cluster" ]; then
    need debootstrap on_path debootstrap
    need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
    need containerd on_path containerd
    need runc on_path runc
    need containernetworking-plugins cni_plugins
    need conntrack on_path conntrack
    need iptables on_path iptables
    need iproute2 on_path ip
fi

if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
cannot() { # the tests that need the engine skip, and say so; for the rest it is the end
    if [ "$docker" ]; then
        echo "warning: $1; the tests that need it will be skipped" >&2
        exit 0
    fi
    echo "error: $1" >&2
    exit 1
}
if ! command -v apt-get >/dev/null; then
    cannot "this is not Debian or Ubuntu; install the equivalent of: ${missing[*]}"
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        cannot "run this first: sudo apt-get update && sudo apt-get install -y ${missing[*]}"
    fi
    as_root=(sudo -n)
fi
echo "installing ${missing[*]}"
# Through env, because sudo does not hand variables on.
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get)
# Without a network the lists that are there may do.
"${apt[@]}" update -qq || echo "warning: apt-get update failed; trying with the package lists that are there" >&2
if ! "${apt[@]}" install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
    cannot "apt-get could not install: ${missing[*]}"
fi
