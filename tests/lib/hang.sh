# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# One file that all hosts open as their LUN, which hangs or fails on command.
#
# Source it after lab.sh and lab_enter; needs /dev/fuse, and fence = drain.

# hang COMMAND... - tell the device (tests/tools/hangfs.c); prints its answer.
hang() {
    local line
    echo "$*" >&"$hang_in"
    read -r -t 10 -u "$hang_out" line
    echo "$line"
}

# held N - a condition: so many requests hang in the device.
held() {
    [[ $(hang held) == "$1" ]]
}

# hang_start - a check: the device is there, as the LUN of every host.
hang_start() {
    local h line
    for h in "${LAB_HOSTS[@]}"; do
        # shellcheck disable=SC2034,SC2004 # the lab reads it; it has names
        LAB_DEVICE[$h]=$LAB_RUN/hang/disk
    done
    mkdir "$LAB_RUN/hang"
    coproc HANG { exec "$BUILD/tests/tools/hangfs" "$LAB_RUN/hang" 16777216; }
    exec {hang_in}>&"${HANG[1]}" {hang_out}<&"${HANG[0]}"
    read -r -t 10 -u "$hang_out" line
    is "the device is there" "$line" ready
}
