#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Runs a scenario, and says what it hangs on when it does not end.
#
#   sh run.sh SCENARIO SECONDS
pid=
bash "/lab/tests/lab/inside/$1.sh" &
pid=$!
(
    sleep "$2"
    echo "$1: no end after $2 s; threads that wait in the kernel:"
    dmesg -c >/dev/null
    echo w >/proc/sysrq-trigger
    dmesg
    kill -KILL $pid
) >/dev/console 2>&1 &
dog=$!
wait $pid
status=$?
kill $dog 2>/dev/null
exit $status
