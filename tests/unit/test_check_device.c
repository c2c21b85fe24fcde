/* SPDX-License-Identifier: BSD-3-Clause */
/* What detourctl check says of devices that cannot be had in a test: with
 * reservations of all kinds, below a map, hanging. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "health/check.h"
#include "health/fields.h"
#include "lun/device.h"
#include "lun/key.h"
#include "lun/pr_block.h"

/* What the device is like; the child process that looks at it has a copy. */
static struct device device;
static struct pr_block_state pr;
static int pr_error;
static bool hangs, below_map;
static size_t paths; /* below the device */

struct device *__wrap_device_open(const char *path, bool readonly);
int __wrap_pr_block_read_keys(int fd, struct pr_block_state *s);
int __wrap_pr_block_read_reservation(int fd, struct pr_block_state *s);
size_t __wrap_sysfs_slaves(const char *name, char slaves[][SYSFS_NAME_MAX],
                           size_t max);

struct device *
__wrap_device_open(const char *path, bool readonly)
{
    assert_string_equal(path, "/dev/mapper/vm1");
    assert_true(readonly);
    while (hangs)
        pause();
    return &device;
}

int
__wrap_pr_block_read_keys(int fd, struct pr_block_state *s)
{
    (void)fd;
    *s = pr;
    return pr_error;
}

int
__wrap_pr_block_read_reservation(int fd, struct pr_block_state *s)
{
    (void)fd;
    s->reserved = pr.reserved;
    s->usable_type = pr.usable_type;
    return 0;
}

size_t
__wrap_sysfs_slaves(const char *name, char slaves[][SYSFS_NAME_MAX], size_t max)
{
    if (strcmp(name, device.name) == 0)
        return paths;
    if (!below_map || max < 2 || strcmp(name, "dm-3") != 0)
        return 0;
    strcpy(slaves[0], "sdx");
    strcpy(slaves[1], "sdb");
    return 2;
}

/* ---- a good one, and what can be wrong with it --------------------------- */

static char lun_name[] = "vm1", lun_device[] = "/dev/mapper/vm1";
static struct config_lun lun;
static const struct config config = {.cluster_number = 7};
static struct check_lun luns[1];
static struct check k;

static int
setup(void **state)
{
    (void)state;
    device = (struct device){
        .fd = -1, .name = "sdb", .id = "naa.6001", .size = 4096};
    pr = (struct pr_block_state){
        .nkeys = 1,
        .keys = {key_pack((struct key){.cluster = 7, .host = 2, .epoch = 1})},
        .reserved = true,
        .usable_type = true,
    };
    pr_error = 0;
    hangs = below_map = false;
    paths = 0;
    lun = (struct config_lun){
        .name = lun_name, .device = lun_device, .fence = CONFIG_FENCE_PR};
    luns[0] = (struct check_lun){.config = &lun};
    k = (struct check){.sysroot = "",
                       .config = &config,
                       .luns = luns,
                       .nluns = 1,
                       .findings = json_array()};
    return k.findings ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    json_decref(k.findings);
    return 0;
}

/* One problem, and this text is in it. */
static void
assert_problem(const char *text)
{
    const json_t *first;

    check_devices(&k);
    first = json_array_get(k.findings, 0);
    assert_int_equal(json_array_size(k.findings), 1);
    assert_string_equal(field_text(first, "level"), "problem");
    assert_string_equal(field_text(first, "about"), "vm1");
    assert_non_null(strstr(field_text(first, "text"), text));
    assert_int_equal(k.problems, 1);
}

static void
test_good_device_is_learnt_and_not_complained_of(void **state)
{
    (void)state;
    check_devices(&k);
    assert_int_equal(json_array_size(k.findings), 0);
    assert_string_equal(luns[0].id, "naa.6001");
    assert_int_equal(luns[0].size, 4096);
}

static void
test_target_that_refuses_reservations(void **state)
{
    (void)state;
    pr_error = -EOPNOTSUPP;
    assert_problem("refuses persistent reservations");
}

static void
test_refused_reservations_are_fine_without_them(void **state)
{
    (void)state;
    pr_error = -EOPNOTSUPP;
    lun.fence = CONFIG_FENCE_DRAIN;
    check_devices(&k);
    assert_int_equal(json_array_size(k.findings), 0);
}

static void
test_reservation_of_another_type(void **state)
{
    (void)state;
    pr.usable_type = false;
    assert_problem("of a type that detour cannot use");
}

static void
test_key_of_somebody_else(void **state)
{
    (void)state;
    pr.keys[pr.nkeys++] = 0x123;
    assert_problem("not of this cluster is registered on /dev/mapper/vm1: "
                   "0000000000000123");
}

static void
test_key_of_another_cluster(void **state)
{
    (void)state;
    pr.keys[0] = key_pack((struct key){.cluster = 8, .host = 2, .epoch = 1});
    assert_problem("not of this cluster");
}

static void
test_path_of_a_map(void **state)
{
    (void)state;
    below_map = true;
    assert_problem("only one path of the multipath map dm-3");
}

static void
test_map_itself_is_not_looked_for(void **state)
{
    (void)state;
    below_map = true;
    device.multipath = true;
    check_devices(&k);
    assert_int_equal(json_array_size(k.findings), 0);
}

static void
test_map_of_as_many_paths_as_can_be_used(void **state)
{
    (void)state;
    device.multipath = true;
    paths = LUN_PATH_MAX;
    check_devices(&k);
    assert_int_equal(json_array_size(k.findings), 0);
}

static void
test_map_of_too_many_paths(void **state)
{
    (void)state;
    device.multipath = true;
    paths = LUN_PATH_MAX + 1;
    assert_problem("/dev/mapper/vm1 has 33 paths, at most 32 can be used");
}

static void
test_device_that_hangs_is_left_alone(void **state)
{
    (void)state;
    hangs = true;
    assert_problem("does not answer within 5 s");
    assert_string_equal(luns[0].id, "");
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_good_device_is_learnt_and_not_complained_of),
        T(test_target_that_refuses_reservations),
        T(test_refused_reservations_are_fine_without_them),
        T(test_reservation_of_another_type),
        T(test_key_of_somebody_else),
        T(test_key_of_another_cluster),
        T(test_path_of_a_map),
        T(test_map_itself_is_not_looked_for),
        T(test_map_of_as_many_paths_as_can_be_used),
        T(test_map_of_too_many_paths),
        T(test_device_that_hangs_is_left_alone),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
