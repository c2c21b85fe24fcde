# SPDX-License-Identifier: BSD-3-Clause
# The one initial ramdisk of all machines of the whole SAN, array and hosts.
# shellcheck shell=bash

# shellcheck source=tests/lab/outside/image.sh
. "$(dirname "${BASH_SOURCE[0]}")/image.sh"

IMAGE_CACHE=$GUEST_CACHE/machine
IMAGE_INSIDE=$IMAGE_TOP/tests/lab/machine
IMAGE_SOURCES=("${BASH_SOURCE[0]}")
IMAGE_PACKAGES+=(open-iscsi libopeniscsiusr libisns0 ocfs2-tools libcmap4
    libcorosync-common4 libdlm3 libqb100 sanlock libsanlock1)

# In every machine; then by what it is, or needs.
IMAGE_MODULES=(virtio_pci virtio_console virtio_net crc32c_intel
    crc32c_generic
    array:virtio_blk array:target_core_mod array:target_core_iblock
    array:iscsi_target_mod array:nf_tables array:nft_reject_ipv4
    host:sd_mod host:sg host:dm_multipath host:dm_round_robin
    host:dm_service_time host:scsi_dh_alua host:iscsi_tcp host:nbd
    ocfs2:ocfs2 ocfs2:ocfs2_stack_o2cb ocfs2:ocfs2_dlmfs)
IMAGE_TOOLS=(sbin/multipathd sbin/multipath bin/udevadm lib/udev/scsi_id
    bin/udevadm:lib/systemd/systemd-udevd sbin/dmsetup sbin/nbd-client
    sbin/iscsid sbin/iscsiadm sbin/mkfs.ocfs2 sbin/mount.ocfs2
    sbin/fsck.ocfs2 sbin/ocfs2_hb_ctl usr/sbin/sanlock)
# qemu-nbd: what a host without detour would serve its VMs with.
IMAGE_PROGRAMS=(nbdkit qemu-nbd sg_persist nft)
# rules: with them left out, to show that a scenario finds what it looks for.
IMAGE_OURS=({,rules/}{nbdkit-detour-plugin.so,detour-proxy} tests/tools/ask)
