#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The usual NBD clients, against the plugin and against a proxy.
#
# Goal: qemu-img, qemu-io, nbdinfo, nbdcopy and libnbd's Python work with both,
# with the features they use: sizes, flags, FUA, zero, trim, block status.
# Timeline: none.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
dd if=/dev/urandom of="$LAB_DIR/image" bs=1M count=16 status=none
tls=$(tls_dir a)
address=$(address b net1)
creds=tls-creds-x509,id=tls,endpoint=client,dir=$tls
port=$(lab_port)
through_proxy="driver=nbd,host=$address,port=$port,export=$LAB_LUN,tls-creds=tls"
through_plugin="driver=nbd,path=$(socket a)"

# on_a COMMAND... - the proxies listen on the hosts' networks
on_a() {
    in_host a timeout 60 "$@"
}

# clients_of WHERE URI QEMU-OPTIONS CAN-TRIM
clients_of() {
    local where=$1 uri=$2 qemu=$3 trim=$4 json

    json=$(on_a nbdinfo --json "$uri")
    is "$where: nbdinfo: size" \
        "$(jq '.exports[0]."export-size"' <<<"$json")" 268435456
    is "$where: nbdinfo: flags" "$(jq -c '.exports[0] |
        [."is_read_only", ."can_flush", ."can_fua", ."can_multi_conn",
         ."can_trim", ."can_zero"]' <<<"$json")" \
        "[false,true,true,true,$trim,true]"
    check "$where: nbdinfo: block status" on_a nbdinfo --map "$uri"
    check "$where: nbdcopy to" on_a nbdcopy "$LAB_DIR/image" "$uri"
    check "$where: nbdcopy from" on_a nbdcopy "$uri" "$LAB_DIR/all"
    check "$where: every bit" cmp -n 16777216 "$LAB_DIR/image" "$LAB_DIR/all"

    check "$where: qemu-img info" on_a qemu-img info --object "$creds" \
        --image-opts "$qemu"
    check "$where: qemu-img map" on_a qemu-img map --object "$creds" \
        --image-opts "$qemu"
    check "$where: qemu-img compare" on_a qemu-img compare --object "$creds" \
        --image-opts "$qemu" "driver=raw,file.filename=$LAB_DIR/all"
    check "$where: qemu-io write, FUA, zero, discard, flush, read" \
        on_a qemu-io --object "$creds" --image-opts "$qemu" \
        -c "write -P 0x11 1M 64k" -c "write -f -P 0x22 1088k 4k" \
        -c "write -z 1152k 64k" -c "write -z -u 1216k 64k" \
        -c "discard 4M 1M" -c flush \
        -c "aio_write -P 0x33 2M 128k" -c "aio_write -P 0x44 3M 128k" \
        -c aio_flush -c "read -P 0x11 1M 64k" -c "read -P 0x22 1088k 4k" \
        -c "read -P 0 1152k 128k" -c "read -P 0x33 2M 128k" \
        -c "read -P 0x44 3M 128k" -c "write -P 0x55 512 512" \
        -c "read -P 0x55 512 512"
    check "$where: libnbd: four connections see one another's writes" \
        on_a_python "$uri"
}

on_a_python() {
    local script='
import sys, nbd
c = []
for i in range(4):
    h = nbd.NBD()
    h.set_uri_allow_local_file(True)
    h.connect_uri(sys.argv[1])
    assert h.can_multi_conn()
    c.append(h)
for i in range(64):
    data = bytes([i + 1]) * 65536
    c[i % 4].pwrite(data, i * 65536)
    assert c[(i + 1) % 4].pread(65536, i * 65536) == data
c[0].flush()
c[1].zero(65536, 0)
assert c[2].pread(65536, 0) == bytes(65536)
c[2].pwrite(b"x" * 4096, 8192, nbd.CMD_FLAG_FUA)
assert c[3].pread(4096, 8192) == b"x" * 4096
big = bytes(range(256)) * 32768
c[0].pwrite(big, 32 << 20)
assert c[1].pread(len(big), 32 << 20) == big
for h in c:
    h.shutdown()
'
    declare -f nbd_python >"$LAB_DIR/python.sh"
    # shellcheck disable=SC2016 # for the inner shell
    on_a bash -c '. "$0"; nbd_python "$@"' "$LAB_DIR/python.sh" "$script" "$1"
}

# The plugin always takes a trim, and does nothing where it cannot: the next
# peer may.  With tgtd nobody can, since it fences no UNMAP.
clients_of plugin "$(uri a)" "$through_plugin" true
clients_of proxy "$(proxy_uri a b)" "$through_proxy" false
check "a is told to redirect" post plugin-a-vm /redirect
expect_route a "redirected *" 3000
clients_of redirected "$(uri a)" "$through_plugin" true

check "the proxy lists the LUN" on_a nbdinfo --list --json \
    "$(proxy_uri a b | sed "s|/$LAB_LUN?|/?|")"
check_fails "the proxy has no other export" "." on_a nbdinfo \
    "$(proxy_uri a b | sed "s|/$LAB_LUN?|/other?|")"

# Thin, and nobody to be fenced: now a trim reaches the LUN.
post plugin-a-vm /return >/dev/null
expect_route a local 5000
for h in "${LAB_HOSTS[@]}"; do
    stop_plugin "$h"
    stop_proxy "$h"
done
# a new LUN: the old one carries a reservation, which forgets nobody
tgt --op delete --mode logicalunit --tid 1 --lun 1
san_lun 2
tgt --op update --mode logicalunit --tid 1 --lun 2 --params thin_provisioning=1
LAB_FENCE=drain
for h in "${LAB_HOSTS[@]}"; do
    LAB_DEVICE[$h]=$(lun_device 2)
    host_config "$h"
done
start_hosts
trims() {
    on_a qemu-io --image-opts "$through_plugin" -c "write -P 0x66 4M 2M" \
        -c flush -c "read -P 0x66 4M 2M" -c "discard 4M 1M" -c flush \
        -c "read -P 0 4M 1M" -c "read -P 0x66 5M 1M"
}
check "thin: the proxy offers trim" on_a nbdinfo --can trim "$(proxy_uri a b)"
check "thin, local: what was trimmed reads as zeroes" trims
check "a is told to redirect" post plugin-a-vm /redirect
expect_route a "redirected *" 3000
check "thin, redirected: what was trimmed reads as zeroes" trims
lab_end
