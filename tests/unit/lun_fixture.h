/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests of LUNs share: files, folders and devices to try them on. */
#ifndef DETOUR_TESTS_LUN_FIXTURE_H
#define DETOUR_TESTS_LUN_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "lun/lun.h"

#define PATIENCE_MS 10000 /* what must happen does so by far earlier */
#include "tests/unit/eventually.h"

static char fixture_dir[128]; /* of this test; holds all it makes */

static inline uint64_t
soon(void)
{
    return clock_ms() + PATIENCE_MS;
}

static inline int
fixture_setup(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    snprintf(fixture_dir, sizeof fixture_dir, "%s/lun.XXXXXX",
             tmp ? tmp : "/tmp");
    return mkdtemp(fixture_dir) ? 0 : -1;
}

static inline int
fixture_teardown(void **state)
{
    char command[192];

    (void)state;
    snprintf(command, sizeof command, "rm -rf --one-file-system '%s'",
             fixture_dir);
    return system(command);
}

/* The name of a file in the test's folder; one of a few static buffers. */
static inline const char *
fixture_path(const char *name)
{
    static char paths[4][192];
    static unsigned at;

    at = (at + 1) % 4;
    snprintf(paths[at], sizeof paths[at], "%s/%s", fixture_dir, name);
    return paths[at];
}

static inline const char *
fixture_file(const char *name, uint64_t size)
{
    const char *path = fixture_path(name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    return path;
}

static inline struct lun_options
fixture_options(const char *device)
{
    return (struct lun_options){
        .name = "vm1",
        .device = device,
        .process = "test",
        .rundir = fixture_dir,
        .statedir = fixture_dir,
        .cluster_number = 7,
        .host_number = 1,
        .fence = LUN_FENCE_DRAIN,
    };
}

static inline struct lun_status
status_of(struct lun *l)
{
    struct lun_status st;

    lun_get_status(l, &st);
    return st;
}

/* An open LUN that is known. */
static inline struct lun *
fixture_lun(const struct lun_options *opt)
{
    struct lun *l = lun_create(opt);

    assert_non_null(l);
    eventually(status_of(l).known);
    return l;
}

/* The same, with nothing special asked for. */
static inline struct lun *
fixture_lun_on(const char *device)
{
    struct lun_options opt = fixture_options(device);

    return fixture_lun(&opt);
}

/* A request of count bytes; writes are filled with fill. */
static inline struct lun_io *
request(struct lun_queue *q, enum lun_op op, uint64_t offset, uint64_t count,
        int fill)
{
    struct lun_io *io =
        lun_io_get(q, op == LUN_READ || op == LUN_WRITE ? count : 0);

    assert_non_null(io);
    io->op = op;
    io->offset = offset;
    io->count = count;
    if (io->data) /* reads too: what is left over must not look right */
        memset(io->data, op == LUN_WRITE ? fill : 0xA5, count);
    return io;
}

/* One request to its end; returns its error. */
static inline int
carry_out(struct lun_queue *q, enum lun_op op, uint64_t offset, uint64_t count,
          int fill)
{
    struct lun_io *io = request(q, op, offset, count, fill);
    int err;

    assert_true(lun_run(q, io, soon()));
    err = io->error;
    lun_io_put(io);
    return err;
}

/* A loop device over a file; path is "" when there is none to be had. */
struct loop {
    char path[32];
    int fd;
};

static inline struct loop
loop_attach(const char *file, bool direct)
{
    struct loop loop = {.fd = -1};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int backing = open(file, O_RDWR | O_CLOEXEC);
    struct loop_config config;

    memset(&config, 0, sizeof config); /* with what lies between */
    config.fd = (uint32_t)backing;
    config.info.lo_flags =
        LO_FLAGS_AUTOCLEAR | (direct ? LO_FLAGS_DIRECT_IO : 0);
    /* another test may take the free one first */
    for (int i = 0; control >= 0 && backing >= 0 && i < 20; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE, 0);

        if (number < 0)
            break;
        snprintf(loop.path, sizeof loop.path, "/dev/loop%d", number);
        loop.fd = open(loop.path, O_RDWR | O_CLOEXEC);
        if (loop.fd < 0 || ioctl(loop.fd, LOOP_CONFIGURE, &config) == 0)
            break;
        close(loop.fd);
        loop.fd = -1;
    }
    if (control >= 0)
        close(control);
    if (backing >= 0)
        close(backing);
    return loop;
}

static inline void
loop_detach(struct loop *loop)
{
    if (loop->fd < 0)
        return;
    ioctl(loop->fd, LOOP_CLR_FD, 0);
    close(loop->fd);
    loop->fd = -1;
}

#endif
