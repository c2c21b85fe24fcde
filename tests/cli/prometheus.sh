#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A real Prometheus scrapes detour-health: it takes every sample, a process that
# dies is a gap and not old numbers, and in a staged outage the alerts fire and
# clear.
set -u

TOP=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/lib/health.sh
. "$TOP/tests/lib/health.sh"

command -v prometheus >/dev/null || skip_all "prometheus is not installed"
cp "$BUILD/detour-health" "$dir"
pki_up >"$dir/pki.log" 2>&1 || skip_all "detour-pki: $(tail -1 "$dir/pki.log")"
host h1 'redirect_alarm = 1m'
plugin h1 vm1 a local
proxy h1
start h1 plugin-vm1-a
start h1 proxy
start_health h1

# The rules, with the patience of a test.
sed -E 's/for: .*/for: 1s/; s/\[[0-9]+[mh]\]/[5s]/' \
    "$TOP/deploy/prometheus/detour.rules.yml" >"$dir/detour.rules.yml"
cat >"$dir/prometheus.yml" <<END
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [detour.rules.yml]
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

# ---- the dashboard -----------------------------------------------------------

# empty_panels - panels of the dashboard that would show nothing, with why.
empty_panels() {
    local title expr
    jq -r '.panels[] | .title as $t | .targets[] | "\($t)\t\(.expr |
        gsub("\\$__rate_interval"; "5s") | gsub("\\$(instance|lun)"; ".*"))"' \
        "$TOP/deploy/grafana/detour.json" >"$dir/panels"
    while IFS=$'\t' read -r title expr; do
        query "$expr"
        [[ -s $dir/body ]] || echo "$title: $expr"
    done <"$dir/panels"
}
is "each panel of the dashboard has something to show" "$(empty_panels)" ''
check "and there are many" test "$(wc -l <"$dir/panels")" -gt 20

# ---- a staged outage ---------------------------------------------------------

# firing ALERT... - these are firing and no others; what is, is in $dir/body.
firing() {
    curl --silent --max-time 5 "http://$net.3:9090/api/v1/alerts" |
        jq -r '[.data.alerts[] | select(.state == "firing") |
                .labels.alertname] | unique | .[]' >"$dir/body" 2>/dev/null
    [[ $(<"$dir/body") == "$(printf '%s\n' "$@" | sort)" ]]
}

# alerts NAME [ALERT...] - one line of TAP.
alerts() {
    local name=$1
    shift
    if within 15000 firing "$@"; then
        pass "$name ($took of 15000 ms)"
    else
        fail "$name" "firing: $(tr '\n' ' ' <"$dir/body")
wanted: $*"
    fi
}

alerts "all is well: no alert"
VERDICT=degraded plugin h1 vm1 a local
alerts "a path fails" DetourPathsDegraded
VERDICT=lost PEER_STATE='not ready' plugin h1 vm1 a queueing 1 6000
alerts "the last one, and no peer is ready" DetourPathsLost DetourNoRedundancy \
    DetourQueueing DetourRequestsWait
VERDICT=lost plugin h1 vm1 a redirected 5 0 'no path is left' '"h2"'
alerts "a peer takes over" DetourPathsLost DetourRedirected
VERDICT=lost plugin h1 vm1 a redirected 61 0 'no path is left' '"h2"'
alerts "for long" DetourPathsLost DetourRedirected DetourRedirectedTooLong
plugin h1 vm1 a local
alerts "the paths are back: all clear"
FENCES_FAILED=1 proxy h1
alerts "a fence fails" DetourFenceFailed
alerts "which is told for a while"
kill -STOP "${PIDS[h1/plugin-vm1-a]}"
alerts "a process hangs" DetourProcessSilent
kill -CONT "${PIDS[h1/plugin-vm1-a]}"
alerts "and comes round"
stop h1 proxy
alerts "the proxy is stopped" DetourProxyAbsent
stop h1 health
alerts "detour-health, too" DetourHealthDown
start h1 proxy
start_health h1
alerts "all are back"

tap_end
