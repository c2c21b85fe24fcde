# SPDX-License-Identifier: BSD-3-Clause
# Two paths of a dm-multipath map go one by one and come back.
# shellcheck shell=bash
#
# Goal: no error, no mismatch; one path is enough; without any a peer carries
# it over TLS; a path that comes back is registered again before it carries a
# write, so that its first write is no conflict that anybody sees.
# Timeline: path 1 cut, back; both cut: the route is redirected when requests
# fail (at once) and home 1 s + 0.1 s after both answer again.

# shellcheck source=tests/lab/inside/guest.sh
. "$(dirname "$0")/guest.sh"
lab_enter "$@"

LAB_HOSTS=(a b c)
lab_up
start_hosts
is "all hosts see one LUN: by the map's name, through a map, on a disk" \
    "$(for h in "${LAB_HOSTS[@]}"; do value "plugin-$h-vm" lun_status.id; done | uniq)" \
    "naa.${LUN_WWID#3}"
check "a is registered on both of its paths" within 3000 registrations_are a 2
check "c, on a plain disk, on its one" within 3000 registrations_are c 1
load_start a --rate 25 --depth 4

load_mark a one-cut
cut_path a 1
check "dm takes path 1 out" within 5000 dm_active a 1
expect_io a 5000
is "one path is enough" "$(route_of a)" local
heal_path a 1
check "multipathd puts it back" within 5000 dm_active a 2
check "both paths of a are registered" within 5000 registrations_are a 2

load_mark a both-cut
cut_paths a
expect_route a "redirected *" 5000
expect_io a 5000
check "dm has no path left" within 5000 dm_active a 0
load_mark a home
heal_paths a
expect_route a local 15000
check "multipathd puts both back" within 5000 dm_active a 2
check "both paths of a are registered again" within 5000 registrations_are a 2
expect_io a 5000
expect_no_error a
lab_end
