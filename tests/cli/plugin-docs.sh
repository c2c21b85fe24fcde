#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin's parameters: what --help, the manual page and the program say
# of them is the same.
#
# Needs $BUILD with the plugin.
set -u

cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh

plugin=$BUILD/nbdkit-detour-plugin.so
page=plugin/nbdkit-detour-plugin.1.pod
dir=$(mktemp -d "${TMPDIR:-/tmp}/plugin-docs.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT

if [[ ${SANITIZE:-} ]]; then
    skip_all "nbdkit itself is not built with $SANITIZE"
fi

help=$(nbdkit "$plugin" --help)
dump=$(nbdkit "$plugin" --dump-plugin)

# serve ARGS...: configuration only; it never gets as far as to serve.
serve() {
    nbdkit --foreground --unix "$dir/sock" "$plugin" "$@"
}

options() {
    sed -n '/^=head1 OPTIONS/,/^=head1 SIGNALS/p' "$page" |
        sed -n 's/^=item B<\([a-z]*=\)>.*/\1/p' | sort
}

# says NAME KEY VALUE: a line of --dump-plugin
says() {
    is "--dump-plugin: $1" "$(sed -n "s/^$2=//p" <<<"$dump")" "$3"
}

# ---- the page ---------------------------------------------------------------

check "the page is good POD" podchecker -warnings "$page"
check "it renders" pod2man --errors=die "$page" "$dir/page.1"
is "it has the parameters of --help, and no others" "$(options)" \
    "$(grep -o '^ *[a-z]*=[A-Z]*' <<<"$help" | grep -o '[a-z]*=' | sort)"
version=$(sed -n 's/^detour_version=//p' <<<"$dump")
check "it describes this version" grep -q "nbdkit-detour-plugin $version\.$" \
    "$page"
is "its sections come in the house's order" \
    "$(sed -n 's/^=head1 //p' "$page" | paste -sd,)" \
    "NAME,SYNOPSIS,DESCRIPTION,EXAMPLES,OPTIONS,SIGNALS,EXIT STATUS,FILES,\
DIAGNOSTICS,SECURITY,BUGS,VERSION,SEE ALSO"

# in_source WORDS: do the plugin's parts say them, with strings joined?
sources=$(cat plugin/*.c lun/*.c common/*.c | tr -d '\n' | sed 's/" *"//g')
in_source() {
    [[ $sources == *"$1"* ]]
}

# Of each diagnostic the longest piece without a name that varies.
while read -r words; do
    check "the program says: $words" in_source "$words"
done < <(sed -n '/^=head1 DIAGNOSTICS/,/^=head1 SEC/s/^=item B<\(.*\)>$/\1/p' \
    "$page" | awk '{
        gsub(/[A-Z]+|\.\.\.|[():;]/, "\n"); n = split($0, piece, "\n"); best = ""
        for (i = 1; i <= n; i++)
            if (length(piece[i]) > length(best)) best = piece[i]
        print best
    }')

# ---- --dump-plugin ----------------------------------------------------------

says "the configuration it reads" detour_default_config /etc/detour/detour.conf
says "the backends" detour_backends block,iscsi
says "the ways to fence" detour_fence pr,drain

# ---- the end -----------------------------------------------------------------

# nbdkit unmaps a plugin before it exits; a thread that the kernel lets go of
# just then would run into nothing.
check "its code stays when nbdkit lets go of it" \
    grep -q NODELETE <(readelf --dynamic "$plugin")

# ---- the parameters ---------------------------------------------------------

check_fails "lun= is needed" "lun=NAME is needed" serve config="$dir/none"
check_fails "a parameter that is none" "unknown parameter 'frob'" \
    serve lun=x frob=1
check_fails "one given twice" "client= was given twice" \
    serve lun=x client=a client=b
check_fails "a configuration that is not there" "No such file" \
    serve lun=x config="$dir/none"
check_fails "a client's name with a dot" "client=a\.b: up to 63" \
    serve lun=x client=a.b config="$dir/none"
for name in proxy epoch keys; do
    check_fails "client=$name is taken" "client=$name: taken" \
        serve lun=x client=$name config="$dir/none"
done

tap_end
