/* SPDX-License-Identifier: BSD-3-Clause */
/* The paths of an NVMe namespace that the kernel itself multipaths. */
#ifndef DETOUR_LUN_NVME_H
#define DETOUR_LUN_NVME_H

#include <stdbool.h>
#include <stddef.h>

#include "lun/lun.h"
#include "lun/sysfs.h"

/* One way to a namespace: a controller, and what it says of the namespace. */
struct nvme_path {
    char name[SYSFS_NAME_MAX];       /* "nvme0c1n1" */
    char controller[SYSFS_NAME_MAX]; /* "nvme1" */
    char state[32];                  /* of the controller: "live", ... */
    char ana[32]; /* "optimized", "inaccessible", ...; "": no ANA here */
    char transport[16], address[96];
};

/* nvme_is_head - is block device name a namespace with paths below it, rather
 * than one path or another kind of device? */
bool nvme_is_head(const char *name);

/* nvme_paths - the paths of namespace head name.
 *
 * A controller that is connecting anew keeps its path, one that the kernel
 * gave up (ctrl_loss_tmo) takes it along.
 *
 * returns: how many there are; max of them are stored
 * source:  drivers/nvme/host/multipath.c and sysfs.c
 */
size_t nvme_paths(const char *name, struct nvme_path *paths, size_t max);

/* nvme_path_usable - would the kernel send I/O over it now? */
bool nvme_path_usable(const struct nvme_path *p);

#endif
