# SPDX-License-Identifier: BSD-3-Clause
# A small Linux for guests: Debian's kernel, unpacked, and initial ramdisks.
# shellcheck shell=bash
#
# Nothing is installed.  The kernel's package and busybox-static are downloaded
# once, by apt-get, and unpacked into GUEST_CACHE, build/guest; what is there is
# used without asking anybody.  Without apt-get there are no guests: call
# guest_possible first, and skip for the reason it gives.

GUEST_TOP=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
GUEST_CACHE=${GUEST_CACHE:-$GUEST_TOP/build/guest}
# after guest_kernel:
# shellcheck disable=SC2034 # for scripts
GUEST_VMLINUX=$GUEST_CACHE/vmlinux   # uncompressed: QEMU boots it faster
GUEST_BUSYBOX=$GUEST_CACHE/busybox   # static
GUEST_MODULES=$GUEST_CACHE/modules   # a folder that holds modules.dep
GUEST_QEMU=${GUEST_QEMU:-qemu-system-x86_64}

# Left out of the cache: 250 of 400 MB that no guest of a test can have.
GUEST_WITHOUT=(sound drivers/gpu drivers/media drivers/iio drivers/usb
    drivers/infiniband drivers/net/ethernet drivers/net/wireless)

# guest_possible - or why not, on standard output.
guest_possible() {
    local program
    [[ $(uname -m) == x86_64 ]] || { echo "guests need x86_64" && return 1; }
    for program in "$GUEST_QEMU" xz; do
        command -v "$program" >/dev/null ||
            { echo "no $program here: deploy/install-deps" && return 1; }
    done
    guest_kernel || {
        echo "no kernel for guests: see $GUEST_CACHE/log"
        return 1
    }
}

# guest_kernel - fills the cache when it is empty; what goes wrong is in its log.
guest_kernel() {
    [[ ! -e $GUEST_CACHE/complete ]] || return 0
    mkdir -p "$GUEST_CACHE" || return 1
    (
        flock 9 || exit 1 # another test, or another build
        [[ ! -e $GUEST_CACHE/complete ]] || exit 0
        # not set -e, which a caller's || would switch off
        work=$GUEST_CACHE/work
        rm -rf "$work" "$GUEST_MODULES" && mkdir "$work" && cd "$work" &&
            guest_download && guest_unpack &&
            mv vmlinux busybox modules "$GUEST_CACHE/" &&
            cd .. && rm -rf "$work" && touch complete
    ) 9>"$GUEST_CACHE/lock" >"$GUEST_CACHE/log" 2>&1
}

# The name holds the version, which changes: linux-image-6.1.0-56-amd64.
guest_download() {
    local image
    image=$(apt-cache depends --important linux-image-amd64 |
        awk '$1 == "Depends:" { print $2; exit }')
    [[ -n $image ]] || return 1
    apt-get --quiet --option APT::Sandbox::User="$(id -un)" download \
        "$image" busybox-static
}

guest_unpack() {
    local folder exclude=()
    for folder in "${GUEST_WITHOUT[@]}"; do
        exclude+=(--exclude "./lib/modules/*/kernel/$folder")
    done
    dpkg-deb --fsys-tarfile busybox-static_*.deb | tar x ./bin/busybox &&
        mv bin/busybox . &&
        dpkg-deb --fsys-tarfile linux-image-*.deb |
        tar x --wildcards "${exclude[@]}" ./boot './lib/modules/*' &&
        guest_vmlinux boot/vmlinuz-* >vmlinux &&
        find lib/modules -name '*.ko.xz' -exec xz --decompress {} + &&
        ./busybox depmod -b . "$(ls lib/modules)" &&
        mv lib/modules/* modules && [[ -s modules/modules.dep ]]
}

# guest_vmlinux VMLINUZ - the kernel inside it: the first place that looks like
# a compressed stream and is one.
guest_vmlinux() {
    local at
    while read -r at; do
        if tail --bytes=+$((at + 1)) "$1" |
            xz --decompress --stdout --single-stream 2>/dev/null >vmlinux.try &&
            [[ $(head --bytes=4 vmlinux.try) == $'\x7fELF' ]]; then
            cat vmlinux.try
            return 0
        fi
    done < <(LC_ALL=C grep --only-matching --byte-offset --text --perl-regexp \
        '\xFD7zXZ\x00' "$1" | cut -d: -f1)
    echo "$1: not compressed with xz" >&2
    return 1
}

# guest_initramfs OUT INIT [-m [GROUP:]MODULE]... [-p FILE[:PATH]]...
#
# INIT becomes /init, a script for busybox's sh, all of whose commands are
# there.  Modules, with all they depend on, lie in /modules; the file
# /modules/order lists them in the order to load them, or order.GROUP.  A
# program brings its shared libraries along.  For instance:
#
#   for m in $(cat /modules/order); do insmod "/modules/$m"; done
guest_initramfs() (
    out=$(realpath "$1") init=$2
    shift 2
    root=$(mktemp -d "${TMPDIR:-/tmp}/initramfs.XXXXXX") || exit 1
    trap 'rm -rf "$root"' EXIT
    mkdir -p "$root"/{bin,dev,etc,lib,mnt,modules,proc,root,run,sys,tmp,var}
    ln -s bin "$root/sbin"
    cp "$GUEST_BUSYBOX" "$root/bin/busybox" || exit 1
    for applet in $("$GUEST_BUSYBOX" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done
    install -m 755 "$init" "$root/init" || exit 1
    while (($#)); do
        case $1 in
        -m) guest_add_module "$root" "$2" || exit 1 ;;
        -p) guest_add_program "$root" "${2%%:*}" "${2#*:}" || exit 1 ;;
        *) echo "guest_initramfs: $1?" >&2 && exit 1 ;;
        esac
        shift 2
    done
    cd "$root" && find . | "$GUEST_BUSYBOX" cpio -o -H newc 2>/dev/null >"$out"
)

# guest_add_module ROOT [GROUP:]MODULE - nothing when the kernel has it built in.
guest_add_module() {
    local root=$1 order=order name=${2##*:} files file module
    [[ $2 != *:* ]] || order=order.${2%%:*}
    mapfile -t files < <(guest_needed "$name")
    ((${#files[@]})) || grep -q "/$name.ko" "$GUEST_MODULES/modules.builtin" ||
        { echo "the kernel has no module $name" >&2 && return 1; }
    for file in "${files[@]}"; do
        module=${file##*/}
        if ! grep -qxs "$module" "$root/modules/$order"; then
            strip --strip-debug -R .BTF -o "$root/modules/$module" \
                "$GUEST_MODULES/$file" || return 1
            echo "$module" >>"$root/modules/$order"
        fi
    done
}

# guest_needed MODULE - its file and those it needs, these first.
guest_needed() {
    awk -F': *' -v want="$1" '
        function name(file) {
            sub(/.*\//, "", file)
            sub(/\.ko$/, "", file)
            gsub(/-/, "_", file)
            return file
        }
        function visit(file,   n, i, list) {
            if (done[file]++)
                return
            n = split(needs[file], list, " ")
            for (i = n; i > 0; i--)
                visit(list[i])
            print file
        }
        { needs[$1] = $2; file_of[name($1)] = $1 }
        END {
            gsub(/-/, "_", want)
            if (want in file_of)
                visit(file_of[want])
        }' "$GUEST_MODULES/modules.dep"
}

# guest_add_program ROOT FILE PATH
guest_add_program() {
    local root=$1 library
    mkdir -p "$root/$(dirname "$3")" && cp -L "$2" "$root/$3" || return 1
    while read -r library; do
        [[ ! -e $root/$library ]] || continue
        mkdir -p "$root/$(dirname "$library")"
        cp -L "$library" "$root/$library"
    done < <(ldd "$2" 2>/dev/null | grep -o '/[^ ]*')
}
