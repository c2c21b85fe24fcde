/* SPDX-License-Identifier: BSD-3-Clause */
/* NVMe native multipath as sysfs shows it. */
#include "tests/unit/fake_sysfs.h"

#include "lun/nvme.h"

static int
setup(void **state)
{
    int err = fixture_setup(state);

    fake_sysfs_use();
    return err;
}

static void
put_controller(const char *controller, const char *path, const char *state,
               const char *ana)
{
    char at[256];

    snprintf(at, sizeof at, "class/block/nvme0n12/device/%s/state", controller);
    fake_sysfs_put(at, state);
    snprintf(at, sizeof at, "class/block/nvme0n12/device/%s/transport",
             controller);
    fake_sysfs_put(at, "tcp");
    snprintf(at, sizeof at, "class/block/nvme0n12/device/%s/%s/ana_state",
             controller, path);
    fake_sysfs_put(at, ana);
}

/* Subsystem 0 with controllers 1 and 2, each with two of its namespaces. */
static void
put_subsystem(void)
{
    fake_sysfs_put("class/block/nvme0n12/device/iopolicy", "numa");
    fake_sysfs_put("class/block/nvme0n12/device/nvme0n12/size", "2048");
    fake_sysfs_put("class/block/nvme0n12/device/nvme0n1/size", "2048");
    put_controller("nvme1", "nvme0c1n12", "live", "optimized");
    put_controller("nvme1", "nvme0c1n1", "live", "inaccessible");
    put_controller("nvme2", "nvme0c2n12", "live", "non-optimized");
    put_controller("nvme2", "nvme0c2n1", "live", "inaccessible");
    fake_sysfs_put("class/block/nvme0n12/device/nvme1/address",
                   "traddr=10.0.3.1,trsvcid=4420");
}

/* readdir has its own order */
static struct nvme_path
path_of(const char *controller)
{
    struct nvme_path paths[LUN_PATH_MAX], none = {.name = ""};
    size_t n = nvme_paths("nvme0n12", paths, LUN_PATH_MAX);

    for (size_t i = 0; i < n; i++)
        if (strcmp(paths[i].controller, controller) == 0)
            return paths[i];
    return none;
}

static void
test_paths_are_those_of_the_namespace(void **state)
{
    struct nvme_path paths[LUN_PATH_MAX], p;

    (void)state;
    put_subsystem();
    assert_true(nvme_is_head("nvme0n12"));
    assert_int_equal(nvme_paths("nvme0n12", paths, LUN_PATH_MAX), 2);
    p = path_of("nvme1");
    assert_string_equal(p.name, "nvme0c1n12");
    assert_string_equal(p.state, "live");
    assert_string_equal(p.ana, "optimized");
    assert_string_equal(p.transport, "tcp");
    assert_string_equal(p.address, "traddr=10.0.3.1,trsvcid=4420");
    assert_true(nvme_path_usable(&p));
    p = path_of("nvme2");
    assert_string_equal(p.name, "nvme0c2n12");
    assert_string_equal(p.address, "");
    assert_true(nvme_path_usable(&p));
}

static void
test_states_without_io_are_not_usable(void **state)
{
    static const struct {
        const char *controller, *ana;
        bool usable;
    } cases[] = {
        {"live", "optimized", true},        {"live", "non-optimized", true},
        {"live", "inaccessible", false},    {"live", "persistent-loss", false},
        {"live", "change", false},          {"connecting", "optimized", false},
        {"resetting", "optimized", false},  {"deleting", "optimized", false},
        {"new", "optimized", false},        {"dead", "optimized", false},
        {"live", "some later word", false},
    };

    (void)state;
    put_subsystem();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nvme_path p;

        put_controller("nvme1", "nvme0c1n12", cases[i].controller,
                       cases[i].ana);
        p = path_of("nvme1");
        assert_string_equal(p.state, cases[i].controller);
        assert_int_equal(nvme_path_usable(&p), cases[i].usable);
    }
}

/* A target without ANA has no such attribute. */
static void
test_without_ana_the_controller_decides(void **state)
{
    struct nvme_path p;

    (void)state;
    put_subsystem();
    fake_sysfs_remove("class/block/nvme0n12/device/nvme1/nvme0c1n12/ana_state");
    p = path_of("nvme1");
    assert_string_equal(p.name, "nvme0c1n12");
    assert_string_equal(p.ana, "");
    assert_true(nvme_path_usable(&p));
}

static void
test_controller_given_up_takes_its_path_along(void **state)
{
    struct nvme_path paths[LUN_PATH_MAX];

    (void)state;
    put_subsystem();
    fake_sysfs_remove("class/block/nvme0n12/device/nvme2/nvme0c2n12/ana_state");
    fake_sysfs_remove("class/block/nvme0n12/device/nvme2/nvme0c2n12");
    assert_int_equal(nvme_paths("nvme0n12", paths, LUN_PATH_MAX), 1);
    assert_int_equal(nvme_paths("nvme0n12", NULL, 0), 1);
}

/* They stand in the same folders as controllers and paths. */
static void
test_many_namespaces_hide_no_path(void **state)
{
    struct nvme_path paths[LUN_PATH_MAX];
    char at[256];

    (void)state;
    put_subsystem();
    for (int i = 100; i < 400; i++) {
        snprintf(at, sizeof at, "class/block/nvme0n12/device/nvme0n%d/size", i);
        fake_sysfs_put(at, "2048");
        snprintf(at, sizeof at,
                 "class/block/nvme0n12/device/nvme1/nvme0c1n%d/ana_state", i);
        fake_sysfs_put(at, "optimized");
    }
    assert_int_equal(nvme_paths("nvme0n12", paths, LUN_PATH_MAX), 2);
    assert_string_equal(path_of("nvme1").name, "nvme0c1n12");
    assert_string_equal(path_of("nvme2").name, "nvme0c2n12");
}

static void
test_paths_that_do_not_fit_are_counted(void **state)
{
    struct nvme_path paths[3] = {{.name = ""}};

    (void)state;
    put_subsystem();
    for (int i = 3; i <= LUN_PATH_MAX + 1; i++) {
        char controller[16], path[24];

        snprintf(controller, sizeof controller, "nvme%d", i);
        snprintf(path, sizeof path, "nvme0c%dn12", i);
        put_controller(controller, path, "live", "optimized");
    }
    assert_int_equal(nvme_paths("nvme0n12", paths, 2), LUN_PATH_MAX + 1);
    assert_string_equal(paths[1].state, "live");
    assert_string_equal(paths[2].name, "");
}

static void
test_other_devices_are_no_heads(void **state)
{
    struct nvme_path paths[LUN_PATH_MAX];

    (void)state;
    /* one path by itself: its device is the controller */
    fake_sysfs_put("class/block/nvme0n1/device/state", "live");
    fake_sysfs_put("class/block/sda/device/state", "running");
    fake_sysfs_put("class/block/sdb/device/iopolicy", "numa");
    assert_false(nvme_is_head("nvme0n1"));
    assert_false(nvme_is_head("sda"));
    assert_false(nvme_is_head("sdb"));
    assert_false(nvme_is_head("nvme9n1"));
    assert_int_equal(nvme_paths("nvme0n1", paths, LUN_PATH_MAX), 0);
    assert_int_equal(nvme_paths("nvme9n1", paths, LUN_PATH_MAX), 0);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_paths_are_those_of_the_namespace),
        TEST(test_states_without_io_are_not_usable),
        TEST(test_without_ana_the_controller_decides),
        TEST(test_controller_given_up_takes_its_path_along),
        TEST(test_many_namespaces_hide_no_path),
        TEST(test_paths_that_do_not_fit_are_counted),
        TEST(test_other_devices_are_no_heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
