/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests that may block, carried out by threads of the library. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lun/block.h"
#include "lun/wait.h"

/* Any thread gives work; workers take it.  There are as many as were needed
 * at once lately, BLOCK_WORKERS_MAX at most; when so many are stuck, further
 * requests wait, and are taken back unsent when they are abandoned. */

#define IDLE_MS 10000 /* then a worker ends */

/* ---- the work ---------------------------------------------------- */

static bool
unwanted(const struct block_request *r)
{
    return r->abandoned || r->q->dead;
}

static int
transfer(struct block_request *r)
{
    struct lun_io *io = &r->io;
    int flags = io->op == LUN_WRITE && (io->flags & LUN_FUA) ? RWF_DSYNC : 0;

    while (r->done < io->count && !unwanted(r)) {
        struct iovec v = {io->data + r->done, io->count - r->done};
        off_t at = (off_t)(io->offset + r->done);
        ssize_t n = io->op == LUN_READ
                        ? preadv2(r->device->fd, &v, 1, at, 0)
                        : pwritev2(r->device->fd, &v, 1, at, flags);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0) /* a file that shrank, a full one */
            return io->op == LUN_READ ? -EIO : -ENOSPC;
        r->done += (uint64_t)n;
    }
    return 0;
}

static int
change_range(const struct block_request *r, int mode)
{
    return fallocate(r->device->fd, mode | FALLOC_FL_KEEP_SIZE,
                     (off_t)r->io.offset, (off_t)r->io.count) < 0
               ? -errno
               : 0;
}

/* Do it in one way unless that is known not to work here. */
static int
try_range(const struct block_request *r, int mode, atomic_bool *unable)
{
    int err = *unable ? -EOPNOTSUPP : change_range(r, mode);

    if (err == -EOPNOTSUPP || err == -ENOSYS)
        *unable = true;
    return *unable ? -EOPNOTSUPP : err;
}

static int
discard(const struct block_request *r)
{
    uint64_t range[2] = {r->io.offset, r->io.count};

    if (r->device->no_discard)
        return -EOPNOTSUPP;
    if (ioctl(r->device->fd, BLKDISCARD, range) == 0)
        return 0;
    if (errno == EOPNOTSUPP)
        r->device->no_discard = true;
    return -errno;
}

/* A trim is a hint: not being able to is no error. */
static int
trim(const struct block_request *r)
{
    struct device *d = r->device;
    int err =
        d->file ? try_range(r, FALLOC_FL_PUNCH_HOLE, &d->no_punch) : discard(r);

    return err == -EOPNOTSUPP ? 0 : err;
}

static int
write_zeroes(struct block_request *r)
{
    static const char zeroes[128 * 1024]
        __attribute__((aligned(LUN_BUFFER_ALIGN)));

    while (r->done < r->io.count && !unwanted(r)) {
        uint64_t left = r->io.count - r->done;
        ssize_t n = pwrite(r->device->fd, zeroes,
                           left < sizeof zeroes ? left : sizeof zeroes,
                           (off_t)(r->io.offset + r->done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        r->done += (uint64_t)n;
    }
    return 0;
}

/* On a block device PUNCH_HOLE means "zero it, unmapping where that leaves
 * zeroes, never by writing", ZERO_RANGE "zero it without unmapping":
 * blkdev_fallocate() in block/fops.c. */
static int
zero(struct block_request *r)
{
    struct device *d = r->device;
    int err = -EOPNOTSUPP;

    if (!(r->io.flags & LUN_NO_HOLE))
        err = try_range(r, FALLOC_FL_PUNCH_HOLE, &d->no_punch);
    if (err == -EOPNOTSUPP)
        err = try_range(r, FALLOC_FL_ZERO_RANGE, &d->no_zero_range);
    if (err == -EOPNOTSUPP)
        err = write_zeroes(r);
    return err;
}

static int
carry_out(struct block_request *r)
{
    int err = 0;

    switch (r->io.op) {
    case LUN_READ:
    case LUN_WRITE:
        return transfer(r);
    case LUN_FLUSH:
        return fdatasync(r->device->fd) < 0 ? -errno : 0;
    case LUN_TRIM:
        err = trim(r);
        break;
    case LUN_ZERO:
        err = zero(r);
        break;
    }
    if (!err && (r->io.flags & LUN_FUA) && fdatasync(r->device->fd) < 0)
        err = -errno;
    return err;
}

/* ---- the workers ------------------------------------------------- */

static struct lun_io *
next_locked(struct block *b)
{
    uint64_t deadline_ms = clock_ms() + IDLE_MS;
    struct lun_io *io;
    bool more = true;

    b->workers_idle++;
    while (!b->waiting && !b->worker_stop && more)
        more = wait_cond(&b->worker_wanted, &b->worker_lock, deadline_ms);
    b->workers_idle--;
    io = b->waiting;
    if (io) {
        b->waiting = io->next;
        b->nwaiting--;
        if (!b->waiting)
            b->waiting_end = &b->waiting;
    }
    return io;
}

static void *
work(void *opaque)
{
    struct block *b = opaque;
    struct lun_io *io;

    pthread_mutex_lock(&b->worker_lock);
    while ((io = next_locked(b))) {
        struct block_request *r = block_request(io);
        int err;

        pthread_mutex_unlock(&b->worker_lock);
        err = carry_out(r);
        device_put(r->device);
        r->device = NULL;
        block_queue_returned(r, err);
        pthread_mutex_lock(&b->worker_lock);
    }
    b->workers--;
    pthread_mutex_unlock(&b->worker_lock);
    block_thread_end(b);
    return NULL;
}

/* returns: false when there is no worker at all and none could be made */
static bool
provide_worker_locked(struct block *b)
{
    if (b->workers_idle > b->nwaiting) { /* not all of them spoken for */
        pthread_cond_signal(&b->worker_wanted);
        return true;
    }
    if (b->workers < BLOCK_WORKERS_MAX && block_thread(b, work) == 0)
        b->workers++;
    return b->workers > 0;
}

int
block_worker_give(struct block *b, struct block_request *r)
{
    int err = 0;

    r->io.next = NULL;
    pthread_mutex_lock(&b->worker_lock);
    if (provide_worker_locked(b)) {
        *b->waiting_end = &r->io;
        b->waiting_end = &r->io.next;
        b->nwaiting++;
    } else {
        err = -EAGAIN;
    }
    pthread_mutex_unlock(&b->worker_lock);
    return err;
}

struct lun_io *
block_worker_take_back(struct block *b, struct block_queue *q,
                       struct block_request *r)
{
    struct lun_io *taken = NULL, **p = &b->waiting;

    pthread_mutex_lock(&b->worker_lock);
    while (*p) {
        struct lun_io *io = *p;

        if (block_request(io)->q != q || (r && io != &r->io)) {
            p = &io->next;
            continue;
        }
        *p = io->next;
        b->nwaiting--;
        io->next = taken;
        taken = io;
    }
    b->waiting_end = p;
    pthread_mutex_unlock(&b->worker_lock);
    return taken;
}

void
block_worker_stop(struct block *b)
{
    pthread_mutex_lock(&b->worker_lock);
    b->worker_stop = true;
    pthread_cond_broadcast(&b->worker_wanted);
    pthread_mutex_unlock(&b->worker_lock);
}
