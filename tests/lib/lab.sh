# SPDX-License-Identifier: BSD-3-Clause
# The lab: a SAN and three hosts in network namespaces, and what breaks them.
# shellcheck shell=bash
#
#        san: tgtd, one LUN on two portals
#          |san1         |san2          10.77.1.0/24   10.77.2.0/24
#      +---+---+     +---+---+          SAN = .1; a, b, c = .11, .12, .13
#      a   b   c     a   b   c
#      +---+---+     +---+---+
#         net1          net2            10.77.11.0/24  10.77.12.0/24
#
# lab_enter runs the script again inside namespaces of its own: network, mount,
# process ids, and a user namespace when the caller is not root.  Whatever the
# script starts or mounts lives in there, so nothing is left behind, however it
# ends: the kernel ends it all together with the script.  Only the temporary
# folder is real, and both sides remove it.
#
# A cut moves a cable out of its bridge: frames vanish both ways and nobody is
# told, as with a dead switch.

LAB_LIB=$(dirname "${BASH_SOURCE[0]}")
LAB_TOP=$(realpath "$LAB_LIB/../..")
BUILD=$(realpath "${BUILD:-$LAB_TOP/build}")
LAB_HOSTS=(a b c)
LAB_IQN=iqn.2026-11.test.lab:san
LAB_LUN_SIZE=${LAB_LUN_SIZE:-256M}
LAB_TGTD=(tgtd) # what to run as it, before its arguments
# namespaces: all of the above.  loopback: no SAN and no cables, the LUN is a
# file that every host opens; for callers who cannot have namespaces.
# guest: the hosts share a guest's kernel (tests/lab/inside/guest.sh).
LAB_MODE=namespaces
declare -A LAB_PID # of what runs, by name: tgtd, proxy-a, plugin-a-vm, ...

# shellcheck source=tests/lib/tap.sh
. "$LAB_LIB/tap.sh"
# shellcheck source=tests/lib/hosts.sh
. "$LAB_LIB/hosts.sh"
# shellcheck source=tests/lib/load.sh
. "$LAB_LIB/load.sh"

# ---- time -----------------------------------------------------------------

# now_ms - milliseconds on a clock that nobody steps during a test.
now_ms() {
    echo $((${EPOCHREALTIME/[.,]/} / 1000))
}

# nap MS - a pause between two looks, without a process: nobody ever writes
# into this pipe.
exec {LAB_NEVER}<> <(:)
nap() {
    local s
    printf -v s '%d.%03d' $(($1 / 1000)) $(($1 % 1000))
    read -rt "$s" -u "$LAB_NEVER" || true
}

# within MS COMMAND... - repeats the command until it succeeds; fails when it
# has not after MS.
within() {
    local end=$(($(now_ms) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        (($(now_ms) < end)) || return 1
        nap 20
    done
    return 0
}

# ---- entering and leaving ---------------------------------------------------

LAB_UNSHARE=(--net --mount --pid --fork --mount-proc --kill-child=KILL)
((EUID == 0)) || LAB_UNSHARE+=(--map-root-user)

# lab_possible - can this caller have the namespaces?
lab_possible() {
    unshare "${LAB_UNSHARE[@]}" sh -c \
        'mount -t tmpfs lab /run && mkdir /run/netns && ip netns add x' \
        >/dev/null 2>&1
}

# lab_enter ARGUMENTS... - returns only inside the lab's namespaces, with
# LAB_DIR set to a folder on disk; the caller gives its "$@".
lab_enter() {
    local child rc life
    if [[ -n ${LAB_DIR-} ]]; then
        lab_inside
        return
    fi
    lab_possible ||
        skip_all "no namespaces here: neither root nor user namespaces"
    LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/detour-lab.XXXXXX") || exit 1
    trap 'rm -rf "$LAB_DIR"' EXIT
    # We alone hold this open for writing: the lab sees it end when we do.
    mkfifo "$LAB_DIR/life"
    exec {life}<>"$LAB_DIR/life"
    set -m # a process group of its own, so that one kill reaches all of it
    BUILD=$BUILD LAB_DIR=$LAB_DIR unshare "${LAB_UNSHARE[@]}" \
        bash "$0" "$@" <"$LAB_DIR/life" {life}>&- &
    child=$!
    trap 'kill -INT -- -"$child"' INT
    trap 'kill -TERM -- -"$child"' TERM HUP
    rc=129
    while ((rc > 128)) && kill -0 "$child" 2>/dev/null; do
        wait "$child" 2>/dev/null # a signal of ours ends this early
        rc=$?
    done
    exit "$rc"
}

lab_inside() {
    local life
    exec {life}<&0 </dev/null
    (
        read -r -u "$life"
        kill -TERM 0 # the whole group: this shell may wait for a program
    ) &
    exec {life}<&-
    trap 'rm -rf "$LAB_DIR"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    LAB_RUN=/run/lab # short, since names of Unix sockets must be
    mount -t tmpfs lab /run && mkdir /run/netns $LAB_RUN "$LAB_DIR/log"
}

# lab_enter_loopback - the poor caller's lab, in this very process.
lab_enter_loopback() {
    LAB_MODE=loopback
    LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/detour-lab.XXXXXX") || exit 1
    LAB_RUN=$LAB_DIR/run
    trap lab_kill_all EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    mkdir "$LAB_DIR/log"
}

lab_kill_all() {
    local name
    for name in "${!LAB_PID[@]}"; do
        lab_kill "$name" KILL
    done
    rm -rf "$LAB_DIR"
}

# lab_up - the SAN, the cables, the hosts with their configurations and
# certificates; no program of ours runs yet.
lab_up() {
    local h
    if [[ $LAB_MODE == namespaces ]]; then
        { net_up && san_up; } || lab_failed "the SAN does not come up"
    else
        truncate -s "$LAB_LUN_SIZE" "$LAB_DIR/lun1"
    fi
    pki_up || lab_failed "no certificates"
    sanitizer_wrap
    for h in "${LAB_HOSTS[@]}"; do
        host_config "$h"
    done
}

# lab_failed WHY - the lab itself is broken: say all that is known, and end.
lab_failed() {
    fail "the lab works" "$1"
    lab_dump
    tap_end
    exit 1
}

# lab_end - the last command of a script: ends what runs, checks that all of it
# ended well, prints the plan.
lab_end() {
    local name
    for name in "${!LAB_PID[@]}"; do
        case $name in
        plugin-* | proxy-*) stop "$name" ;;
        esac
    done
    check "no program crashed or leaked" lab_logs_clean
    ((TAP_FAILED == 0)) || lab_dump
    tap_end
}

lab_logs_clean() {
    ! grep -EH 'Sanitizer|runtime error:|[Aa]ssertion|SIGSEGV|core dumped' \
        "$LAB_DIR"/log/*
}

# lab_dump - the end of every log.
lab_dump() {
    local log
    for log in "$LAB_DIR"/log/*; do
        diag "---- ${log##*/}" "$(wc -l <"$log") lines"
        tail -n "${LAB_DUMP_LINES:-60}" "$log" | sed 's/^/# /'
    done
}

# ---- processes ---------------------------------------------------------------

# in_host HOST COMMAND... - run it there, in place of the (sub)shell's child.
in_host() {
    local host=$1
    shift
    if [[ $LAB_MODE == namespaces ]]; then
        nsenter --net="/run/netns/$host" -- "$@"
    else
        "$@"
    fi
}

# lab_start NAME HOST COMMAND... - in the background, its output in log/NAME.
lab_start() {
    local name=$1 host=$2 enter=()
    shift 2
    [[ $LAB_MODE != namespaces ]] || enter=(nsenter "--net=/run/netns/$host" --)
    "${enter[@]}" "$@" >>"$LAB_DIR/log/$name" 2>&1 </dev/null &
    LAB_PID[$name]=$!
}

# running NAME - is it still there?
running() {
    [[ -n ${LAB_PID[$1]-} ]] && kill -0 "${LAB_PID[$1]}" 2>/dev/null
}

gone() {
    ! running "$1"
}

# lab_kill NAME SIGNAL - at once, and reap it.
lab_kill() {
    local pid=${LAB_PID[$1]-}
    [[ -n $pid ]] || return 0
    kill "-$2" "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    unset "LAB_PID[$1]"
}

# ---- cables --------------------------------------------------------------------

host_number() {
    case $1 in
    a) echo 1 ;;
    b) echo 2 ;;
    c) echo 3 ;;
    h[1-9]*) echo "${1#h}" ;; # many of them: LAB_HOSTS=(h1 h2 ...)
    *) return 1 ;;
    esac
}

# address HOST NETWORK - NETWORK is san1, san2, net1 or net2; HOST also "san".
address() {
    local last=1 third
    [[ $1 == san ]] || last=$((10 + $(host_number "$1")))
    case $2 in
    san?) third=${2#san} ;;
    net?) third=1${2#net} ;;
    esac
    if [[ $LAB_MODE == namespaces ]]; then
        echo "10.77.$third.$last"
    else
        echo "127.77.$third.$last"
    fi
}

# machine_up NAME NETWORK... - a namespace with one cable to each network.
machine_up() {
    local name=$1 n ip dad=
    shift
    {
        echo "netns add $name"
        for n; do
            echo "link add $name-$n type veth peer name $n netns $name"
            echo "link set $name-$n master $n up"
        done
    } | ip -batch - || return 1
    {
        echo "link set lo up"
        for n; do
            ip=$(address "$name" "$n")
            # an IPv6 address is of use at once only without the search for
            # others that have it
            [[ $ip == *:* ]] && dad=nodad
            echo "addr add $ip/24 dev $n $dad"
            echo "link set $n up"
        done
    } | ip -n "$name" -batch -
}

net_up() {
    local n h
    for n in san1 san2 net1 net2; do
        echo "link add $n type bridge"
        echo "link set $n up"
    done | ip -batch - || return 1
    machine_up san san1 san2 || return 1
    for h in "${LAB_HOSTS[@]}"; do
        machine_up "$h" san1 san2 net1 net2 || return 1
    done
}

# cut_path HOST N, cut_network HOST N - frames vanish both ways, silently.
cut_path() {
    ip link set "$1-san$2" nomaster
}

cut_network() {
    ip link set "$1-net$2" nomaster
}

heal_network() {
    ip link set "$1-net$2" master "net$2"
}

# black_hole HOST - both paths swallow everything.
black_hole() {
    cut_path "$1" 1 && cut_path "$1" 2
}

# reset_path HOST N - the path answers with TCP resets from now on, and the
# connections over it are reset.
reset_path() {
    nsenter --net=/run/netns/san sh -c "
        nft add element ip lab resets { $(address "$1" "san$2") } &&
        ss -K dst $(address "$1" "san$2")" >/dev/null 2>&1
}

# heal_path HOST N - whatever was done to it is undone.
heal_path() {
    nsenter --net=/run/netns/san nft delete element ip lab resets \
        "{ $(address "$1" "san$2") }" 2>/dev/null
    ip link set "$1-san$2" master "san$2"
}

heal_paths() {
    heal_path "$1" 1 && heal_path "$1" 2
}

# power_off HOST - gone without a word: no FIN, no reset, nothing retransmitted.
power_off() {
    local n name
    for n in san1 san2 net1 net2; do
        ip link del "$1-$n"
    done
    for name in "${!LAB_PID[@]}"; do
        [[ $name != *-"$1" && $name != *-"$1"-* ]] || lab_kill "$name" KILL
    done
    ip netns del "$1"
    rm -rf "${LAB_RUN:?}/$1"
}

# power_on HOST - with its cables and its disk, but no program runs.
power_on() {
    machine_up "$1" san1 san2 net1 net2 && host_config "$1"
}

# ---- the SAN ---------------------------------------------------------------------

tgt() {
    TGT_IPC_SOCKET=$LAB_RUN/tgtd.sock tgtadm -C 1 --lld iscsi "$@"
}

san_up() {
    local burst
    # tgtd 1.0.85 spins when a host that it sends to vanishes with its send
    # buffer full (fixed in 1.0.89): let the buffer never be full.
    nsenter --net=/run/netns/san sh -c \
        'echo 4096 67108864 134217728 >/proc/sys/net/ipv4/tcp_wmem' || return 1
    nsenter --net=/run/netns/san nft -f - <<'NFT' || return 1
table ip lab {
    set resets { type ipv4_addr; }
    chain in {
        type filter hook input priority 0;
        ip saddr @resets meta l4proto tcp reject with tcp reset
    }
}
NFT
    TGT_IPC_SOCKET=$LAB_RUN/tgtd.sock lab_start tgtd san "${LAB_TGTD[@]}" -f -C 1 \
        --iscsi "portal=$(address san san1):3260,portal=$(address san san2):3260"
    within 5000 tgt --op show --mode target || return 1
    tgt --op new --mode target --tid 1 -T "$LAB_IQN" || return 1
    for burst in MaxRecvDataSegmentLength MaxXmitDataSegmentLength \
        FirstBurstLength MaxBurstLength; do
        tgt --op update --mode target --tid 1 -n "$burst" -v 262144 || return 1
    done
    tgt --op update --mode target --tid 1 -n InitialR2T -v No
    san_lun 1 && tgt --op bind --mode target --tid 1 -I ALL
}

# san_lun N [SIZE] - export one more LUN, a new file.
san_lun() {
    truncate -s "${2-$LAB_LUN_SIZE}" "$LAB_DIR/lun$1"
    tgt --op new --mode logicalunit --tid 1 --lun "$1" --bstype rdwr \
        --bsoflags direct -b "$LAB_DIR/lun$1" &&
        tgt --op update --mode logicalunit --tid 1 --lun "$1" \
            --params thin_provisioning=1
}

# lun_device N - the device string of a LUN, as every host reaches it.
lun_device() {
    if [[ $LAB_MODE == loopback ]]; then
        echo "$LAB_DIR/lun$1"
    else
        echo "iscsi://$(address san san1):3260,$(address san san2):3260/$LAB_IQN/$1"
    fi
}

# freeze_san, thaw_san - the array hangs, for everybody.
freeze_san() {
    kill -STOP "${LAB_PID[tgtd]}"
}

thaw_san() {
    kill -CONT "${LAB_PID[tgtd]}"
}
