# SPDX-License-Identifier: BSD-3-Clause
# The servers that are measured: each has a name, a URI, and processes.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2086,SC2153,SC2154,SC2317 # names shared with the others; words

declare -A URI PIDS BUFFERED
LOOPS=()
DISK=
DEVICE=
SIZE=${BENCH_SIZE:-512} # MiB

# ---- where the data is -----------------------------------------------------------

# lun_on_disk - a file whose blocks are all written, so that no server has to
# allocate; and one more for those that go through the page cache.
lun_on_disk() {
    local f
    DISK=$LAB_DIR/disk
    for f in disk buffered; do
        [[ -s $LAB_DIR/$f ]] || dd if=/dev/zero of="$LAB_DIR/$f" bs=1M \
            count="$SIZE" oflag=direct status=none ||
            lab_failed "no direct I/O in $LAB_DIR"
    done
}

# loop_device FILE - it goes when its last user has: no need to detach it.
loop_device() {
    local dev
    dev=$(losetup --find --show --direct-io=on "$1") ||
        lab_failed "no loop device"
    echo "$dev"
}

zram_device() {
    local n
    [[ -r /sys/class/zram-control/hot_add ]] || return 1
    n=$(cat /sys/class/zram-control/hot_add) || return 1
    echo "${SIZE}M" >"/sys/block/zram$n/disksize" || return 1
    echo "$n" >"$LAB_DIR/zram"
    [[ -b /dev/zram$n ]] || return 1
    dd if=/dev/urandom of="/dev/zram$n" bs=1M count="$SIZE" status=none 2>&1
    echo "/dev/zram$n"
}

swap_down() {
    servers_down
    zram_down
}

zram_down() {
    [[ -s $LAB_DIR/zram ]] || return 0
    within 2000 zram_reset
    rm -f "$LAB_DIR/zram"
}

zram_reset() {
    local n
    n=$(<"$LAB_DIR/zram")
    echo 1 >"/sys/block/zram$n/reset" &&
        echo "$n" >/sys/class/zram-control/hot_remove
}

# on_loopback DEVICE - our own programs reach it as their LUN; no network but lo.
on_loopback() {
    LAB_MODE=loopback
    DEVICE=$1
    [[ $DEVICE != /dev/loop* ]] || LOOPS+=("$DEVICE")
    ip link set lo up
    # shellcheck disable=SC2034 # lib/hosts.sh
    LAB_DEVICE=([a]=$DEVICE [b]=$DEVICE [c]=$DEVICE)
    [[ -d $LAB_DIR/pki ]] || pki_up || lab_failed "no certificates"
    host_config a && host_config b && host_config c
}

# ---- the servers -----------------------------------------------------------------

# serve NAME COMMAND... - in the background, as one of the measured processes.
serve() {
    local name=$1
    shift
    lab_start "$name" - "$@"
    PIDS[${name%%.*}]+=" ${LAB_PID[$name]}"
}

unix() {
    echo "nbd+unix:///${2-}?socket=$LAB_RUN/$1.nbd"
}

up_detour() {
    start_plugin a vm
    within 5000 route_is a local || lab_failed "the plugin is not local"
    PIDS[detour]=${LAB_PID[plugin-a-vm]}
    URI[detour]=$(uri a vm)
}

# Another host's plugin, so that both may be up.
up_detour_peer() {
    start_proxy b
    start_plugin c vm
    within 5000 proxy_is b serving || lab_failed "the proxy does not serve"
    within 5000 peer_serves c b || lab_failed "the peer is not ready"
    post plugin-c-vm /redirect '{"peer": "b"}' >/dev/null
    within 5000 route_is c "redirected b" || lab_failed "not redirected"
    PIDS[detour-peer]="${LAB_PID[plugin-c-vm]} ${LAB_PID[proxy-b]}"
    URI[detour-peer]=$(uri c vm)
}

up_bare() {
    serve bare nbdkit -f -U "$LAB_RUN/bare.nbd" \
        "$BUILD/tests/bench/nbdkit-bare-plugin.so" "device=$DEVICE"
    URI[bare]=$(unix bare)
}

up_qemu() { # NAME AIO
    serve "$1" qemu-nbd --persistent --shared=32 --format=raw --cache=none \
        --aio="$2" --socket="$LAB_RUN/$1.nbd" "$DEVICE"
    URI[$1]=$(unix "$1")
}

up_storage_daemon() {
    local driver=file
    [[ ! -b $DEVICE ]] || driver=host_device
    serve storage-daemon qemu-storage-daemon \
        --blockdev "driver=$driver,node-name=d,filename=$DEVICE,cache.direct=on,aio=native" \
        --nbd-server "addr.type=unix,addr.path=$LAB_RUN/storage-daemon.nbd,max-connections=32" \
        --export type=nbd,id=e,node-name=d,name=lun,writable=on
    URI[storage-daemon]=$(unix storage-daemon lun)
}

# It goes into the background by itself.
up_nbd_server() {
    local conf=$LAB_DIR/nbd-server.conf pid=$LAB_DIR/nbd-server.pid
    printf '[generic]\nunixsock=%s\n[lun]\nexportname=%s\n' \
        "$LAB_RUN/nbd-server.nbd" "$LAB_DIR/buffered" >"$conf"
    nbd-server -C "$conf" -p "$pid" >>"$LAB_DIR/log/nbd-server" 2>&1
    within 10000 test -s "$pid" || lab_failed "nbd-server does not start"
    PIDS[nbd-server]=$(<"$pid")
    LAB_PID[nbd-server]=${PIDS[nbd-server]}
    URI[nbd-server]=$(unix nbd-server lun)
    BUFFERED[nbd-server]=1
}

up_nbdkit_file() {
    serve nbdkit-file nbdkit -f -U "$LAB_RUN/nbdkit-file.nbd" \
        file "$LAB_DIR/buffered"
    URI[nbdkit-file]=$(unix nbdkit-file)
    BUFFERED[nbdkit-file]=1
}

# The file names that GnuTLS servers want.
server_creds() {
    local dir=$LAB_DIR/creds
    mkdir -p "$dir"
    ln -sf "$LAB_DIR/pki/ca-cert.pem" "$dir/ca-cert.pem"
    ln -sf "$LAB_DIR/pki/hosts/b-cert.pem" "$dir/server-cert.pem"
    ln -sf "$LAB_DIR/pki/hosts/b-key.pem" "$dir/server-key.pem"
    echo "$dir"
}

# bridge NAME PORT - nbdkit's client of a TLS server, for the VMs of host a.
bridge() {
    within 10000 listening "$2" || lab_failed "$1 does not listen"
    serve "$1.front" nbdkit -f -U "$LAB_RUN/$1.nbd" nbd \
        hostname="$(address b net1)" port="$2" tls=require \
        tls-certificates="$(tls_dir a)"
    URI[$1]=$(unix "$1")
}

listening() {
    ss -ltnH "sport = :$1" | grep -q .
}

# cache=none: what it has read it does not keep, as a LUN that others write to
# must not be kept.
up_nbdkit_tls() {
    serve nbdkit-tls.back nbdkit -f -i "$(address b net1)" -p 10901 \
        --tls=require --tls-certificates="$(server_creds)" --tls-verify-peer \
        file "$LAB_DIR/buffered" cache=none
    bridge nbdkit-tls 10901
    BUFFERED[nbdkit-tls]=1
}

up_qemu_tls() {
    serve qemu-tls.back qemu-nbd --persistent --shared=32 --format=raw \
        --cache=none --aio=native --bind="$(address b net1)" --port=10902 \
        --object "tls-creds-x509,id=tls,endpoint=server,dir=$(server_creds),verify-peer=yes" \
        --tls-creds=tls "$DEVICE"
    bridge qemu-tls 10902
}

up_stunnel() {
    local end conf key
    serve stunnel.nbd qemu-nbd --persistent --shared=32 --format=raw \
        --cache=none --aio=native --socket="$LAB_RUN/stunnel.back" "$DEVICE"
    for end in a b; do
        conf=$LAB_DIR/stunnel-$end.conf
        key=$LAB_DIR/pki/hosts/$end
        cat >"$conf" <<END
foreground = yes
pid =
syslog = no
sslVersion = TLSv1.3
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[nbd]
cert = $key-cert.pem
key = $key-key.pem
CAfile = $LAB_DIR/pki/ca-cert.pem
verifyChain = yes
END
    done
    cat >>"$LAB_DIR/stunnel-b.conf" <<END
accept = $(address b net1):10903
connect = $LAB_RUN/stunnel.back
END
    cat >>"$LAB_DIR/stunnel-a.conf" <<END
client = yes
accept = 127.0.0.1:10904
connect = $(address b net1):10903
END
    within 10000 test -S "$LAB_RUN/stunnel.back" || lab_failed "no qemu-nbd"
    serve stunnel.b stunnel4 "$LAB_DIR/stunnel-b.conf"
    serve stunnel.a stunnel4 "$LAB_DIR/stunnel-a.conf"
    URI[stunnel]=nbd://127.0.0.1:10904/
}

# server_up NAME - and wait until a client gets an answer.
server_up() {
    PIDS[$1]=
    case $1 in
    device) return ;; # fio itself
    qemu-native) up_qemu "$1" native ;;
    qemu-uring) up_qemu "$1" io_uring ;;
    *) "up_${1//-/_}" ;;
    esac
    within 5000 nbdinfo --size "${URI[$1]}" || lab_failed "$1 does not serve"
}

servers_down() {
    local name
    for name in "${!LAB_PID[@]}"; do
        case $name in
        plugin-* | proxy-*) stop "$name" ;;
        *) lab_kill "$name" KILL ;; # tgtd does not end otherwise
        esac
    done
    URI=() PIDS=()
}

everything_down() {
    local loop
    servers_down
    zram_down
    for loop in "${LOOPS[@]}"; do
        losetup --detach "$loop" 2>/dev/null
    done
    LOOPS=()
}
