# SPDX-License-Identifier: BSD-3-Clause
# The jobs, and what each of them costs each server.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2086,SC2153,SC2154,SC2317 # names shared with the others; words

# NAME=fio's rw:block size:requests under way on a connection:connections
ALL_JOBS=(
    4k-read-qd1=randread:4k:1:1 4k-read-qd8=randread:4k:8:1
    4k-read-qd32=randread:4k:32:1 4k-read-qd128=randread:4k:128:1
    4k-write-qd1=randwrite:4k:1:1 4k-write-qd8=randwrite:4k:8:1
    4k-write-qd32=randwrite:4k:32:1 4k-write-qd128=randwrite:4k:128:1
    128k-read-qd8=read:128k:8:1 128k-write-qd8=write:128k:8:1
    1m-read-qd8=read:1m:8:1 1m-write-qd8=write:1m:8:1
    4k-read-4x8=randread:4k:8:4 4k-read-8x8=randread:4k:8:8
    1m-read-4x8=read:1m:8:4
    8k-mixed-4x8=randrw:8k:8:4
)
FEW_JOBS=(
    4k-read-qd1=randread:4k:1:1 4k-read-qd32=randread:4k:32:1
    4k-write-qd32=randwrite:4k:32:1
    128k-read-qd8=read:128k:8:1 128k-write-qd8=write:128k:8:1
    4k-read-4x8=randread:4k:8:4
)
RUN_MS=${BENCH_MS:-400}

# cpu_ms PID... - CPU time that these and their children have used, ms.
cpu_ms() {
    cat /proc/[0-9]*/stat 2>/dev/null | awk -v roots="$*" '
        BEGIN { n = split(roots, r); for (i = 1; i <= n; i++) mine[r[i]] = 1 }
        {
            pid = $1
            sub(/.*\) /, "")      # the name may hold anything
            parent[pid] = $2
            ticks[pid] = $12 + $13 + $14 + $15
        }
        END {
            for (pid in ticks) {
                p = pid
                while (p != "" && !(p in mine))
                    p = p in parent ? parent[p] : ""
                if (p != "")
                    sum += ticks[pid]
            }
            printf "%d\n", sum * 1000 / '"$(getconf CLK_TCK)"'
        }'
}

# run_fio SERVER RW:BS:DEPTH:CONNECTIONS - its answer in $LAB_DIR/fio.json.
run_fio() {
    local rw bs depth conns target=()
    IFS=: read -r rw bs depth conns <<<"$2"
    if [[ $1 == device ]]; then
        target=(--ioengine=libaio --direct=1 "--filename=$DEVICE")
    else
        target=(--ioengine=nbd "--uri=${URI[$1]}")
    fi
    fio --name=job "${target[@]}" --rw="$rw" --rwmixread=70 --bs="$bs" \
        --iodepth="$depth" --numjobs="$conns" --thread --group_reporting \
        --norandommap --randseed="$RANDOM" --size="${SIZE}m" \
        --time_based --runtime="${RUN_MS}ms" --percentile_list=99 \
        --output-format=json --output="$LAB_DIR/fio.json" \
        >>"$LAB_DIR/log/fio" 2>&1
}

# cell BENCH JOB SPEC SERVER ROUND - run it and write what came of it.
cell() {
    local before after pids=${PIDS[$4]-}
    before=$(cpu_ms $pids)
    run_fio "$4" "$3" || lab_failed "fio fails: $2 at $4"
    after=$(cpu_ms $pids)
    # what lies in the page cache must not go out while another one is measured
    [[ -z ${BUFFERED[$4]-} || $2 == *-read-* ]] || sync "$LAB_DIR/buffered"
    sed -n '/^{/,$p' "$LAB_DIR/fio.json" | jq -c --arg bench "$1" \
        --arg job "$2" --arg server "$4" --argjson round "$5" \
        --argjson cpu $((after - before)) \
        --argjson buffered "${BUFFERED[$4]:-0}" '
        .jobs[0] | (.read.total_ios + .write.total_ios) as $n |
        if .error != 0 or $n == 0 then error("fio saw errors") else {
            bench: $bench, job: $job, server: $server, round: $round,
            buffered: ($buffered == 1),
            iops: (.read.iops + .write.iops),
            mib_s: ((.read.bw_bytes + .write.bw_bytes) / 1048576),
            mean_us: ((.read.lat_ns.mean * .read.total_ios +
                       .write.lat_ns.mean * .write.total_ios) / $n / 1000),
            p99_us: ([.read, .write |
                      .clat_ns.percentile["99.000000"] // 0] | max / 1000),
            ops: $n, cpu_us_op: ($cpu * 1000 / $n)
        } end' >>"$RAW" || lab_failed "no result: $2 at $4"
}

# measure BENCH JOBS SERVER... - every job on every server, in turn.
measure() {
    local bench=$1 jobs=$2 job server round
    shift 2
    for server; do
        server_up "$server"
    done
    for server; do # warm: buffers, connections of the plugin, certificates
        run_fio "$server" randread:4k:4:1 || lab_failed "$server: fio fails"
    done
    for job in $jobs; do
        for ((round = 1; round <= ROUNDS; round++)); do
            for server; do
                cell "$bench" "${job%%=*}" "${job#*=}" "$server" "$round"
            done
        done
    done
    servers_down
}
