# SPDX-License-Identifier: BSD-3-Clause
# More ways to break the lab than cables: networks that lose some packets, and
# processes that run out of what the machine gives them.
# shellcheck shell=bash

# Networks of the lab: san1, san2, net1, net2.  Rules lie in a table of the
# host's own namespace, one chain in each direction; packets are taken as they
# come in, or before they leave.

# filter_up HOST - an empty table, once.
filter_up() {
    in_host "$1" nft list table inet faults >/dev/null 2>&1 && return
    in_host "$1" nft -f - <<'NFT'
table inet faults {
    chain in { type filter hook input priority 0; }
    chain out { type filter hook output priority 0; }
}
NFT
}

# filter HOST in|out NETWORK STATEMENT... - for what comes from, or goes to,
# that network.
filter() {
    local host=$1 way=$2 network=$3 side=iifname
    shift 3
    [[ $way == in ]] || side=oifname
    filter_up "$host" &&
        in_host "$host" nft add rule inet faults "$way" "$side" "$network" "$@"
}

# lose_all HOST in|out NETWORK - one way only: the other still works.
lose_all() {
    filter "$1" "$2" "$3" drop
}

# lose_some HOST NETWORK PERCENT - both ways, by chance.
lose_some() {
    filter "$1" in "$2" numgen random mod 100 '<' "$3" drop &&
        filter "$1" out "$2" numgen random mod 100 '<' "$3" drop
}

# lose_big HOST NETWORK BYTES - packets longer than that, both ways, and without
# the ICMP that would tell: jumbo frames over a switch that has none.
lose_big() {
    filter "$1" in "$2" meta length '>' "$3" drop &&
        filter "$1" out "$2" meta length '>' "$3" drop
}

# filter_off HOST - no packet is lost any more.
filter_off() {
    in_host "$1" nft delete table inet faults 2>/dev/null
    return 0
}

# jumbo NETWORK - frames of 9000 bytes on all its cables.
jumbo() {
    local h machines=("${LAB_HOSTS[@]}")
    [[ $1 == net* ]] || machines+=(san)
    for h in "${machines[@]}"; do
        ip link set "$h-$1" mtu 9000 &&
            ip -n "$h" link set "$1" mtu 9000 || return 1
    done
    ip link set "$1" mtu 9000
}

# slow HOST NETWORK RATE - both ways, RATE as tc knows it: "4mbit".
slow() {
    tc qdisc add dev "$1-$2" root tbf rate "$3" burst 16k latency 500ms &&
        tc -n "$1" qdisc add dev "$2" root tbf rate "$3" burst 16k latency 500ms
}

# slow_off HOST NETWORK
slow_off() {
    tc qdisc del dev "$1-$2" root
    tc -n "$1" qdisc del dev "$2" root
}

# ---- what a machine runs out of ------------------------------------------------

# no_descriptors NAME - the process gets no new file descriptor from now on.
# The soft limit alone: descriptors_back can raise it again.
no_descriptors() {
    local pid=${LAB_PID[$1]} most
    most=$(find "/proc/$pid/fd" -mindepth 1 -maxdepth 1 -printf '%f\n' |
        sort -n | tail -n 1)
    # holes below the highest are filled first: leave none
    prlimit --pid "$pid" --nofile="$(fewest_free "$pid" "$most"):"
}

# fewest_free PID HIGHEST - the lowest number that is not in use.
fewest_free() {
    local fd
    for ((fd = 0; fd <= $2; fd++)); do
        [[ -e /proc/$1/fd/$fd || -L /proc/$1/fd/$fd ]] || break
    done
    echo "$fd"
}

descriptors_back() {
    prlimit --pid "${LAB_PID[$1]}" --nofile=1024:
}

# no_memory NAME - the process gets no more address space from now on.
no_memory() {
    local pid=${LAB_PID[$1]} pages
    read -r pages _ <"/proc/$pid/statm"
    prlimit --pid "$pid" --as="$((pages * 4096)):"
}

memory_back() {
    prlimit --pid "${LAB_PID[$1]}" --as=unlimited:
}

# cpu_ms NAME - what it has used, all its threads.
cpu_ms() {
    awk -v hz="$(getconf CLK_TCK)" \
        '{ sub(/.*\) /, ""); print int(($12 + $13) * 1000 / hz) }' \
        "/proc/${LAB_PID[$1]}/stat"
}

# idle NAME MS - a check: for one second it uses at most so much of a processor.
idle() {
    local before after
    before=$(cpu_ms "$1")
    nap 1000
    after=$(cpu_ms "$1")
    at_most "$1 does not spin" $((after - before)) "$2"
}
