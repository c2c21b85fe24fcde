/* SPDX-License-Identifier: BSD-3-Clause */
/* An open block device or regular file, and what it can do. */
#include "lun/device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lun/identity.h"
#include "lun/nvme.h"

#define LARGEST_ALIGN 4096

/* ---- files ------------------------------------------------------- */

/* returns: 0 when the kernel or the file system does not tell */
static uint32_t
told_alignment(int fd)
{
#ifdef STATX_DIOALIGN /* Linux 6.1 */
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN) && stx.stx_dio_mem_align > 0)
        return stx.stx_dio_offset_align;
#else
    (void)fd;
#endif
    return 0;
}

static uint32_t
tried_alignment(int fd)
{
    void *buf = NULL;
    uint32_t align = 512;

    if (posix_memalign(&buf, LARGEST_ALIGN, LARGEST_ALIGN) != 0)
        return LARGEST_ALIGN;
    while (align < LARGEST_ALIGN && pread(fd, buf, align, align) < 0 &&
           errno == EINVAL)
        align *= 2;
    free(buf);
    return align;
}

static int
measure_file(struct device *d, const struct stat *st)
{
    uint32_t align = told_alignment(d->fd);

    if (align == 0)
        align = tried_alignment(d->fd);
    if (align > LARGEST_ALIGN)
        return -EINVAL;
    d->block_size = align < 512 ? 512 : align;
    d->preferred = st->st_blksize > 4096 ? (uint32_t)st->st_blksize : 4096;
    d->dev = st->st_dev;
    d->inode = st->st_ino;
    d->size = (uint64_t)st->st_size & ~((uint64_t)d->block_size - 1);
    return 0;
}

/* ---- block devices ----------------------------------------------- */

static int
measure_disk(struct device *d, const struct stat *st)
{
    unsigned physical = 0, minimum = 0, optimal = 0;
    int logical = 0, readonly = 0;
    char uuid[160];
    uint64_t size = 0;

    if (ioctl(d->fd, BLKGETSIZE64, &size) < 0 ||
        ioctl(d->fd, BLKSSZGET, &logical) < 0)
        return -errno;
    if (logical < 512 || logical > LARGEST_ALIGN)
        return -EINVAL;
    if (size == 0)
        return -ENOMEDIUM;
    (void)ioctl(d->fd, BLKPBSZGET, &physical);
    (void)ioctl(d->fd, BLKIOMIN, &minimum);
    (void)ioctl(d->fd, BLKIOOPT, &optimal);
    if (ioctl(d->fd, BLKROGET, &readonly) == 0 && readonly)
        d->readonly = true;
    d->block_size = (uint32_t)logical;
    d->preferred = 4096;
    if (physical > d->preferred)
        d->preferred = physical;
    if (minimum > d->preferred)
        d->preferred = minimum;
    /* Some arrays tell an optimal size that is no power of two; NBD's block
     * size constraints know only those. */
    if (optimal > d->preferred && !(optimal & (optimal - 1)))
        d->preferred = optimal;
    d->dev = st->st_rdev;
    d->size = size;
    if (sysfs_name(d->dev, d->name) < 0)
        return -ENODEV;
    d->multipath = sysfs_read(d->name, "dm/uuid", uuid, sizeof uuid) == 0 &&
                   strncmp(uuid, "mpath-", 6) == 0;
    d->nvme = nvme_is_head(d->name);
    d->no_discard = sysfs_read_number(d->name, "queue/discard_max_bytes") == 0;
    return 0;
}

static int
measure(struct device *d)
{
    struct stat st;
    int err;

    if (fstat(d->fd, &st) < 0)
        return -errno;
    d->file = S_ISREG(st.st_mode);
    if (!d->file && !S_ISBLK(st.st_mode))
        return -ENOTBLK;
    err = d->file ? measure_file(d, &st) : measure_disk(d, &st);
    return err ? err : identity_of_fd(d->fd, d->id);
}

/* ---- both -------------------------------------------------------- */

static int
open_direct(const char *path, bool *readonly)
{
    int flags = O_DIRECT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = open(path, flags | (*readonly ? O_RDONLY : O_RDWR));

    /* a device set read-only, or a file system mounted so */
    if (fd < 0 && !*readonly && (errno == EROFS || errno == EACCES)) {
        *readonly = true;
        fd = open(path, flags | O_RDONLY);
    }
    return fd;
}

struct device *
device_open(const char *path, bool readonly)
{
    struct device *d = calloc(1, sizeof *d);
    int err;

    if (!d)
        return NULL;
    d->refs = 1;
    d->readonly = readonly;
    d->fd = open_direct(path, &d->readonly);
    err = d->fd < 0 ? -errno : measure(d);
    if (!err)
        return d;
    device_put(d);
    errno = -err;
    return NULL;
}

struct device *
device_get(struct device *d)
{
    d->refs++;
    return d;
}

void
device_put(struct device *d)
{
    if (!d || --d->refs > 0)
        return;
    if (d->fd >= 0)
        close(d->fd);
    free(d);
}

int
device_refresh(struct device *d, const char *path, bool *grown)
{
    struct stat st;
    uint64_t size = 0;

    *grown = false;
    if (stat(path, &st) == 0 &&
        (d->file ? st.st_dev != d->dev || st.st_ino != d->inode
                 : st.st_rdev != d->dev))
        return -ENODEV;
    if (d->file) {
        if (fstat(d->fd, &st) < 0 || st.st_nlink == 0)
            return -ENODEV;
        size = (uint64_t)st.st_size & ~((uint64_t)d->block_size - 1);
    } else if (ioctl(d->fd, BLKGETSIZE64, &size) < 0 || size == 0) {
        return -ENODEV;
    }
    /* A LUN that shrinks answers for itself, by errors past its new end. */
    if (size > d->size) {
        d->size = size;
        *grown = true;
    }
    return 0;
}

size_t
device_count_paths(const struct device *d)
{
    return d->multipath ? sysfs_slaves(d->name, NULL, 0)
           : d->nvme    ? nvme_paths(d->name, NULL, 0)
                        : 0;
}

bool
device_can_trim(const struct device *d)
{
    return d->file ? !d->no_punch : !d->no_discard;
}
