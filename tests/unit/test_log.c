/* SPDX-License-Identifier: BSD-3-Clause */
/* Log lines: their form, their level, and that a text cannot forge one. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"

static int stderr_before = -1;
static int pipe_out = -1;

/* How many bytes write() takes at once; 0: all.  And interrupts before it. */
static size_t write_most;
static unsigned interrupts;
static unsigned writes;

ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);

ssize_t
__wrap_write(int fd, const void *buf, size_t len)
{
    writes++;
    if (interrupts > 0) {
        interrupts--;
        errno = EINTR;
        return -1;
    }
    return __real_write(fd, buf,
                        write_most && len > write_most ? write_most : len);
}

/* From here on stderr is a pipe, as each test wants it. */
static int
catch_stderr(void **state)
{
    int fds[2];

    (void)state;
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -1;
    stderr_before = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    pipe_out = fds[0];
    unsetenv("JOURNAL_STREAM");
    write_most = 0;
    interrupts = writes = 0;
    log_init("prog", LOG_LEVEL_INFO);
    return 0;
}

static int
release_stderr(void **state)
{
    (void)state;
    dup2(stderr_before, STDERR_FILENO);
    close(stderr_before);
    close(pipe_out);
    return 0;
}

static const char *
caught(void)
{
    static char text[16384];
    ssize_t n = read(pipe_out, text, sizeof(text) - 1);

    text[n < 0 ? 0 : n] = '\0';
    return text;
}

static void
test_log_line_names_program_and_level(void **state)
{
    (void)state;
    log_error("lun %s: lost", "vm1");
    assert_string_equal(caught(), "prog: error: lun vm1: lost\n");
    log_warning("w");
    assert_string_equal(caught(), "prog: warning: w\n");
    log_info("i");
    assert_string_equal(caught(), "prog: info: i\n");
}

static void
test_log_debug_only_when_asked_for(void **state)
{
    (void)state;
    assert_false(log_debugging());
    log_debug("x");
    assert_string_equal(caught(), "");
    log_init("prog", LOG_LEVEL_DEBUG);
    assert_true(log_debugging());
    log_debug("x");
    assert_string_equal(caught(), "prog: debug: x\n");
    log_init("prog", LOG_LEVEL_ERROR);
    log_warning("x");
    assert_string_equal(caught(), "");
}

static void
test_log_journal_gets_priorities(void **state)
{
    char stream[64];
    struct stat st;

    (void)state;
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init("prog", LOG_LEVEL_DEBUG);
    log_error("a");
    log_warning("b");
    log_info("c");
    log_debug("d");
    assert_string_equal(caught(), "<3>a\n<4>b\n<6>c\n<7>d\n");
}

static void
test_log_other_stream_is_no_journal(void **state)
{
    static const char *const streams[] = {"1:2", "", "x", "1:", "1:2:3"};

    (void)state;
    for (size_t i = 0; i < sizeof(streams) / sizeof(*streams); i++) {
        setenv("JOURNAL_STREAM", streams[i], 1);
        log_init("prog", LOG_LEVEL_INFO);
        log_info("a");
        assert_string_equal(caught(), "prog: info: a\n");
    }
}

static void
test_log_text_cannot_forge_a_line(void **state)
{
    (void)state;
    log_info("peer said: %s", "x\nprog: error: \x1b[2J\x7f\tall lost");
    assert_string_equal(
        caught(), "prog: info: peer said: x?prog: error: ?[2J??all lost\n");
}

static void
test_log_long_line_is_cut_and_says_so(void **state)
{
    const char *line;
    size_t len;

    (void)state;
    log_info("%05000d", 1);
    line = caught();
    len = strlen(line);
    assert_int_equal(len, 4095);
    assert_string_equal(line + len - 5, "0...\n");
    assert_int_equal(writes, 1);
}

static void
test_log_errno_is_kept(void **state)
{
    (void)state;
    errno = ENOLINK;
    log_error("%m");
    assert_int_equal(errno, ENOLINK);
    assert_string_equal(caught(), "prog: error: Link has been severed\n");
    close(STDERR_FILENO);
    errno = ENOLINK;
    log_error("nobody hears this");
    assert_int_equal(errno, ENOLINK);
}

static void
test_log_short_and_interrupted_writes_go_on(void **state)
{
    (void)state;
    write_most = 7;
    interrupts = 2;
    log_info("a text longer than that");
    assert_string_equal(caught(), "prog: info: a text longer than that\n");
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, catch_stderr, release_stderr)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_log_line_names_program_and_level),
        TEST(test_log_debug_only_when_asked_for),
        TEST(test_log_journal_gets_priorities),
        TEST(test_log_other_stream_is_no_journal),
        TEST(test_log_text_cannot_forge_a_line),
        TEST(test_log_long_line_is_cut_and_says_so),
        TEST(test_log_errno_is_kept),
        TEST(test_log_short_and_interrupted_writes_go_on),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
