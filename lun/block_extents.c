/* SPDX-License-Identifier: BSD-3-Clause */
/* Allocated parts of a file. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lun/block.h"

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
