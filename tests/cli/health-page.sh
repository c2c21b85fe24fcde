#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The status page in a real browser: what each state looks like, on a desktop
# and on a telephone, with and without JavaScript.
#
# Leaves screenshots in $BUILD/screenshots.
set -u

TOP=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/lib/health.sh
. "$TOP/tests/lib/health.sh"

for program in chromium chromium-browser google-chrome; do
    found=$(command -v "$program") && break
done
[[ $found ]] || skip_all "no Chromium is installed"
cp "$BUILD/detour-health" "$dir"
pki_up >"$dir/pki.log" 2>&1 || skip_all "detour-pki: $(tail -1 "$dir/pki.log")"
shots=$BUILD/screenshots
mkdir -p "$shots"

# ---- the browser -------------------------------------------------------------

coproc BROWSER { python3 "$TOP/tests/lib/browser.py"; }
PIDS[browser]=$BROWSER_PID

# browse COMMAND... - its answer is in $answer.
browse() {
    local command=$*
    echo "${command//$'\n'/ }" >&"${BROWSER[1]}"
    read -r -t 60 answer <&"${BROWSER[0]}" || answer="failed: it says nothing"
    echo "$answer"
    [[ $answer == ok* ]]
}

# shows NAME MS EXPRESSION - one line of TAP.
shows() {
    check "$1" browse wait "$2" "$3"
}

# A mark of that class and word stands in what the selector finds.
marked() { # SELECTOR CLASS WORD
    echo "[...document.querySelectorAll('$1 .mark.$2')].some(" \
        "e => e.textContent.includes('$3'))"
}

# pictures NAME - on a desktop and on a telephone, where nothing is cut off.
pictures() {
    browse size 390 844 >/dev/null
    check "$1 fits a telephone" browse wait 1000 \
        'document.documentElement.scrollWidth <= innerWidth'
    check "$1 on a telephone is pictured" browse shot "$shots/$1-phone.png"
    browse size 1280 900 >/dev/null
    check "$1 is pictured" browse shot "$shots/$1.png"
}

# ---- states --------------------------------------------------------------------

for h in h1 h2; do
    host $h ''
    plugin $h vm1 a local 4000
    proxy $h
    start $h plugin-vm1-a
    start $h proxy
    start_health $h
done
in_time "both hosts are seen" 8000 h1 /cluster \
    '[.hosts[].status] == ["pass", "pass"]'

browse size 1280 900 >/dev/null
check "the page opens" browse open "$(url h1 /)"
check "it says so" browse wait 1000 "$(marked header pass pass)"
shows "local" 1000 "$(marked '.matrix td' pass local)"
check "no word of trouble" browse wait 1000 \
    '!document.body.innerText.includes("not as it should be")'
# whoever reloads the page loses this
browse value 'window.unchanged = true' >/dev/null
pictures local

plugin h1 vm1 a redirected 75 0 'no path is left' '"h2"'
shows "redirected, by itself" 5000 "$(marked '.matrix td' warn redirected)"
shows "with its reason" 1000 'document.querySelector(".matrix").innerText
    .includes("through h2: no path is left")'
pictures redirected

plugin h1 vm1 a queueing 9 8000 'no peer can serve'
shows "queueing" 5000 "$(marked '.matrix td' fail queueing)"
shows "curves are drawn" 1000 \
    'document.querySelectorAll("polyline").length == 2'
pictures queueing

kill_it h1 plugin-vm1-a
kill_it h2 health
column='.matrix td:nth-child'
shows "unknown: a process" 6000 "$(marked "$column(2)" unknown unknown)"
shows "and in its place" 1000 "$(marked article unknown unknown)"
shows "unknown: a host" 9000 "$(marked "$column(3)" unknown unknown)"
pictures unknown
check "it is the same page still" browse wait 100 window.unchanged

evil='<img src=x onerror=alert(1)><script>alert(1)</script>'
says h1 proxy "{\"process\": \"proxy\", \"luns\": [{\"lun\": \"$evil\"}]}"
shows "hostile text is text" 5000 'document.body.innerText.includes("onerror")'
check "and nothing else" browse wait 100 \
    '!document.querySelector("img, main script")'

# ---- the page itself -------------------------------------------------------------

browse errors >/dev/null
is "the console is silent" "$answer" 'ok []'
browse value 'performance.getEntriesByType("resource")
    .filter(e => !e.name.startsWith(location.origin)).length' >/dev/null
is "nothing comes from elsewhere" "$answer" 'ok 0'
kill -STOP "${PIDS[h1/health]}"
shows "an old page says that it is old" 9000 \
    'document.body.classList.contains("stale") &&
     document.getElementById("note").innerText.includes("No answer")'
browse shot "$shots/stale.png" >/dev/null
kill -CONT "${PIDS[h1/health]}"
shows "until it is not" 9000 '!document.body.classList.contains("stale")'

browse script off >/dev/null
check "without JavaScript" browse open "$(url h1 /)"
shows "all is there" 1000 "$(marked '.matrix td' unknown unknown)"

kill "${PIDS[browser]}" # its end of the pipe is its standard input
wait "${PIDS[browser]}" 2>/dev/null
unset "PIDS[browser]"
tap_end
