# SPDX-License-Identifier: BSD-3-Clause
# The guest's initial ramdisk: what Debian gives, cached, and what was built now.
# shellcheck shell=bash
#
# What this file lists is for the guest of one-guest.sh; machines.sh, for the
# whole SAN, puts lists of its own in their place.
#
# Three archives one behind the other, which the kernel unpacks as one:
#   base     the kernel's modules, busybox, /init       cached
#   tools    multipathd, udev and the like from Debian  cached
#   ours     our programs, the tests, certificates      made for each run

IMAGE_TOP=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../..")
# shellcheck source=tests/lib/guest.sh
. "$IMAGE_TOP/tests/lib/guest.sh"

IMAGE_CACHE=$GUEST_CACHE/multipath
IMAGE_INSIDE=$IMAGE_TOP/tests/lab/inside

# Unpacked beside the cached kernel, for programs that need not be here.
IMAGE_PACKAGES=(multipath-tools udev libkmod2 nbd-client libnl-genl-3-200
    libnl-3-200 dmsetup libdevmapper1.02.1 libaio1 liburcu8 e2fsprogs
    libext2fs2 libss2)

# virtio for the channel; then what scenarios load for themselves, by group.
IMAGE_MODULES=(virtio_pci virtio_console crc32c_intel sd_mod sg dm_multipath
    dm_round_robin dm_service_time scsi_dh_alua target_core_mod
    target_core_file tcm_loop loop nbd:nbd nbd:ext4 nvme:nvme_tcp nvme:nvmet_tcp)

# What is taken from the packages: FILE[:PATH in the guest].
IMAGE_TOOLS=(sbin/multipathd sbin/multipath bin/udevadm lib/udev/scsi_id
    bin/udevadm:lib/systemd/systemd-udevd sbin/dmsetup sbin/nbd-client
    sbin/mke2fs:sbin/mkfs.ext4 sbin/e2fsck)
IMAGE_RULES=(55-dm.rules 56-dm-mpath.rules 95-dm-notify.rules)
# What the cached part depends on, beside this file.
IMAGE_SOURCES=()

# What is taken from this machine, and must be there.
IMAGE_PROGRAMS=(bash nbdkit losetup qemu-io sg_persist sg_reset)

# Of what was built.
IMAGE_OURS=(nbdkit-detour-plugin.so detour-proxy detourctl
    tests/tools/{ask,witness,blockcheck})

# image_possible - or why not, on standard output.
image_possible() {
    local program
    guest_possible || return 1
    for program in "${IMAGE_PROGRAMS[@]}" openssl; do
        command -v "$program" >/dev/null ||
            { echo "no $program here: deploy/install-deps" && return 1; }
    done
    image_tools || {
        echo "no multipath-tools for the guest: see $IMAGE_CACHE/log"
        return 1
    }
}

# image_tools - fills the cache when it is empty or of another version.
image_tools() {
    local want
    want=$(cat "${BASH_SOURCE[0]}" "$IMAGE_TOP/tests/lib/guest.sh" \
        "$IMAGE_INSIDE/init" "$IMAGE_INSIDE"/*.rules "${IMAGE_SOURCES[@]}" |
        sha256sum) || return 1
    [[ $(cat "$IMAGE_CACHE/complete" 2>/dev/null) != "$want" ]] || return 0
    mkdir -p "$IMAGE_CACHE" || return 1
    (
        flock 9 || exit 1 # another run
        [[ $(cat "$IMAGE_CACHE/complete" 2>/dev/null) != "$want" ]] || exit 0
        set -e
        cd "$IMAGE_CACHE"
        rm -rf complete packages
        mkdir packages
        image_download
        image_base
        image_tools_archive
        rm -rf packages
        echo "$want" >complete
    ) 9>"$IMAGE_CACHE/lock" >"$IMAGE_CACHE/log" 2>&1
}

image_download() (
    cd packages
    apt-get --quiet --option APT::Sandbox::User="$(id -un)" download \
        "${IMAGE_PACKAGES[@]}"
    for package in *.deb; do
        dpkg-deb --extract "$package" .
    done
)

image_base() {
    local options=() module
    for module in "${IMAGE_MODULES[@]}"; do
        options+=(-m "$module")
    done
    guest_initramfs base.cpio "$IMAGE_INSIDE/init" "${options[@]}"
}

# image_needs FILE - its libraries; those of the packages go before those of
# this machine.
image_needs() {
    local p=$IMAGE_CACHE/packages arch=x86_64-linux-gnu
    LD_LIBRARY_PATH=$p/lib:$p/lib/$arch:$p/usr/lib/$arch ldd "$1" 2>/dev/null
}

# image_add ROOT FILE PATH - a program with its libraries.
image_add() {
    local root=$1 libraries library
    mkdir -p "$root/$(dirname "$3")"
    cp -L "$2" "$root/$3" || return 1
    strip --strip-debug "$root/$3" 2>/dev/null || true # a script has none
    libraries=$(image_needs "$2")
    if [[ $libraries == *'not found'* ]]; then
        printf '%s: %s\n' "$2" "$libraries" >&2
        return 1
    fi
    while read -r library; do
        # in one place, wherever it lies here
        [[ -e $root/lib/x86_64-linux-gnu/${library##*/} ]] ||
            cp -L "$library" "$root/lib/x86_64-linux-gnu/" || return 1
    done < <(grep -o '/[^ ]*' <<<"$libraries")
}

# image_pack ROOT OUT
image_pack() {
    (cd "$1" && find . | "$GUEST_BUSYBOX" cpio -o -H newc 2>/dev/null) >"$2"
}

image_root() {
    mkdir -p "$1"/lib/{x86_64-linux-gnu,udev/rules.d,multipath} "$1/lib64" \
        "$1/etc"
    ln -s ../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$1/lib64/"
}

# image_fill ROOT - the tools, with their rules and checkers.
image_fill() {
    local root=$1 file from=$IMAGE_CACHE/packages
    for file in "${IMAGE_TOOLS[@]}"; do
        image_add "$root" "$from/${file%%:*}" "${file#*:}"
    done
    for file in "${IMAGE_RULES[@]}"; do
        cp "$from/lib/udev/rules.d/$file" "$root/lib/udev/rules.d/"
    done
    cp "$IMAGE_INSIDE/57-lab.rules" "$root/lib/udev/rules.d/"
    for file in "$from"/lib/multipath/*.so; do
        image_add "$root" "$file" "lib/multipath/${file##*/}"
    done
    # pthread_cancel loads it by name
    image_add "$root" "$(gcc -print-file-name=libgcc_s.so.1)" \
        lib/x86_64-linux-gnu/libgcc_s.so.1
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    printf '%s:x:%s:\n' root 0 tty 5 disk 6 >"$root/etc/group"
    echo '127.0.0.1 localhost lab' >"$root/etc/hosts"
}

image_tools_archive() {
    rm -rf root
    image_root root
    image_fill root
    image_pack root tools.cpio
    rm -rf root
}

# image_make OUT PKI - all three, with what is in $BUILD now.
image_make() {
    local out=$1 pki=$2 root program
    root=$(mktemp -d "${TMPDIR:-/tmp}/ours.XXXXXX") || return 1
    image_root "$root"
    for program in "${IMAGE_PROGRAMS[@]}"; do
        image_add "$root" "$(command -v "$program")" "bin/$program"
    done
    mkdir -p "$root/lab/tests"
    for program in "${IMAGE_OURS[@]}"; do
        image_add "$root" "$BUILD/$program" "lab/build/$program" || return 1
    done
    cp -r "$IMAGE_TOP/tests/lib" "$IMAGE_TOP/tests/lab" "$root/lab/tests/"
    cp -r "$pki" "$root/lab/pki"
    mkdir -p "$root/etc/multipath"
    [[ ! -e $IMAGE_INSIDE/multipath.conf ]] ||
        cp "$IMAGE_INSIDE/multipath.conf" "$root/etc/"
    image_pack "$root" "$root.cpio" &&
        cat "$IMAGE_CACHE"/{base,tools}.cpio "$root.cpio" >"$out"
    rm -rf "$root" "$root.cpio"
}
