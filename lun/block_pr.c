/* SPDX-License-Identifier: BSD-3-Clause */
/* Reservation commands on a device, each a job with a deadline. */
#include "lun/block_pr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "lun/quirk.h"
#include "lun/sg.h"

/* What a job is given and gives back; the device is a reference, let go of
 * when the command has come back, however late. */
struct args {
    struct device *device;
    uint64_t own, victim;
    bool dry;
    struct block_slaves slaves;
};

struct look_args {
    struct device *device;
    struct pr_block_state state;
};

static void
end(void *arg)
{
    struct args *a = arg;

    device_put(a->device);
}

static void
end_look(void *arg)
{
    struct look_args *a = arg;

    device_put(a->device);
}

static int
run(struct block *b, struct job_group *group, int (*work)(void *),
    struct args *a, uint64_t deadline_ms)
{
    struct job j = {work, end, a, sizeof *a};

    a->device = block_device(b);
    return a->device ? job_run(group, &j, deadline_ms) : -ENOLINK;
}

/* ---- looking ----------------------------------------------------- */

static int
look(void *arg)
{
    struct look_args *a = arg;
    int err = pr_block_read_keys(a->device->fd, &a->state);

    return err ? err : pr_block_read_reservation(a->device->fd, &a->state);
}

int
block_pr_look(struct block *b, struct pr_block_state *s, uint64_t deadline_ms)
{
    struct look_args a = {.device = block_device(b)};
    struct job j = {look, end_look, &a, sizeof a};
    int err;

    if (!a.device)
        return -ENOLINK;
    err = job_run(b->jobs, &j, deadline_ms);
    if (!err)
        *s = a.state;
    return err;
}

/* ---- registering ------------------------------------------------- */

static int
open_path(const char *name)
{
    char path[SYSFS_NAME_MAX + 8];
    int fd;

    /* Without O_EXCL a path may be opened although dm holds it. */
    snprintf(path, sizeof path, "/dev/%s", name);
    fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* The kernel's own REGISTER on a multipath map takes it back from all paths
 * when one of them fails (dm_pr_register() in drivers/md/dm.c), so that a
 * host with a dead path could never register.  Hence path by path; one that
 * fails as a path is left out, and conflicts when it is back. */
static int
register_paths(struct args *a)
{
    int first = -ENOLINK;
    bool any = false;

    block_good_slaves(a->device, &a->slaves);
    for (size_t i = 0; i < a->slaves.n; i++) {
        int fd = open_path(a->slaves.names[i]);
        int err = fd < 0 ? fd : pr_block_register(fd, a->own);

        if (fd >= 0)
            close(fd);
        if (!err)
            any = true;
        else
            first = err;
        if (err == -EBADE || err == -EOPNOTSUPP)
            return err;
    }
    return any ? 0 : first;
}

static int
send_register(void *arg)
{
    struct args *a = arg;

    return a->device->multipath ? register_paths(a)
                                : pr_block_register(a->device->fd, a->own);
}

int
block_pr_register(struct block *b, uint64_t key, struct block_slaves *tried,
                  uint64_t deadline_ms)
{
    struct args a = {.own = key};
    int err = run(b, b->registers, send_register, &a, deadline_ms);

    *tried = a.slaves;
    return err;
}

static int
send_reserve(void *arg)
{
    struct args *a = arg;

    return pr_block_reserve(a->device->fd, a->own);
}

int
block_pr_reserve(struct block *b, uint64_t key, uint64_t deadline_ms)
{
    struct args a = {.own = key};

    return run(b, b->jobs, send_reserve, &a, deadline_ms);
}

/* ---- preempting -------------------------------------------------- */

/* errors:  1 yes; 0 no, or no SCSI; -errno */
static int
aborts_partly(int fd)
{
    const uint8_t inquiry[6] = {0x12, [4] = 36}; /* SPC-4 6.6, standard data */
    uint8_t data[36];
    int n = sg_read(fd, inquiry, sizeof inquiry, data, sizeof data);

    if (n == -ENOTTY || n == -EOPNOTSUPP)
        return 0;
    return n < 0 ? n : quirk_partial_abort(data, (size_t)n);
}

static int
send_preempt_abort(void *arg)
{
    struct args *a = arg;
    int partly = aborts_partly(a->device->fd);

    if (partly)
        return partly < 0 ? partly : -EOPNOTSUPP;
    return pr_block_preempt(a->device->fd, a->own, a->victim, true);
}

static int
send_preempt(void *arg)
{
    struct args *a = arg;

    return pr_block_preempt(a->device->fd, a->own, a->victim, false);
}

int
block_pr_preempt_abort(struct block *b, uint64_t own, uint64_t victim,
                       uint64_t deadline_ms)
{
    struct args a = {.own = own, .victim = victim};

    return run(b, b->jobs, send_preempt_abort, &a, deadline_ms);
}

int
block_pr_preempt(struct block *b, uint64_t own, uint64_t victim,
                 uint64_t deadline_ms)
{
    struct args a = {.own = own, .victim = victim};

    return run(b, b->jobs, send_preempt, &a, deadline_ms);
}

/* dm passes no resets on, so they go to a path; a LUN RESET over one path
 * ends the commands of all: SAM-5 7.7. */
static int
reset(void *arg)
{
    struct args *a = arg;
    int err = -ENOLINK;

    if (!a->device->multipath)
        return sg_reset_lun(a->device->fd, a->dry);
    block_good_slaves(a->device, &a->slaves);
    for (size_t i = 0; err && i < a->slaves.n; i++) {
        int fd = open_path(a->slaves.names[i]);

        err = fd < 0 ? fd : sg_reset_lun(fd, a->dry);
        if (fd >= 0)
            close(fd);
    }
    return err;
}

int
block_pr_reset(struct block *b, bool dry, uint64_t deadline_ms)
{
    struct args a = {.dry = dry};

    return run(b, b->jobs, reset, &a, deadline_ms);
}
