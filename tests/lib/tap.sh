# SPDX-License-Identifier: BSD-3-Clause
# TAP for scripts: one line for each check, the plan at the end.
# shellcheck shell=bash

TAP_DONE=0
TAP_FAILED=0

# pass NAME, fail NAME [WHY] - the result of one check.
pass() {
    TAP_DONE=$((TAP_DONE + 1))
    echo "ok $TAP_DONE - $1"
}

fail() {
    TAP_DONE=$((TAP_DONE + 1))
    TAP_FAILED=$((TAP_FAILED + 1))
    echo "not ok $TAP_DONE - $1"
    if [[ -n ${2-} ]]; then diag "$2"; fi
}

# diag TEXT - for people; each line becomes a comment.
diag() {
    printf '%s\n' "$*" | sed 's/^/# /'
}

# check NAME COMMAND... - passes when the command succeeds; what it prints is
# shown only when it fails.
check() {
    local name=$1 out
    shift
    if out=$("$@" 2>&1 </dev/null); then
        pass "$name"
    else
        fail "$name" "failed ($?): $*"$'\n'"$out"
    fi
}

# check_fails NAME PATTERN COMMAND... - passes when the command fails and says
# why: its output matches the extended regular expression.
check_fails() {
    local name=$1 pattern=$2 out
    shift 2
    if out=$("$@" 2>&1 </dev/null); then
        fail "$name" "succeeded: $*"$'\n'"$out"
    elif grep -Eq -- "$pattern" <<<"$out"; then
        pass "$name"
    else
        fail "$name" "does not say /$pattern/: $*"$'\n'"$out"
    fi
}

# is NAME GOT WANT - passes when both are the same text.
is() {
    if [[ $2 == "$3" ]]; then
        pass "$1"
    else
        fail "$1" "got:    $2"$'\n'"wanted: $3"
    fi
}

# at_most NAME GOT LIMIT [UNIT] - passes when the number is not above the limit.
at_most() {
    if [[ $2 =~ ^[0-9]+$ ]] && (($2 <= $3)); then
        pass "$1 ($2 of $3 ${4-ms})"
    else
        fail "$1" "got $2 ${4-ms}, the limit is $3"
    fi
}

# skip_all REASON - end the script: it cannot run here.
skip_all() {
    echo "$1"
    exit 77
}

# tap_end - print the plan; the script's last command.
tap_end() {
    echo "1..$TAP_DONE"
    ((TAP_FAILED == 0))
}
