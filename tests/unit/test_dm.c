/* SPDX-License-Identifier: BSD-3-Clause */
/* What the kernel writes of a multipath map, read; and what is asked of it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#include "lun/dm.h"

/* ---- device mapper, made of variables ---------------------------- */

static struct {
    const char *table, *status, *type;
    int error; /* of an ioctl */
    bool full;
    uint64_t dev; /* that was asked */
    char message[64];
    unsigned opened, closed;
} dm;

#define CONTROL_FD 1000

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

int
__wrap_open(const char *path, int flags, ...)
{
    if (strcmp(path, "/dev/mapper/control") != 0)
        return __real_open(path, flags, 0);
    assert_true(flags & O_CLOEXEC);
    dm.opened++;
    return CONTROL_FD;
}

int
__wrap_close(int fd)
{
    if (fd != CONTROL_FD)
        return __real_close(fd);
    dm.closed++;
    return 0;
}

static void
answer(struct dm_ioctl *io)
{
    struct dm_target_spec *t = (void *)((char *)io + io->data_start);
    const char *line = io->flags & DM_STATUS_TABLE_FLAG ? dm.table : dm.status;

    assert_true(io->flags & DM_NOFLUSH_FLAG); /* else it waits for I/O */
    strcpy(io->name, "vmstore");
    io->target_count = dm.type ? 1 : 0;
    if (dm.full)
        io->flags |= DM_BUFFER_FULL_FLAG;
    if (!dm.type)
        return;
    snprintf(t->target_type, sizeof t->target_type, "%s", dm.type);
    strcpy((char *)(t + 1), line);
}

int
__wrap_ioctl(int fd, unsigned long request, void *arg)
{
    struct dm_ioctl *io = arg;
    struct dm_target_msg *msg = (void *)((char *)io + io->data_start);

    assert_int_equal(fd, CONTROL_FD);
    assert_int_equal(io->version[0], DM_VERSION_MAJOR);
    assert_string_equal(io->name, ""); /* found by number, or not at all */
    dm.dev = io->dev;
    if (dm.error) {
        errno = dm.error;
        return -1;
    }
    if (request == DM_TARGET_MSG)
        snprintf(dm.message, sizeof dm.message, "%s", msg->message);
    else
        answer(io);
    return 0;
}

/* Two groups of two paths with the selectors of a usual ALUA array. */
#define TABLE                                                                  \
    "1 queue_if_no_path 1 alua 2 1 service-time 0 2 2 8:16 1 1 8:32 1 1 "      \
    "service-time 0 2 2 8:48 1 1 8:64 1 1"
#define STATUS                                                                 \
    "2 0 0 0 2 1 A 0 2 2 8:16 A 0 0 1 8:32 F 3 0 1 "                           \
    "E 0 2 2 8:48 A 0 0 1 8:64 A 12 0 1 "

static int
setup(void **state)
{
    (void)state;
    memset(&dm, 0, sizeof dm);
    dm.table = TABLE;
    dm.status = STATUS;
    dm.type = "multipath";
    return 0;
}

/* ---- the status line --------------------------------------------- */

static void
assert_path(const struct dm_path *p, unsigned minor, bool active,
            unsigned failures, unsigned group)
{
    assert_true(p->dev == makedev(8, minor));
    assert_int_equal(p->active, active);
    assert_int_equal(p->failures, failures);
    assert_int_equal(p->group, group);
}

static void
test_status_of_two_groups(void **state)
{
    struct dm_map m;

    (void)state;
    assert_int_equal(dm_parse_status(STATUS, &m), 0);
    assert_int_equal(m.npaths, 4);
    assert_path(&m.paths[0], 16, true, 0, 1);
    assert_path(&m.paths[1], 32, false, 3, 1);
    assert_path(&m.paths[2], 48, true, 0, 2);
    assert_path(&m.paths[3], 64, true, 12, 2);
}

/* round-robin says nothing of a path, historical-service-time three words */
static void
test_status_of_other_selectors(void **state)
{
    struct dm_map m;

    (void)state;
    assert_int_equal(
        dm_parse_status("2 0 0 0 1 1 A 0 2 0 8:16 F 1 8:32 A 0 ", &m), 0);
    assert_int_equal(m.npaths, 2);
    assert_path(&m.paths[1], 32, true, 0, 1);
    assert_int_equal(
        dm_parse_status("2 0 1 1 alua 1 1 D 3 50 0 1000 1 3 253:7 A 0 0 0 0 ",
                        &m),
        0);
    assert_int_equal(m.npaths, 1);
    assert_true(m.paths[0].dev == makedev(253, 7));
}

static void
test_status_without_paths(void **state)
{
    struct dm_map m;

    (void)state;
    assert_int_equal(dm_parse_status("2 0 0 0 0 0 ", &m), 0);
    assert_int_equal(m.npaths, 0);
}

static void
test_status_of_more_paths_than_fit(void **state)
{
    char text[1024] = "2 0 0 0 1 1 A 0 40 0";
    struct dm_map m;

    (void)state;
    for (int i = 0; i < 40; i++)
        sprintf(text + strlen(text), " 8:%d A 0", i);
    assert_int_equal(dm_parse_status(text, &m), 0);
    assert_int_equal(m.npaths, LUN_PATH_MAX);
}

/* Cut anywhere it is refused: a path that is not read is not a good one. */
static void
test_status_cut_short_is_refused(void **state)
{
    char text[] = STATUS;
    struct dm_map m;
    size_t whole = strlen(text) - strlen("1 ");

    (void)state;
    for (size_t n = 0; n < whole; n++) {
        memcpy(text, STATUS, sizeof text);
        text[n] = '\0';
        assert_int_equal(dm_parse_status(text, &m), -EBADMSG);
        assert_int_equal(m.npaths, 0);
    }
}

static void
test_status_that_is_none_is_refused(void **state)
{
    static const char *const lines[] = {
        "",
        "0 2048 linear",
        "2 0 0 0 1 1 X 0 1 0 8:16 A 0",
        "2 0 0 0 1 1 A 0 1 0 8:16 B 0",
        "2 0 0 0 1 1 A 0 1 0 8.16 A 0",
        "2 0 0 0 1 1 A 0 1 0 8:16 A -1",
        "2 0 0 0 1 1 A 0 4294967295 0 8:16 A 0",
        "99999999999999999999 0",
    };
    struct dm_map m;

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_int_equal(dm_parse_status(lines[i], &m), -EBADMSG);
}

/* ---- the table line ---------------------------------------------- */

static void
test_table_tells_whether_it_queues(void **state)
{
    struct dm_map m;

    (void)state;
    assert_int_equal(dm_parse_table(TABLE, &m), 0);
    assert_true(m.queues);
    assert_int_equal(dm_parse_table("0 0 1 1 round-robin 0 1 1 8:16 1", &m), 0);
    assert_false(m.queues);
    assert_int_equal(
        dm_parse_table("3 pg_init_retries 50 queue_if_no_path 0 1 1", &m), 0);
    assert_true(m.queues);
    /* not among the features, and not the word */
    assert_int_equal(
        dm_parse_table("2 pg_init_retries 50 1 queue_if_no_path 1", &m), 0);
    assert_false(m.queues);
    assert_int_equal(dm_parse_table("1 queue_if_no_paths 0", &m), 0);
    assert_false(m.queues);
    assert_int_equal(dm_parse_table("2 queue_if_no_path", &m), -EBADMSG);
    assert_false(m.queues);
}

/* ---- ioctls ------------------------------------------------------ */

static void
test_read_by_number(void **state)
{
    struct dm_map m;

    (void)state;
    assert_int_equal(dm_read(makedev(253, 300), &m), 0);
    assert_true(dm.dev == makedev(253, 300));
    assert_string_equal(m.name, "vmstore");
    assert_true(m.queues);
    assert_int_equal(m.npaths, 4);
    assert_int_equal(dm.opened, dm.closed);
}

static void
test_read_of_another_target_is_refused(void **state)
{
    struct dm_map m;

    (void)state;
    dm.type = "linear";
    assert_int_equal(dm_read(makedev(253, 0), &m), -ENODEV);
    dm.type = NULL; /* a table was not loaded yet */
    assert_int_equal(dm_read(makedev(253, 0), &m), -ENODEV);
    assert_int_equal(dm.opened, dm.closed);
}

static void
test_read_that_fails_tells_why(void **state)
{
    struct dm_map m;

    (void)state;
    dm.error = ENXIO;
    assert_int_equal(dm_read(makedev(253, 0), &m), -ENXIO);
    dm.error = 0;
    dm.full = true;
    assert_int_equal(dm_read(makedev(253, 0), &m), -EMSGSIZE);
    assert_int_equal(dm.opened, dm.closed);
}

static void
test_order_to_fail(void **state)
{
    (void)state;
    assert_int_equal(dm_fail_queued(makedev(253, 4)), 0);
    assert_true(dm.dev == makedev(253, 4));
    assert_string_equal(dm.message, "fail_if_no_path");
    dm.error = ENXIO;
    assert_int_equal(dm_fail_queued(makedev(253, 4)), -ENXIO);
    assert_int_equal(dm.opened, dm.closed);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_status_of_two_groups, setup),
        cmocka_unit_test_setup(test_status_of_other_selectors, setup),
        cmocka_unit_test_setup(test_status_without_paths, setup),
        cmocka_unit_test_setup(test_status_of_more_paths_than_fit, setup),
        cmocka_unit_test_setup(test_status_cut_short_is_refused, setup),
        cmocka_unit_test_setup(test_status_that_is_none_is_refused, setup),
        cmocka_unit_test_setup(test_table_tells_whether_it_queues, setup),
        cmocka_unit_test_setup(test_read_by_number, setup),
        cmocka_unit_test_setup(test_read_of_another_target_is_refused, setup),
        cmocka_unit_test_setup(test_read_that_fails_tells_why, setup),
        cmocka_unit_test_setup(test_order_to_fail, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
