/* SPDX-License-Identifier: BSD-3-Clause */
/* Paths below a block device, allocated parts of a file. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lun/block.h"

/* ---- paths ------------------------------------------------------- */

/* What the SCSI layer (device/state: running, offline, transport-offline,
 * blocked, ...) or NVMe (live, connecting, ...) thinks of a path.  sysfs is
 * memory: reading it does not touch the device. */
static enum lun_path_state
path_state(const char *name, char *why, size_t len)
{
    if (sysfs_read(name, "device/state", why, len) < 0 || !*why)
        return LUN_PATH_UNKNOWN;
    return strcmp(why, "running") == 0 || strcmp(why, "live") == 0
               ? LUN_PATH_GOOD
               : LUN_PATH_FAILED;
}

void
block_count_paths(struct device *d, unsigned *good, unsigned *known)
{
    char slaves[LUN_PATH_MAX][SYSFS_NAME_MAX], why[64];
    size_t n;

    *good = *known = 1;
    if (!d) {
        *good = 0;
        return;
    }
    if (!d->multipath) {
        if (!d->file && path_state(d->name, why, sizeof why) == LUN_PATH_FAILED)
            *good = 0;
        return;
    }
    n = sysfs_slaves(d->name, slaves, LUN_PATH_MAX);
    *good = 0;
    *known = (unsigned)n;
    for (size_t i = 0; i < n; i++)
        *good += path_state(slaves[i], why, sizeof why) != LUN_PATH_FAILED;
}

void
block_good_slaves(const struct device *d, struct block_slaves *good)
{
    char slaves[LUN_PATH_MAX][SYSFS_NAME_MAX], why[64];
    size_t n = sysfs_slaves(d->name, slaves, LUN_PATH_MAX);

    good->n = 0;
    for (size_t i = 0; i < n; i++)
        if (path_state(slaves[i], why, sizeof why) == LUN_PATH_GOOD)
            strcpy(good->names[good->n++], slaves[i]);
}

static void
fill_path(struct block *b, struct lun_path *p, const char *name)
{
    char why[64];

    *p = (struct lun_path){.since_ms = b->path_state.since_ms};
    snprintf(p->name, sizeof p->name, "%s", name);
    p->state = path_state(name, why, sizeof why);
    if (p->state == LUN_PATH_FAILED)
        snprintf(p->error, sizeof p->error, "state %s", why);
    else
        p->state = LUN_PATH_GOOD; /* dm holds it, nothing speaks against it */
}

/* since_ms of a multipath map's paths is that of the map: sysfs tells no
 * times. */
size_t
block_get_paths(void *opaque, struct lun_path *paths, size_t max)
{
    char slaves[LUN_PATH_MAX][SYSFS_NAME_MAX];
    struct block *b = opaque;
    struct device *d = block_device(b);
    size_t n = 0;

    if (d && d->multipath) {
        n = sysfs_slaves(d->name, slaves, LUN_PATH_MAX);
        for (size_t i = 0; i < n && i < max; i++)
            fill_path(b, &paths[i], slaves[i]);
    } else {
        n = 1;
        if (max > 0) {
            pthread_mutex_lock(&b->lock);
            paths[0] = b->path_state;
            pthread_mutex_unlock(&b->lock);
        }
    }
    device_put(d);
    return n;
}

/* ---- extents ----------------------------------------------------- */

#define EXTENTS_MAX 64 /* in one answer */

struct extents_job {
    struct device *device; /* a reference */
    uint64_t offset, end;
    size_t max, n;
    struct lun_extent extents[EXTENTS_MAX];
};

static void
add_extent(struct extents_job *j, uint64_t until, bool hole)
{
    uint64_t mask = (uint64_t)j->device->block_size - 1;

    /* a file's last, partial block; where data and hole share a block */
    until = hole ? until & ~mask : (until + mask) & ~mask;
    if (until > j->end)
        until = j->end;
    if (until <= j->offset)
        return;
    if (j->n > 0 && j->extents[j->n - 1].hole == hole)
        j->extents[j->n - 1].count += until - j->offset;
    else
        j->extents[j->n++] = (struct lun_extent){until - j->offset, hole};
    j->offset = until;
}

static int
find_extents(void *arg)
{
    struct extents_job *j = arg;
    int fd = j->device->fd;

    while (j->offset < j->end && j->n < j->max) {
        uint64_t before = j->offset;
        off_t data = lseek(fd, (off_t)j->offset, SEEK_DATA);
        off_t hole;

        if (data < 0 && errno == ENXIO) {
            add_extent(j, j->end, true);
            break;
        }
        if (data < 0)
            return -errno;
        if ((uint64_t)data > j->offset)
            add_extent(j, (uint64_t)data, true);
        if (j->n == j->max)
            break;
        hole = lseek(fd, data, SEEK_HOLE);
        if (hole < 0)
            return -errno;
        add_extent(j, (uint64_t)hole, false);
        if (j->offset == before)
            return -EIO; /* the file changes faster than we look */
    }
    return 0;
}

static void
end_extents(void *arg)
{
    struct extents_job *j = arg;

    device_put(j->device);
}

int
block_extents(void *opaque, uint64_t offset, uint64_t count,
              struct lun_extent *extents, size_t max, uint64_t deadline_ms)
{
    struct block *b = opaque;
    struct extents_job args = {.device = block_device(b),
                               .offset = offset,
                               .end = offset + count,
                               .max = max < EXTENTS_MAX ? max : EXTENTS_MAX};
    struct job j = {find_extents, end_extents, &args, sizeof args};
    int err;

    if (!args.device)
        return -ENOLINK;
    if (!args.device->file) {
        device_put(args.device);
        extents[0] = (struct lun_extent){count, false};
        return 1;
    }
    err = job_run(b->jobs, &j, deadline_ms);
    if (err)
        return err;
    memcpy(extents, args.extents, args.n * sizeof *extents);
    return (int)args.n;
}
