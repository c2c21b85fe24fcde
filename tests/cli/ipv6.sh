#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The hosts reach one another over IPv6.
#
# Goal: proxies listen on IPv6 addresses, also on one that the host does not
# have yet; a plugin verifies the address of its peer and takes the detour.
# Timeline: 0 both paths of a are cut; <= 5 s it is redirected.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"

# The lab's cables take /24: that leaves a network of its own to each.
address() {
    local last=1
    [[ $1 == san ]] || last=$((10 + $(host_number "$1")))
    case $2 in
    san?) echo "10.77.${2#san}.$last" ;;
    net?) echo "fd77:1${2#net}00::$last" ;;
    esac
}

[[ -e /proc/net/if_inet6 ]] || skip_all "no IPv6 in this kernel"
lab_enter "$@"
lab_up
start_hosts
uri=nbds://[$(address b net1)]:$(lab_port)/$LAB_LUN
uri+="?tls-certificates=$(tls_dir a)"

served() {
    [[ $(in_host a timeout 10 nbdinfo --size "$uri") == 268435456 ]]
}

# Every standby connection of a, over both networks.
all_parked() {
    [[ $(field plugin-a-vm '[.peers[].links[].state] | unique | join(" ")') \
        == parked ]]
}

sees_both() {
    [[ $(field "proxy-${peer#redirected }" \
        '[.luns[].sessions[].connections[].address | sub(":[0-9]*$"; "")]
        | unique | join(" ")') == "[$(address a net1)] [$(address a net2)]" ]]
}

check "a is local" within 10000 route_is a local
check "a standard client is served" within 10000 served
check "a is connected over both networks" within 10000 all_parked
load_start a
expect_io a 5000
black_hole a
expect_route a "redirected *" 5000
expect_io a 3000
peer=$(route_of a)
check "$peer sees both of a's addresses" within 5000 sees_both
heal_paths a
expect_route a local 10000
expect_no_error a

# The network comes up after the proxy.
stop_proxy b
ip -n b addr del "$(address b net2)/24" dev net2
start_proxy b
ip -n b addr add "$(address b net2)/24" dev net2 nodad
check "an address that came late is served" within 5000 in_host a timeout 10 \
    nbdinfo --size "${uri/"$(address b net1)"/"$(address b net2)"}"
lab_end
