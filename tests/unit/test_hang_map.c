/* SPDX-License-Identifier: BSD-3-Clause */
/* What waits in a map without a path comes back when the paths are given up,
 * and when the LUN is let go: a device that hangs, said to be a map. */
#include "tests/unit/hang_fixture.h"

#include <stdatomic.h>

#include "lun/device.h"
#include "lun/dm.h"

#define PROMPT_MS 2000

/* ---- a map that queues as long as it is not told otherwise -------- */

static atomic_bool queues;
static atomic_uint orders;

struct device *__real_device_open(const char *path, bool readonly);
struct device *__wrap_device_open(const char *path, bool readonly);
int __wrap_dm_read(dev_t dev, struct dm_map *m);
int __wrap_dm_fail_queued(dev_t dev);

struct device *
__wrap_device_open(const char *path, bool readonly)
{
    struct device *d = __real_device_open(path, readonly);

    if (!d)
        return NULL;
    d->multipath = true;
    strcpy(d->name, "no-such-map"); /* in sysfs */
    return d;
}

int
__wrap_dm_read(dev_t dev, struct dm_map *m)
{
    (void)dev;
    *m = (struct dm_map){.name = "vmstore", .queues = queues};
    return 0;
}

/* The kernel ends what waits (here: well). */
int
__wrap_dm_fail_queued(dev_t dev)
{
    (void)dev;
    queues = false;
    orders++;
    tell("go\n");
    return 0;
}

static int
setup(void **state)
{
    queues = true;
    orders = 0;
    return hang_setup(state);
}

static struct lun *
open_map(bool loop)
{
    struct lun_options opt = fixture_options(device(loop));
    struct lun_map m;
    struct lun *l;

    opt.multipathd = "nobody-listens-here";
    l = fixture_lun(&opt);
    eventually(lun_get_map(l, &m) && m.queues);
    return l;
}

/* ---- tests ------------------------------------------------------- */

static void
orphans_come_back_when_paths_are_given_up(bool loop)
{
    struct lun *l = open_map(loop);
    struct lun_queue *q = lun_queue_create(l);
    struct lun_tally *t = lun_tally_create();

    tell("hold\n");
    hang_write(q, t, 0x11);
    eventually(tell("held\n") > 0);
    assert_int_equal(status_of(l).orphans, 1);
    assert_false(lun_tally_wait(t, clock_ms() + 300)); /* a look takes 250 */
    assert_int_equal(orders, 0);
    lun_fail_queued(l, true);
    assert_true(lun_tally_wait(t, soon()));
    eventually(status_of(l).orphans == 0);
    assert_int_equal(orders, 1);
    lun_tally_put(t);
    lun_queue_destroy(q);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_orphans_come_back_when_paths_are_given_up_file(void **state)
{
    (void)state;
    orphans_come_back_when_paths_are_given_up(false);
}

static void
test_orphans_come_back_when_paths_are_given_up_loop(void **state)
{
    (void)state;
    orphans_come_back_when_paths_are_given_up(true);
}

/* Nobody has judged the paths yet when the process is told to end. */
static void
letting_go_leaves_nothing_in_the_map(enum lun_op op)
{
    struct lun *l = open_map(true);
    struct lun_queue *q = lun_queue_create(l);
    uint64_t begin_ms;

    tell("hold\n");
    assert_false(lun_run(q, request(q, op, 8192, 4096, 0x11), clock_ms() + 50));
    eventually(tell("held\n") > 0);
    lun_queue_destroy(q);
    begin_ms = clock_ms();
    assert_int_equal(lun_destroy(l, soon()), 0);
    assert_true(clock_ms() - begin_ms < PROMPT_MS);
    assert_int_equal(orders, 1);
    assert_int_equal(tell("held\n"), 0);
}

static void
test_letting_go_with_a_write_leaves_nothing_in_the_map(void **state)
{
    (void)state;
    letting_go_leaves_nothing_in_the_map(LUN_WRITE);
}

static void
test_letting_go_with_a_read_leaves_nothing_in_the_map(void **state)
{
    (void)state;
    letting_go_leaves_nothing_in_the_map(LUN_READ);
}

static void
test_letting_go_of_an_idle_map_leaves_it_alone(void **state)
{
    struct lun *l = open_map(false);

    (void)state;
    assert_int_equal(lun_destroy(l, soon()), 0);
    assert_int_equal(orders, 0);
    assert_true(queues);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, hang_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_orphans_come_back_when_paths_are_given_up_file),
        TEST(test_orphans_come_back_when_paths_are_given_up_loop),
        TEST(test_letting_go_with_a_write_leaves_nothing_in_the_map),
        TEST(test_letting_go_with_a_read_leaves_nothing_in_the_map),
        TEST(test_letting_go_of_an_idle_map_leaves_it_alone),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
