/* SPDX-License-Identifier: BSD-3-Clause */
/* An open block device or regular file, and what it can do. */
#ifndef DETOUR_LUN_DEVICE_H
#define DETOUR_LUN_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lun/lun.h"
#include "lun/sysfs.h"

/* Shared by whoever has requests or ioctls under way on it, so that its
 * descriptor never comes to mean something else. */
struct device {
    /* fixed after device_open */
    int fd; /* O_DIRECT */
    bool file, readonly;
    bool multipath; /* a dm-multipath map */
    bool nvme;      /* an NVMe namespace with paths below it */
    dev_t dev;      /* of a block device itself, of a file its file system */
    ino_t inode;
    char name[SYSFS_NAME_MAX]; /* kernel device; "" for a file */
    char id[LUN_ID_MAX];
    uint32_t block_size, preferred;

    _Atomic uint64_t size;
    /* Learned from -EOPNOTSUPP, then never tried again. */
    atomic_bool no_nowait; /* RWF_NOWAIT: requests go to threads at once */
    atomic_bool no_punch, no_discard, no_zero_range;

    atomic_uint refs;
};

/* device_open - open path and find out all there is to know; may block.
 *
 * errors:  NULL and errno; ENOTBLK: neither a block device nor a file
 * owns:    the caller holds the first reference
 */
struct device *device_open(const char *path, bool readonly);

/* device_get, device_put - references; putting NULL is fine. */
struct device *device_get(struct device *d);
void device_put(struct device *d);

/* device_refresh - is path still this device, and how large is it?
 *
 * May block.  *grown tells whether the size is another one now.
 *
 * errors:  -ENODEV it is gone, or path leads to another one
 */
int device_refresh(struct device *d, const char *path, bool *grown);

/* device_count_paths - how many paths the kernel has below it; 0: none of its
 * own.  Reads sysfs only. */
size_t device_count_paths(const struct device *d);

/* device_can_trim - is trimming worth a request? */
bool device_can_trim(const struct device *d);

#endif
