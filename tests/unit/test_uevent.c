/* SPDX-License-Identifier: BSD-3-Clause */
/* Events of the kernel: their properties, and real ones of a loop device. */
#include "tests/unit/lun_fixture.h"

#include <poll.h>

#include "lun/uevent.h"

/* ---- properties -------------------------------------------------- */

struct property {
    const char *key, *value;
};

static const char *
lookup(void *opaque, const char *key)
{
    for (const struct property *p = opaque; p->key; p++)
        if (strcmp(p->key, key) == 0)
            return p->value;
    return NULL;
}

static struct uevent
read_properties(const struct property *p)
{
    struct uevent ev;

    memset(&ev, 0x5a, sizeof ev);
    uevent_read(&ev, lookup, (void *)p);
    return ev;
}

#define MAP                                                                    \
    {"ACTION", "change"}, {"SUBSYSTEM", "block"}, {"DM_TARGET", "multipath"},  \
        {"DEVPATH", "/devices/virtual/block/dm-3"}, {"DM_NAME", "vmstore"},    \
    {                                                                          \
        "DM_SEQNUM", "7"                                                       \
    }

static void
test_path_failed_names_map_and_path(void **state)
{
    const struct property p[] = {MAP,
                                 {"DM_ACTION", "PATH_FAILED"},
                                 {"DM_PATH", "8:32"},
                                 {"DM_NR_VALID_PATHS", "0"},
                                 {NULL, NULL}};
    struct uevent ev = read_properties(p);

    (void)state;
    assert_int_equal(ev.kind, UEVENT_PATH_FAILED);
    assert_string_equal(ev.name, "dm-3");
    assert_string_equal(ev.path, "8:32");
    assert_int_equal(ev.valid_paths, 0);
}

static void
test_path_reinstated_names_map_and_path(void **state)
{
    const struct property p[] = {MAP,
                                 {"DM_ACTION", "PATH_REINSTATED"},
                                 {"DM_PATH", "8:16"},
                                 {"DM_NR_VALID_PATHS", "2"},
                                 {NULL, NULL}};
    struct uevent ev = read_properties(p);

    (void)state;
    assert_int_equal(ev.kind, UEVENT_PATH_REINSTATED);
    assert_int_equal(ev.valid_paths, 2);
}

/* A table that was loaded, a size that grew, a disk that went away. */
static void
test_other_block_events_are_of_the_device(void **state)
{
    const struct property map[] = {MAP, {NULL, NULL}};
    const struct property disk[] = {
        {"ACTION", "remove"},
        {"SUBSYSTEM", "block"},
        {"DEVPATH", "/devices/pci0000:00/host2/target2:0:0/2:0:0:1/block/sdb"},
        {NULL, NULL}};
    struct uevent ev = read_properties(map);

    (void)state;
    assert_int_equal(ev.kind, UEVENT_DEVICE);
    assert_string_equal(ev.name, "dm-3");
    assert_string_equal(ev.path, "");
    assert_int_equal(ev.valid_paths, -1);
    ev = read_properties(disk);
    assert_int_equal(ev.kind, UEVENT_DEVICE);
    assert_string_equal(ev.name, "sdb");
}

static void
test_nvme_controllers_and_subsystems_are_told_apart(void **state)
{
    const struct property controller[] = {
        {"SUBSYSTEM", "nvme"},
        {"NVME_EVENT", "connected"},
        {"DEVPATH", "/devices/virtual/nvme-fabrics/ctl/nvme1"},
        {NULL, NULL}};
    const struct property subsystem[] = {
        {"SUBSYSTEM", "nvme-subsystem"},
        {"DEVPATH", "/devices/virtual/nvme-subsystem/nvme-subsys0"},
        {NULL, NULL}};

    (void)state;
    assert_int_equal(read_properties(controller).kind, UEVENT_NVME);
    assert_string_equal(read_properties(controller).name, "nvme1");
    assert_int_equal(read_properties(subsystem).kind, UEVENT_NVME);
}

/* Not of ours, without what it must have, or with what it cannot. */
static void
test_strange_events_are_none(void **state)
{
    const struct property net[] = {{"SUBSYSTEM", "net"},
                                   {"DEVPATH", "/devices/virtual/net/lo"},
                                   {NULL, NULL}};
    const struct property bare[] = {{"ACTION", "change"}, {NULL, NULL}};
    const struct property flat[] = {
        {"SUBSYSTEM", "block"}, {"DEVPATH", "dm-3"}, {NULL, NULL}};
    const struct property endless[] = {
        {"SUBSYSTEM", "block"},
        {"DEVPATH",
         "/block/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
        {NULL, NULL}};
    const struct property wordy[] = {MAP,
                                     {"DM_ACTION", "PATH_FAILED"},
                                     {"DM_NR_VALID_PATHS", "none"},
                                     {NULL, NULL}};

    (void)state;
    assert_int_equal(read_properties(net).kind, UEVENT_OTHER);
    assert_int_equal(read_properties(bare).kind, UEVENT_OTHER);
    assert_int_equal(read_properties(flat).kind, UEVENT_OTHER);
    assert_int_equal(read_properties(endless).kind, UEVENT_OTHER);
    assert_string_equal(read_properties(endless).name, "");
    assert_int_equal(read_properties(wordy).valid_paths, -1);
    assert_string_equal(read_properties(wordy).path, "");
}

/* ---- the kernel -------------------------------------------------- */

/* Have the kernel tell of a device; false: it cannot be asked to. */
static bool
provoke(const char *name)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "/sys/class/block/%s/uevent", name);
    f = fopen(path, "we");
    if (!f)
        return false;
    fputs("change", f);
    return fclose(f) == 0;
}

static void
test_kernel_tells_of_a_loop_device(void **state)
{
    struct loop loop = loop_attach(fixture_file("disk", 1 << 20), false);
    struct uevents *u = uevents_open();
    uint64_t until_ms = soon();
    struct uevent ev = {.name = ""};
    struct pollfd p;

    (void)state;
    if (loop.fd < 0 || !u || !provoke(loop.path + 5)) {
        uevents_close(u);
        loop_detach(&loop);
        skip();
    }
    p = (struct pollfd){.fd = uevents_fd(u), .events = POLLIN};
    while (strcmp(ev.name, loop.path + 5) != 0 && clock_ms() < until_ms) {
        poll(&p, 1, clock_left_ms(until_ms, clock_ms()));
        while (uevents_next(u, &ev) > 0 && strcmp(ev.name, loop.path + 5))
            ;
    }
    assert_string_equal(ev.name, loop.path + 5);
    assert_int_equal(ev.kind, UEVENT_DEVICE);
    while (uevents_next(u, &ev) > 0)
        ;
    assert_int_equal(uevents_next(u, &ev), 0); /* does not wait */
    uevents_close(u);
    loop_detach(&loop);
}

static void
test_closing_what_was_never_opened(void **state)
{
    (void)state;
    uevents_close(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path_failed_names_map_and_path),
        cmocka_unit_test(test_path_reinstated_names_map_and_path),
        cmocka_unit_test(test_other_block_events_are_of_the_device),
        cmocka_unit_test(test_nvme_controllers_and_subsystems_are_told_apart),
        cmocka_unit_test(test_strange_events_are_none),
        cmocka_unit_test_setup_teardown(test_kernel_tells_of_a_loop_device,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test(test_closing_what_was_never_opened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
