/* SPDX-License-Identifier: BSD-3-Clause */
/* Epochs and keys on disk: never one twice, damage is told, a failed step
 * leaves what was there. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lun/epoch.h"
#include "lun/key.h"

static char dir[64];

/* ---- system calls that can fail ------------------------------------------ */

static int calls_left = -1; /* -1: all succeed; 0: the next one fails */
static unsigned syncs;
static uint32_t random_value;

int __real_fsync(int fd);
int __real_rename(const char *from, const char *to);
ssize_t __real_write(int fd, const void *buf, size_t len);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);

static bool
fails(void)
{
    if (calls_left < 0)
        return false;
    if (calls_left-- > 0)
        return false;
    calls_left = -1;
    errno = EIO;
    return true;
}

int
__wrap_fsync(int fd)
{
    syncs++;
    return fails() ? -1 : __real_fsync(fd);
}

int
__wrap_rename(const char *from, const char *to)
{
    return fails() ? -1 : __real_rename(from, to);
}

/* Takes at most 5 bytes at a time. */
ssize_t
__wrap_write(int fd, const void *buf, size_t len)
{
    return fails() ? -1 : __real_write(fd, buf, len > 5 ? 5 : len);
}

ssize_t
__wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    (void)flags;
    memcpy(buf, &random_value, len);
    return (ssize_t)len;
}

/* ---- helpers ------------------------------------------------------------- */

static const char *
in_dir(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void
put_file(const char *name, const char *text)
{
    FILE *f = fopen(in_dir(name), "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int
make_dir(void **state)
{
    (void)state;
    calls_left = -1;
    syncs = 0;
    random_value = 41;
    strcpy(dir, "/tmp/test_epoch.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int
remove_dir(void **state)
{
    (void)state;
    calls_left = -1;
    unlink(in_dir("v.epoch"));
    unlink(in_dir("v.p.keys"));
    return rmdir(dir); /* and nothing else was left in it */
}

/* ---- epochs -------------------------------------------------------------- */

static void
test_epoch_first_is_random_and_then_counts(void **state)
{
    (void)state;
    assert_int_equal(epoch_last(dir, "v"), 0);
    assert_int_equal(errno, 0);
    assert_int_equal(epoch_next(dir, "v"), 42);
    assert_int_equal(epoch_last(dir, "v"), 42);
    assert_int_equal(epoch_next(dir, "v"), 43);
    assert_int_equal(epoch_next(dir, "v"), 44);
    assert_int_equal(epoch_last(dir, "v"), 44);
}

static void
test_epoch_first_is_far_from_the_end(void **state)
{
    (void)state;
    random_value = UINT32_MAX;
    assert_in_range(epoch_next(dir, "v"), 1, KEY_EPOCH_MAX / 2);
}

static void
test_epoch_goes_round_after_the_largest(void **state)
{
    (void)state;
    put_file("v.epoch", "16777214\n");
    assert_int_equal(epoch_next(dir, "v"), KEY_EPOCH_MAX);
    assert_int_equal(epoch_next(dir, "v"), 1);
}

static void
test_epoch_is_on_disk_before_it_is_given_out(void **state)
{
    (void)state;
    assert_int_not_equal(epoch_next(dir, "v"), 0);
    assert_int_equal(syncs, 2); /* the file and its folder */
}

static void
test_epoch_that_did_not_reach_the_disk_is_not_given_out(void **state)
{
    uint32_t before = epoch_next(dir, "v");
    uint32_t after = 0;
    int n;

    (void)state;
    for (n = 0; !after && n < 20; n++) {
        calls_left = n;
        errno = 0;
        after = epoch_next(dir, "v");
        if (!after)
            assert_int_equal(errno, EIO);
    }
    assert_true(n > 4); /* two writes, two fsyncs */
    assert_true(after > before);
}

static void
test_epoch_empty_file_is_a_crash_before_the_first(void **state)
{
    (void)state;
    put_file("v.epoch", "");
    assert_int_equal(epoch_next(dir, "v"), 42);
}

static void
test_epoch_damaged_file_is_told(void **state)
{
    static const char *const damaged[] = {
        "\n",       "12\n",      "00000000\n", "16777216\n",   "0000001x\n",
        "00000012", "000000120", "-0000001\n", "00000012\n\n", "0000000a\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(damaged) / sizeof(*damaged); i++) {
        put_file("v.epoch", damaged[i]);
        errno = 0;
        assert_int_equal(epoch_next(dir, "v"), 0);
        assert_int_equal(errno, EUCLEAN);
        errno = 0;
        assert_int_equal(epoch_last(dir, "v"), 0);
        assert_int_equal(errno, EUCLEAN);
    }
}

static void
test_epoch_names_stay_in_their_folder(void **state)
{
    uint64_t key = 1;

    (void)state;
    assert_int_equal(epoch_next(dir, "../v"), 0);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(epoch_next(dir, ""), 0);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(epoch_save_keys(dir, "v", "a/b", &key, 1), -EINVAL);
    assert_int_equal(epoch_load_keys(dir, "../v", "p", &key, 1), -EINVAL);
    /* else it would be the file of LUN v.a, process b */
    assert_int_equal(epoch_save_keys(dir, "v", "a.b", &key, 1), -EINVAL);
    assert_int_equal(epoch_load_keys(dir, "v", "a.b", &key, 1), -EINVAL);
}

static void
test_epoch_missing_folder_is_told(void **state)
{
    (void)state;
    assert_int_equal(epoch_next("/nonexistent", "v"), 0);
    assert_int_equal(errno, ENOENT);
}

/* Take n epochs and write them to fd. */
static void
take_epochs(int fd, int n)
{
    while (n-- > 0) {
        uint32_t epoch = epoch_next(dir, "v");

        if (__real_write(fd, &epoch, sizeof(epoch)) != sizeof(epoch))
            _exit(1);
    }
    _exit(0);
}

static void
test_epoch_processes_never_get_the_same(void **state)
{
    enum {
        PROCESSES = 4,
        EACH = 25
    };
    bool seen[42 + PROCESSES * EACH] = {false};
    uint32_t epoch;
    int fds[2], status;

    (void)state;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < PROCESSES; i++)
        if (fork() == 0)
            take_epochs(fds[1], EACH);
    close(fds[1]);
    for (int i = 0; i < PROCESSES * EACH; i++) {
        assert_int_equal(read(fds[0], &epoch, sizeof(epoch)), sizeof(epoch));
        assert_in_range(epoch, 42, 42 + PROCESSES * EACH - 1);
        assert_false(seen[epoch]);
        seen[epoch] = true;
    }
    close(fds[0]);
    for (int i = 0; i < PROCESSES; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
}

/* ---- keys ---------------------------------------------------------------- */

static void
assert_keys(const uint64_t *want, size_t n)
{
    uint64_t got[8];

    assert_int_equal(epoch_load_keys(dir, "v", "p", got, 8), n);
    assert_memory_equal(got, want, n * sizeof(*want));
}

static void
test_epoch_keys_survive(void **state)
{
    const uint64_t keys[] = {0xDE70001002000003, UINT64_MAX, 1};
    uint64_t none;

    (void)state;
    assert_int_equal(epoch_load_keys(dir, "v", "p", &none, 1), 0);
    assert_int_equal(epoch_save_keys(dir, "v", "p", keys, 3), 0);
    assert_keys(keys, 3);
    assert_int_equal(epoch_save_keys(dir, "v", "p", keys + 1, 1), 0);
    assert_keys(keys + 1, 1);
    assert_int_equal(epoch_save_keys(dir, "v", "p", NULL, 0), 0);
    assert_keys(NULL, 0);
}

static void
test_epoch_failed_save_leaves_the_old_keys_or_the_new(void **state)
{
    const uint64_t old[] = {1, 2}, fresh[] = {3};
    int r = -EIO;
    int n;

    (void)state;
    assert_int_equal(epoch_save_keys(dir, "v", "p", old, 2), 0);
    for (n = 0; r < 0 && n < 20; n++) {
        uint64_t got[8];

        calls_left = n;
        r = epoch_save_keys(dir, "v", "p", fresh, 1);
        assert_true(r == 0 || r == -EIO);
        calls_left = -1;
        if (epoch_load_keys(dir, "v", "p", got, 8) == 2)
            assert_keys(old, 2);
        else
            assert_keys(fresh, 1);
    }
    assert_int_equal(r, 0);
    assert_true(n > 6); /* four writes, fsync, rename, fsync */
    assert_keys(fresh, 1);
}

static void
test_epoch_too_many_keys_are_told(void **state)
{
    const uint64_t keys[] = {1, 2, 3};
    uint64_t got[3] = {0};

    (void)state;
    assert_int_equal(epoch_save_keys(dir, "v", "p", keys, 3), 0);
    assert_int_equal(epoch_load_keys(dir, "v", "p", got, 2), -E2BIG);
    assert_int_equal(got[2], 0);
    assert_int_equal(epoch_load_keys(dir, "v", "p", got, 3), 3);
}

static void
test_epoch_damaged_keys_are_told(void **state)
{
    static const char *const damaged[] = {
        "x", "de7000100200000\n", "de70001002000003", "DE70001002000003\n",
        "de70001002000003\n\n"};
    uint64_t got[4];

    (void)state;
    for (size_t i = 0; i < sizeof(damaged) / sizeof(*damaged); i++) {
        put_file("v.p.keys", damaged[i]);
        assert_int_equal(epoch_load_keys(dir, "v", "p", got, 4), -EUCLEAN);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_epoch_first_is_random_and_then_counts),
        TEST(test_epoch_first_is_far_from_the_end),
        TEST(test_epoch_goes_round_after_the_largest),
        TEST(test_epoch_is_on_disk_before_it_is_given_out),
        TEST(test_epoch_that_did_not_reach_the_disk_is_not_given_out),
        TEST(test_epoch_empty_file_is_a_crash_before_the_first),
        TEST(test_epoch_damaged_file_is_told),
        TEST(test_epoch_names_stay_in_their_folder),
        TEST(test_epoch_missing_folder_is_told),
        TEST(test_epoch_processes_never_get_the_same),
        TEST(test_epoch_keys_survive),
        TEST(test_epoch_failed_save_leaves_the_old_keys_or_the_new),
        TEST(test_epoch_too_many_keys_are_told),
        TEST(test_epoch_damaged_keys_are_told),
    };

    return cmocka_run_group_tests_name("epoch", tests, NULL, NULL);
}
