# SPDX-License-Identifier: BSD-3-Clause
# The fencing rules of DESIGN.md section 5, searched by Spin: no ghost and no
# client left waiting with all of them, a ghost without any one.
#
#   check.sh        what `make check` runs: full searches of a small bound
#   check.sh large  a bitstate search of a larger one
# shellcheck shell=bash disable=SC2034
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=tests/lib/tap.sh
. "$here/../lib/tap.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/model.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

for program in spin gcc; do
    command -v $program >/dev/null || skip_all "$program is not installed"
done

SEARCHED=0 # states, in all searches that found nothing

# search DEFINES CFLAGS - sets output; its status is that of the search.
search() {
    # what pan.c is compiled from is what the model says with these defines
    # shellcheck disable=SC2086
    (cd "$work" && rm -f ./* && spin -a $1 "$here/fencing.pml" &&
        gcc -w -DSAFETY -DCOLLAPSE -DVECTORSZ=256 $2 -o pan pan.c &&
        ./pan -m200000 -w24) >"$work.out" 2>&1
    output=$(<"$work.out")
    rm -f "$work.out"
    grep -q 'errors: 0' <<<"$output" && ! grep -q 'out of memory' <<<"$output" &&
        ! grep -q 'max search depth too small' <<<"$output"
}

states() { sed -nE 's/^ *([0-9]+) states, stored.*/\1/p' <<<"$output"; }

# holds NAME DEFINES [CFLAGS] - no ghost, and in the end the client is served.
holds() {
    if search "$2" "${3--O2}"; then
        SEARCHED=$((SEARCHED + $(states)))
        pass "$1: $(states) states"
    else
        fail "$1" "$output"
    fi
}

# fails NAME DEFINES - Spin finds the assertion violated.
fails() {
    if ! search "$2" -O1 && grep -q 'assertion violated' <<<"$output"; then
        pass "$1"
    else
        fail "$1" "$output"
    fi
}

RULES=0 NEEDED=0
needs() { # BACKEND RULE FAULTS - without the rule there is a ghost
    local failed=$TAP_FAILED
    RULES=$((RULES + 1))
    fails "$1: without $2 there is a ghost" \
        "$(backend "$1") -DBROKEN -DFAULTS=$3 -DNO_RULE_$2"
    ((TAP_FAILED > failed)) || NEEDED=$((NEEDED + 1))
}

backend() { [[ $1 = iscsi ]] && echo -DISCSI; }

large() {
    holds "block, bitstate" "-DFAULTS=4 -DDEATHS" "-O2 -UCOLLAPSE -DBITSTATE"
}

small() {
    local what

    holds "block: no ghost, everybody is served" -DFAULTS=3
    holds "block: also with paths lost for good" "-DFAULTS=2 -DDEATHS"
    for what in FENCED ABORTED HOME READ; do
        fails "block: the searches come to $what" "-DFAULTS=3 -DREACH_$what"
    done
    while read -r what faults; do
        needs block "$what" "$faults"
    done <<END
STEP1 3
OLDER 2
WAIT 2
FENCE 1
ABORT 1
SUSPECT_SELF 1
SUSPECT_PEER 2
CLOSE 2
DRAIN 1
ANSWER 3
LOCK 1
PREDECESSOR 1
HOME_FENCE 2
DISK_SUSPECTS 1
DISK_GENERATION 2
END
}

"${1:-small}"
tap_end || exit 1
[[ ${1-} ]] || echo "model: ok, $SEARCHED states," \
    "$NEEDED of $RULES rules needed"
