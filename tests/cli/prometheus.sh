#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A real Prometheus scrapes detour-health: it takes every sample, and a process
# that dies is a gap and not old numbers.
set -u

TOP=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/lib/health.sh
. "$TOP/tests/lib/health.sh"

command -v prometheus >/dev/null || skip_all "prometheus is not installed"
cp "$BUILD/detour-health" "$dir"
pki_up >"$dir/pki.log" 2>&1 || skip_all "detour-pki: $(tail -1 "$dir/pki.log")"
host h1 ''
plugin h1 vm1 a local
proxy h1
start h1 plugin-vm1-a
start h1 proxy
start_health h1

cat >"$dir/prometheus.yml" <<END
global: {scrape_interval: 500ms}
scrape_configs:
  - job_name: detour
    static_configs: [{targets: ["$net.1:$port"]}]
END
prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/tsdb" \
    --web.listen-address="$net.3:9090" >"$dir/prometheus.log" 2>&1 &
PIDS[prometheus]=$!

# query EXPRESSION - its values, one a line, in $dir/body.
query() {
    curl --silent --max-time 5 --get --data-urlencode "query=$1" \
        "http://$net.3:9090/api/v1/query" |
        jq -r '.data.result[].value[1]' >"$dir/body" 2>/dev/null
}

# value NAME MS EXPRESSION VALUE - one line of TAP; "" is no value.
value() {
    has_value() { query "$1" && [[ $(<"$dir/body") == "$2" ]]; }
    if within "$2" has_value "$3" "$4"; then
        pass "$1 ($took of $2 ms)"
    else
        fail "$1" "$3 is '$(<"$dir/body")', not '$4'
$(tail -5 "$dir/prometheus.log")"
    fi
}

value "Prometheus scrapes it" 20000 'up{job="detour"}' 1
value "a state" 3000 'detour_route_state{lun="vm1",state="local"}' 1
value "a histogram" 3000 \
    'round(1e6 * histogram_quantile(0.3, detour_request_duration_seconds_bucket))' \
    90
value "no sample was refused" 3000 'scrape_samples_scraped
    - scrape_samples_post_metric_relabeling' 0
complaints() { grep -E 'level=(warn|error)' "$dir/prometheus.log"; }
check_fails "nor complained of" '' complaints

kill_it h1 plugin-vm1-a
value "a process that dies is down" 5000 \
    'detour_process_up{process="plugin-vm1-a"}' 0
value "its numbers end" 5000 'detour_route_state{state="local"}' ''
start h1 plugin-vm1-a
value "and come back" 5000 'detour_route_state{state="local"}' 1

tap_end
