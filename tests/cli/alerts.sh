#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The alert rules and the dashboard: promtool's unit tests, every alert has one,
# and every metric that they look at is one that detour-health really tells.
set -u

TOP=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/lib/health.sh
. "$TOP/tests/lib/health.sh"

rules=$TOP/deploy/prometheus/detour.rules.yml
cases=$TOP/deploy/prometheus/detour.test.yml
board=$TOP/deploy/grafana/detour.json

command -v promtool >/dev/null || skip_all "prometheus is not installed"
check "promtool likes the rules" promtool check rules "$rules"
check "each fires when it should, and not before" promtool test rules "$cases"
sed "s|/usr/local/share/detour/prometheus|${rules%/*}|" \
    "$TOP/deploy/prometheus/scrape.yml" >"$dir/scrape.yml"
check "promtool likes the scrape example" \
    promtool check config "$dir/scrape.yml"
"$TOP/deploy/install-units" "$dir/root" /usr
check "what is installed finds its rules" test -s \
    "$dir/root$(sed -n 's/^ *- \(.*rules.yml\)$/\1/p' \
        "$dir/root/usr/share/detour/prometheus/scrape.yml")"

# A case in which it fires: its name, a moment, and labels that are expected.
never_fires() {
    local alert
    grep -oP 'alert: \K\w+' "$rules" | while read -r alert; do
        grep -A3 "alertname: $alert$" "$cases" | grep -q exp_alerts:$ ||
            grep -A3 "alertname: $alert$" "$cases" | grep -q 'exp_alerts: &' ||
            echo "$alert"
    done
}
is "each has a case in which it fires" "$(never_fires)" ''
count() { grep -cE "$1" "$rules"; }
alerts=$(count '^ *- alert:')
is "each has a severity" "$(count 'severity: (warning|critical)}')" "$alerts"
is "and a text" "$(count 'summary:') $(count 'description:')" "$alerts $alerts"

# ---- the metrics -------------------------------------------------------------

cp "$BUILD/detour-health" "$dir"
pki_up >"$dir/pki.log" 2>&1 || skip_all "detour-pki: $(tail -1 "$dir/pki.log")"
host h1 ''
plugin h1 vm1 a local
proxy h1
start h1 plugin-vm1-a
start h1 proxy
start_health h1
in_time "detour-health has heard all" 5000 h1 /status \
    '[.processes[].answers] == [true, true] and (.certificates | length) == 3'
get h1 /metrics
grep -oE '^detour_[a-z_]+' "$dir/body" | sort -u >"$dir/told"
check "it tells many metrics" test "$(wc -l <"$dir/told")" -gt 40

# not_told FILE - names in its expressions that are not among them.
not_told() {
    grep -oE '\bdetour_[a-z_]+' "$1" | sort -u | comm -23 - "$dir/told"
}
# the rules without what is for people
sed -E '/^ *#/d' "$rules" >"$dir/rules"
is "the rules look only at what is told" "$(not_told "$dir/rules")" ''
echo 'detour_nonsense' >"$dir/nonsense"
is "what is not told is found" "$(not_told "$dir/nonsense")" detour_nonsense
is "their cases, too" "$(not_told "$cases")" ''

# ---- the dashboard -----------------------------------------------------------

check "the dashboard is JSON" jq -e '.panels | length > 10' "$board"
jq -r '.. | .expr?, .definition? | strings' "$board" >"$dir/board"
check "with expressions" test "$(wc -l <"$dir/board")" -gt 20
is "it looks only at what is told" "$(not_told "$dir/board")" ''
# its expressions are rules to promtool
jq '{groups: [{name: "x", rules: [.. | .expr? | strings |
    gsub("\\$__rate_interval"; "1m") | {record: "x", expr: .}]}]}' \
    "$board" >"$dir/board.yml"
check "promtool likes its expressions" \
    promtool check rules --lint=none "$dir/board.yml"
# panels_overlap - titles of panels that lie on another one.
panels_overlap() {
    jq -r '.panels as $all | $all[] | .id as $id | .gridPos as $a |
        select($a.x + $a.w > 24 or any($all[]; .id != $id and (.gridPos |
            .x < $a.x + $a.w and $a.x < .x + .w and
            .y < $a.y + $a.h and $a.y < .y + .h))) | .title' "$board"
}
is "each panel has a place of its own" "$(panels_overlap)" ''
is "and a number" "$(jq '[.panels[].id] | length - (unique | length)' \
    "$board")" 0
is "and tells what it shows" \
    "$(jq -r '.panels[] | select(.description == "") | .title' "$board")" ''
is "labels in its legends are those of its expressions" "$(
    jq -r '.panels[].targets[] | .expr as $e | .legendFormat |
        [scan("{{([a-z_]+)}}")[]][] as $l |
        select($e | test("by \\([^)]*\\b\($l)\\b") | not) | "\($l): \($e)"' \
        "$board"
)" ''

tap_end
