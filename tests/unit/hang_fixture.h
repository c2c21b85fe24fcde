/* SPDX-License-Identifier: BSD-3-Clause */
/* A device that hangs by order: tests/tools/hangfs, as a file or below a loop
 * device. */
#ifndef DETOUR_TESTS_HANG_FIXTURE_H
#define DETOUR_TESTS_HANG_FIXTURE_H

#include <libgen.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/lun_fixture.h"

static struct {
    pid_t pid;
    int in, out; /* its standard input and output; -1: not running */
    struct loop loop;
    char dir[192], file[256];
} hang = {.in = -1, .out = -1};

/* One command; the number it answers. */
static inline unsigned
tell(const char *command)
{
    char answer[32] = "";
    ssize_t n;

    assert_int_equal(write(hang.in, command, strlen(command)),
                     (ssize_t)strlen(command));
    n = read(hang.out, answer, sizeof answer - 1);
    assert_true(n > 0);
    return (unsigned)atoi(answer);
}

static inline void
start_hangfs(void)
{
    char self[512], tool[1024], answer[32];
    int to[2], from[2];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    assert_true(n > 0);
    self[n] = '\0';
    snprintf(tool, sizeof tool, "%s/../tools/hangfs", dirname(self));
    assert_int_equal(pipe2(to, O_CLOEXEC) | pipe2(from, O_CLOEXEC), 0);
    hang.pid = fork();
    if (hang.pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        execl(tool, tool, hang.dir, "4194304", (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    hang.in = to[1];
    hang.out = from[0];
    assert_true(read(hang.out, answer, sizeof answer) > 0);
}

static inline void
stop_hangfs(void)
{
    if (hang.in < 0)
        return;
    close(hang.in);
    close(hang.out);
    hang.in = hang.out = -1;
    waitpid(hang.pid, NULL, 0);
}

static inline int
hang_setup(void **state)
{
    if (fixture_setup(state) != 0)
        return -1;
    if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
        return 0; /* the tests skip */
    snprintf(hang.dir, sizeof hang.dir, "%s/hang", fixture_dir);
    snprintf(hang.file, sizeof hang.file, "%s/disk", hang.dir);
    mkdir(hang.dir, 0700);
    hang.loop.fd = -1;
    start_hangfs();
    return 0;
}

static inline int
hang_teardown(void **state)
{
    if (hang.in >= 0)
        tell("go\n");
    loop_detach(&hang.loop);
    stop_hangfs();
    return fixture_teardown(state);
}

/* The device in one of its two shapes. */
static inline const char *
device(bool loop)
{
    if (hang.in < 0) {
        print_message("# needs root and /dev/fuse\n");
        skip();
    }
    if (!loop)
        return hang.file;
    hang.loop = loop_attach(hang.file, false);
    if (hang.loop.fd < 0) {
        print_message("# no loop device: %s\n", strerror(errno));
        skip();
    }
    return hang.loop.path;
}

/* What the device holds at an offset, once it answers. */
static inline unsigned char
byte_at(uint64_t offset)
{
    static _Alignas(4096) unsigned char buf[4096];
    int fd = open(hang.file, O_RDONLY | O_DIRECT | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, buf, sizeof buf, (off_t)offset), sizeof buf);
    close(fd);
    return buf[0];
}

/* Submit a write that hangs, and give it up once it does. */
static inline void
hang_write(struct lun_queue *q, struct lun_tally *t, int fill)
{
    struct lun_io *io = request(q, LUN_WRITE, 8192, 4096, fill), *got;
    unsigned before = tell("held\n");

    io->tally = t;
    lun_submit(q, io);
    eventually(lun_reap(q, &got, 1, clock_ms() + 1) == 0 &&
               tell("held\n") > before);
    lun_abandon(io);
}

#endif
