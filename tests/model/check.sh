# SPDX-License-Identifier: BSD-3-Clause
# The fencing rules of docs/design.md section 5, searched by Spin: no ghost and
# no client left waiting with all of them, a ghost without any one.
#
#   check.sh        full searches of a small bound: with MODEL_FAULTS faults, 2
#                   in `make check` (a minute), 3 in `make model` (some)
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

# search NAME DEFINES [CFLAGS] - what Spin says goes to $work/NAME.
search() {
    local folder="$work/$1.d"

    mkdir "$folder"
    # shellcheck disable=SC2086
    (cd "$folder" && spin -a $2 "$here/fencing.pml" &&
        gcc -w -DSAFETY -DVECTORSZ=256 ${3--O0 -DCOLLAPSE} -o pan pan.c &&
        ./pan -m100000 "-w${bits:-20}") >"$work/$1" 2>&1
    rm -rf "$folder"
}

states() { sed -nE 's/^ *([0-9]+) states, stored.*/\1/p' "$work/$1"; }

# holds NAME TEXT - no ghost, and in the end the client is served.
holds() {
    if grep -q 'errors: 0' "$work/$1" &&
        ! grep -Eq 'out of memory|depth too small' "$work/$1"; then
        SEARCHED=$((SEARCHED + $(states "$1")))
        pass "$2: $(states "$1") states"
    else
        fail "$2" "$(<"$work/$1")"
    fi
}

# fails NAME TEXT DEFINES - Spin finds an assertion violated.
fails() {
    search "$1" "$3"
    if grep -q 'assertion violated' "$work/$1"; then
        pass "$2"
    else
        fail "$2" "$(<"$work/$1")"
    fi
}

RULES=0 NEEDED=0
# needs BACKEND DEFINES RULE FAULTS - without the rule there is a ghost.
needs() {
    local failed=$TAP_FAILED

    RULES=$((RULES + 1))
    fails "$1-$3" "$1: without $3 there is a ghost" \
        "$2 -DBROKEN -DFAULTS=$4 -DNO_RULE_$3"
    ((TAP_FAILED > failed)) || NEEDED=$((NEEDED + 1))
}

# rules BACKEND DEFINES <<RULES
rules() {
    local rule faults what

    for what in FENCED ABORTED HOME READ EARLY; do
        fails "$1-$what" "$1: the searches come to $what" \
            "$2 -DFAULTS=3 -DREACH_$what"
    done
    while read -r rule faults; do
        needs "$1" "$2" "$rule" "$faults"
    done
}

COMMON='STEP1 3
OLDER 2
WAIT 2
FENCE 1
ABORT 1
SUSPECT_SELF 1
SUSPECT_PEER 2
CLOSE 2
DRAIN 1
ANSWER 3
HOME_FENCE 2
DISK_SUSPECTS 1
DISK_GENERATION 2
EARLY 2'

small() {
    local full='-O2 -DCOLLAPSE' faults=${MODEL_FAULTS:-2}

    # the long ones meanwhile, on another processor
    {
        search block-full "-DFAULTS=$faults" "$full"
        search dead-full "-DFAULTS=2 -DDEATHS" "$full"
        search iscsi-full "-DISCSI -DFAULTS=$faults" "$full"
    } &
    rules block '' <<<"$COMMON"$'\nLOCK 1\nPREDECESSOR 1'
    rules iscsi -DISCSI <<<"$COMMON"$'\nJOIN 3\nGRAVES 1\nAGAIN 2\nEPOCH 2'
    wait
    holds block-full "block: no ghost, everybody is served"
    holds dead-full "block: also with paths lost for good"
    holds iscsi-full "iscsi: no ghost, everybody is served"
}

large() {
    local bits=32 # 512 MiB

    search block-large "-DFAULTS=4 -DDEATHS" "-O2 -DBITSTATE"
    holds block-large "block, bitstate"
    search iscsi-large "-DISCSI -DFAULTS=4" "-O2 -DBITSTATE"
    holds iscsi-large "iscsi, bitstate"
}

"${1:-small}"
tap_end || exit 1
[[ ${1-} ]] || echo "model: ok, $SEARCHED states," \
    "$NEEDED of $RULES rules needed"
