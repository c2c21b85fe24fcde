/* SPDX-License-Identifier: BSD-3-Clause */
/* What a plugin leaves for its successor: never forgotten, never half of it,
 * whatever the disk does. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "plugin/state.h"

#define SLOT 4096

static char dir[64], path[96], err[512];

/* ---- system calls that can fail ----------------------------------------- */

static int calls_left = -1; /* -1: all succeed; 0: the next one fails */
static unsigned syncs;

static bool
fails(void)
{
    if (calls_left < 0 || calls_left-- > 0)
        return false;
    errno = EIO;
    return true;
}

ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t where);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
int __real_link(const char *from, const char *to);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t where);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_link(const char *from, const char *to);

/* A write that fails has torn what was there: its beginning is on disk. */
ssize_t
__wrap_pwrite(int fd, const void *buf, size_t len, off_t where)
{
    bool torn = fails();

    if (torn)
        len /= 64;
    return __real_pwrite(fd, buf, len, where) < 0 || torn ? -1 : (ssize_t)len;
}

int
__wrap_fdatasync(int fd)
{
    syncs++;
    return fails() ? -1 : __real_fdatasync(fd);
}

int
__wrap_fsync(int fd)
{
    return fails() ? -1 : __real_fsync(fd);
}

int
__wrap_link(const char *from, const char *to)
{
    return fails() ? -1 : __real_link(from, to);
}

/* ---- helpers ------------------------------------------------------------ */

static int
setup(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    snprintf(dir, sizeof dir, "%s/state.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/vm.main", dir);
    calls_left = -1;
    syncs = 0;
    return 0;
}

static unsigned
count_files(void)
{
    DIR *d = opendir(dir);
    unsigned n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static int
teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static struct state_file *
try_open(struct state *s)
{
    return state_open(dir, "vm", "main", 0, s, err, sizeof err);
}

static struct state_file *
must_open(struct state *s)
{
    struct state_file *f = try_open(s);

    if (!f)
        fail_msg("%s", err);
    return f;
}

static struct state
a_state(uint64_t generation)
{
    struct state s = {.generation = generation,
                      .local = generation % 2,
                      .npeers = 2,
                      .id = "naa.6001405abc",
                      .size = UINT64_C(1) << 45,
                      .block_size = 4096};

    snprintf(s.peers[0], STATE_NAME_MAX, "host-b");
    snprintf(s.peers[1], STATE_NAME_MAX, "host.%llu",
             (unsigned long long)generation);
    return s;
}

static void
assert_state(const struct state *s, uint64_t generation)
{
    struct state want = a_state(generation);

    assert_memory_equal(s, &want, sizeof want);
}

/* Save generations first to last in a file of its own life. */
static void
save(uint64_t first, uint64_t last)
{
    struct state s;
    struct state_file *f = must_open(&s);

    for (uint64_t g = first; g <= last; g++) {
        s = a_state(g);
        assert_int_equal(state_save(f, &s), 0);
    }
    state_close(f);
}

static void
assert_saved(uint64_t generation)
{
    struct state s;

    state_close(must_open(&s));
    assert_state(&s, generation);
}

/* Where the slot of a generation lies: the first two are written when the
 * file is made. */
static off_t
slot_of(uint64_t generation)
{
    return (off_t)((generation + 1) % 2) * SLOT;
}

static void
damage(off_t where, const char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY);

    assert_true(fd >= 0);
    assert_int_equal(__real_pwrite(fd, bytes, n, where), n);
    close(fd);
}

static void
assert_refused(int error, const char *words)
{
    struct state s;

    assert_null(try_open(&s));
    assert_int_equal(errno, error);
    if (!strstr(err, words) || !strstr(err, path))
        fail_msg("\"%s\" lacks \"%s\"", err, words);
    /* nothing that could be taken for a state */
    assert_int_equal(s.generation, 0);
}

/* ---- the usual ---------------------------------------------------------- */

static void
test_state_new_file_is_empty(void **state)
{
    struct state s, nothing = {0};
    struct state_file *f = must_open(&s);
    struct stat st;

    (void)state;
    assert_memory_equal(&s, &nothing, sizeof s);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 2 * SLOT);
    assert_true((uint64_t)st.st_blocks * 512 >= 2 * SLOT);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(count_files(), 1);
    state_close(f);
    state_close(must_open(&s));
    assert_memory_equal(&s, &nothing, sizeof s);
}

static void
test_state_gives_back_what_was_saved_last(void **state)
{
    (void)state;
    for (uint64_t g = 1; g < 8; g++) {
        save(g, g);
        assert_saved(g);
    }
    save(8, 40);
    assert_saved(40);
}

static void
test_state_is_on_disk_when_saved(void **state)
{
    struct state s;
    struct state_file *f = must_open(&s);
    unsigned before = syncs;

    (void)state;
    s = a_state(1);
    assert_int_equal(state_save(f, &s), 0);
    assert_int_equal(syncs, before + 1);
    state_close(f);
}

static void
test_state_clients_have_files_of_their_own(void **state)
{
    struct state s;
    struct state_file *f = must_open(&s), *g;
    char other[96];

    (void)state;
    g = state_open(dir, "vm", "other", 0, &s, err, sizeof err);
    assert_non_null(g);
    state_close(g);
    state_close(f);
    snprintf(other, sizeof other, "%s/vm.other", dir);
    assert_int_equal(unlink(other), 0);
}

static void
test_state_second_process_is_refused(void **state)
{
    struct state s;
    struct state_file *f = must_open(&s);

    (void)state;
    assert_refused(EBUSY, "give each process a client=NAME");
    state_close(f);
    state_close(must_open(&s));
}

/* A process that was killed keeps the lock until its I/O has come back. */
static void
test_state_lock_of_a_killed_process_is_waited_for(void **state)
{
    struct state s;
    struct state_file *f;
    int held[2];
    char c;
    pid_t child;

    (void)state;
    save(1, 7);
    assert_int_equal(pipe(held), 0);
    child = fork();
    if (child == 0) {
        try_open(&s);
        if (write(held[1], "", 1) != 1)
            _exit(1);
        usleep(300000);
        _exit(0);
    }
    assert_int_equal(read(held[0], &c, 1), 1);
    assert_refused(EBUSY, "or was killed");
    f = state_open(dir, "vm", "main", clock_ms() + 20000, &s, err, sizeof err);
    assert_non_null(f);
    assert_int_equal(s.generation, 7);
    state_close(f);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(held[0]);
    close(held[1]);
}

static void
test_state_missing_folder_is_told(void **state)
{
    struct state s;

    (void)state;
    assert_null(state_open("/nonexistent/detour", "vm", "main", 0, &s, err,
                           sizeof err));
    assert_int_equal(errno, ENOENT);
    assert_non_null(strstr(err, "/nonexistent/detour/vm.main"));
    assert_non_null(strstr(err, "No such file"));
}

static void
test_state_too_much_is_an_error_and_keeps_the_former(void **state)
{
    struct state s;
    struct state_file *f;

    (void)state;
    save(1, 5);
    f = must_open(&s);
    s.npeers = STATE_HOSTS_MAX;
    for (size_t i = 0; i < s.npeers; i++)
        memset(s.peers[i], 'x', STATE_NAME_MAX - 1);
    assert_int_equal(state_save(f, &s), -EOVERFLOW);
    state_close(f);
    assert_saved(5);
}

/* ---- damage ------------------------------------------------------------- */

/* The newer slot was being written when the power went: byte by byte, what
 * was on disk before is what counts. */
static void
test_state_torn_slot_falls_back_to_the_older(void **state)
{
    static const char zeroes[SLOT];
    char slot[SLOT];
    size_t len;
    int fd;

    (void)state;
    save(1, 6);
    fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, slot, SLOT, slot_of(6)), SLOT);
    close(fd);
    len = strnlen(slot, SLOT);
    assert_true(len > 100 && len < SLOT);
    for (size_t keep = 0; keep < len; keep++) {
        damage(slot_of(6), slot, len);
        damage(slot_of(6) + (off_t)keep, zeroes, SLOT - keep);
        assert_saved(5);
    }
    damage(slot_of(6), slot, len);
    assert_saved(6);
}

static void
test_state_flipped_bit_is_noticed(void **state)
{
    char byte;
    int fd;

    (void)state;
    for (off_t at = 0; at < 120; at += 11) {
        save(1, 6);
        fd = open(path, O_RDONLY);
        assert_int_equal(pread(fd, &byte, 1, slot_of(6) + at), 1);
        close(fd);
        byte ^= 0x04;
        damage(slot_of(6) + at, &byte, 1);
        assert_saved(5);
        unlink(path);
    }
}

static void
test_state_saving_goes_on_after_a_torn_slot(void **state)
{
    (void)state;
    save(1, 6);
    damage(slot_of(6), "torn", 4);
    save(7, 7);
    assert_saved(7);
}

static void
test_state_both_slots_damaged_is_refused(void **state)
{
    (void)state;
    save(1, 6);
    damage(0, "torn", 4);
    damage(SLOT, "torn", 4);
    assert_refused(EINVAL, "the saved state is damaged");
}

/* A file that is too short was not made by us, or lost its end: it is not
 * taken for a new one. */
static void
test_state_garbage_and_short_files_are_refused(void **state)
{
    static const off_t sizes[] = {0, 5, SLOT - 1, SLOT, 2 * SLOT};
    char head[2] = {0};
    int fd;

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(ftruncate(fd, sizes[i]), 0);
        if (sizes[i] > 4)
            assert_int_equal(write(fd, "junk", 4), 4);
        close(fd);
        assert_refused(EINVAL, "damaged");
        /* and left as it is, for whoever wants to look */
        fd = open(path, O_RDONLY);
        assert_int_equal(lseek(fd, 0, SEEK_END), sizes[i]);
        if (sizes[i] > 4)
            assert_int_equal(pread(fd, head, 1, 0), 1);
        close(fd);
        assert_true(sizes[i] <= 4 || head[0] == 'j');
        unlink(path);
    }
}

/* One good slot is enough, also when the file lost its end. */
static void
test_state_short_file_with_a_good_slot_is_used(void **state)
{
    (void)state;
    save(1, 7);
    assert_int_equal(slot_of(7), 0);
    assert_int_equal(truncate(path, SLOT), 0);
    assert_saved(7);
}

/* ---- calls that fail ---------------------------------------------------- */

/* Fail the nth call while the file is made: an error, nothing left behind,
 * and the next try starts afresh. */
static void
test_state_making_the_file_fails_cleanly(void **state)
{
    struct state s;
    struct state_file *f = NULL;
    int n;

    (void)state;
    for (n = 0; !f; n++) {
        calls_left = n;
        f = try_open(&s);
        calls_left = -1;
        if (!f)
            assert_int_equal(errno, EIO);
        if (!f && n < 6)
            assert_int_equal(count_files(), 0);
        assert_true(n < 20);
    }
    assert_int_equal(n - 1, 7); /* 2 x (write, sync), sync, link, sync */
    state_close(f);
}

static void
test_state_failed_save_keeps_the_former(void **state)
{
    struct state s;
    struct state_file *f;

    (void)state;
    save(1, 5);
    f = must_open(&s);
    for (int n = 0; n < 2; n++) {
        s = a_state(6);
        calls_left = n;
        assert_int_equal(state_save(f, &s), -EIO);
    }
    /* that one was written, but is not on disk; this one is torn */
    s = a_state(8);
    calls_left = 0;
    assert_int_equal(state_save(f, &s), -EIO);
    state_close(f);
    calls_left = -1;
    assert_saved(5);
    save(7, 7);
    assert_saved(7);
}

static void
fill_disk(void)
{
    static const char junk[4096];
    char name[96];
    int fd;

    snprintf(name, sizeof name, "%s/junk", dir);
    fd = open(name, O_WRONLY | O_CREAT, 0600);
    while (write(fd, junk, sizeof junk) > 0)
        ;
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

/* In a process and a mount namespace of its own; 0: all is well. */
static int
save_on_full_disk(void)
{
    struct state s;
    struct state_file *f;

    if (unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "tmpfs", 0, "size=64k") < 0)
        return 77;
    save(1, 1);
    fill_disk();
    save(2, 9);
    assert_saved(9);
    /* a new client finds no room: an error, not half a file */
    f = state_open(dir, "vm", "new", 0, &s, err, sizeof err);
    assert_null(f);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(count_files(), 2);
    return 0;
}

static void
test_state_saves_on_a_full_disk(void **state)
{
    int status;
    pid_t pid;

    (void)state;
    pid = fork();
    if (pid == 0)
        _exit(save_on_full_disk());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The same without the right to mount: the file must not grow. */
static void
test_state_saves_without_growing(void **state)
{
    struct rlimit former, limit = {2 * SLOT, 2 * SLOT};
    struct state s;
    struct state_file *f = must_open(&s);

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &former), 0);
    limit.rlim_max = former.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (uint64_t g = 1; g < 5; g++) {
        s = a_state(g);
        assert_int_equal(state_save(f, &s), 0);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &former), 0);
    state_close(f);
    assert_saved(4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_state_new_file_is_empty),
        TEST(test_state_gives_back_what_was_saved_last),
        TEST(test_state_is_on_disk_when_saved),
        TEST(test_state_clients_have_files_of_their_own),
        TEST(test_state_second_process_is_refused),
        TEST(test_state_lock_of_a_killed_process_is_waited_for),
        TEST(test_state_missing_folder_is_told),
        TEST(test_state_too_much_is_an_error_and_keeps_the_former),
        TEST(test_state_torn_slot_falls_back_to_the_older),
        TEST(test_state_flipped_bit_is_noticed),
        TEST(test_state_saving_goes_on_after_a_torn_slot),
        TEST(test_state_both_slots_damaged_is_refused),
        TEST(test_state_garbage_and_short_files_are_refused),
        TEST(test_state_short_file_with_a_good_slot_is_used),
        TEST(test_state_making_the_file_fails_cleanly),
        TEST(test_state_failed_save_keeps_the_former),
        TEST(test_state_saves_on_a_full_disk),
        TEST(test_state_saves_without_growing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
