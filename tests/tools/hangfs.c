/* SPDX-License-Identifier: BSD-3-Clause */
/* A file that hangs on command: a FUSE file system with one file in memory.
 *
 *   hangfs DIR SIZE
 *
 * mounts DIR, where "disk" is SIZE bytes, says "ready" and takes commands
 * from its standard input, each answered with one line:
 *
 *   hold   leave reads, writes, flushes and the like unanswered from here on
 *   catch  leave the next write unanswered, and nothing else
 *   held   how many of these wait now
 *   go     carry out and answer those, and all that follow
 *   fail N as go, but answer those that wait with errno N, not carried out
 *
 * It ends, and lets go of whatever waits, when its standard input does.  It
 * must run as root.  Spoken is the kernel's own protocol, linux/fuse.h. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DISK    2 /* node id of the file; the folder's is 1 */
#define LARGEST (1u << 20)
#define ROOM    (LARGEST + 8192)
#define WAITING 1024

/* linux/fuse.h of 6.6 */
#define PARALLEL_DIRECT_WRITES (1u << 6)

static char *disk;
static uint64_t size;
static int fuse;
static bool holding, catching;
static char *waiting[WAITING];
static size_t nwaiting;

static void
answer(uint64_t unique, int error, const void *data, size_t len)
{
    struct fuse_out_header h = {
        .len = (uint32_t)(sizeof h + len), .error = -error, .unique = unique};
    struct iovec v[2] = {{&h, sizeof h}, {(void *)data, len}};

    /* ENOENT: the one who asked was killed meanwhile */
    if (writev(fuse, v, len ? 2 : 1) < 0 && errno != ENOENT)
        warn("answer");
}

static struct fuse_attr
attributes(uint64_t node)
{
    return (struct fuse_attr){
        .ino = node,
        .mode = node == DISK ? S_IFREG | 0600 : S_IFDIR | 0700,
        .size = node == DISK ? size : 0,
        .blocks = node == DISK ? size / 512 : 0,
        .nlink = 1,
        .blksize = 4096,
    };
}

/* ---- what can be held -------------------------------------------- */

static void
do_read(const struct fuse_in_header *in)
{
    const struct fuse_read_in *r = (const void *)(in + 1);
    uint64_t len = r->offset >= size ? 0 : size - r->offset;

    answer(in->unique, 0, disk + (len ? r->offset : 0),
           len < r->size ? len : r->size);
}

static void
do_write(const struct fuse_in_header *in)
{
    const struct fuse_write_in *w = (const void *)(in + 1);
    struct fuse_write_out out = {.size = w->size};

    if (w->offset > size || w->size > size - w->offset) {
        answer(in->unique, ENOSPC, NULL, 0);
        return;
    }
    memcpy(disk + w->offset, w + 1, w->size);
    answer(in->unique, 0, &out, sizeof out);
}

static void
do_fallocate(const struct fuse_in_header *in)
{
    const struct fuse_fallocate_in *f = (const void *)(in + 1);

    if (f->offset > size || f->length > size - f->offset) {
        answer(in->unique, ENOSPC, NULL, 0);
        return;
    }
    memset(disk + f->offset, 0, f->length);
    answer(in->unique, 0, NULL, 0);
}

static bool
can_hold(uint32_t opcode)
{
    return opcode == FUSE_READ || opcode == FUSE_WRITE ||
           opcode == FUSE_FSYNC || opcode == FUSE_FALLOCATE;
}

static void
carry_out(const struct fuse_in_header *in)
{
    switch (in->opcode) {
    case FUSE_READ:
        do_read(in);
        break;
    case FUSE_WRITE:
        do_write(in);
        break;
    case FUSE_FALLOCATE:
        do_fallocate(in);
        break;
    default:
        answer(in->unique, 0, NULL, 0);
    }
}

/* ---- what never hangs -------------------------------------------- */

static void
do_init(const struct fuse_in_header *in)
{
    const struct fuse_init_in *i = (const void *)(in + 1);
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = i->max_readahead,
        .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES,
        .max_background = WAITING / 2,
        .max_write = LARGEST,
        .max_pages = LARGEST / 4096,
    };

    if (i->minor < out.minor)
        out.minor = i->minor;
    answer(in->unique, 0, &out, sizeof out);
}

static void
do_lookup(const struct fuse_in_header *in)
{
    struct fuse_entry_out out = {.nodeid = DISK, .attr = attributes(DISK)};

    if (strcmp((const char *)(in + 1), "disk") == 0)
        answer(in->unique, 0, &out, sizeof out);
    else
        answer(in->unique, ENOENT, NULL, 0);
}

static void
do_quick(const struct fuse_in_header *in)
{
    struct fuse_attr_out attr = {.attr = attributes(in->nodeid)};
    struct fuse_open_out open_out = {.open_flags = FOPEN_DIRECT_IO |
                                                   PARALLEL_DIRECT_WRITES};
    struct fuse_statfs_out statfs_out = {.st = {.bsize = 4096}};

    switch (in->opcode) {
    case FUSE_INIT:
        do_init(in);
        break;
    case FUSE_LOOKUP:
        do_lookup(in);
        break;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        answer(in->unique, 0, &attr, sizeof attr);
        break;
    case FUSE_OPEN:
        answer(in->unique, 0, &open_out, sizeof open_out);
        break;
    case FUSE_STATFS:
        answer(in->unique, 0, &statfs_out, sizeof statfs_out);
        break;
    case FUSE_RELEASE:
        answer(in->unique, 0, NULL, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT: /* a hung disk listens to no signal either */
        break;
    default:
        answer(in->unique, ENOSYS, NULL, 0);
    }
}

/* ---- the loop ---------------------------------------------------- */

/* returns: false when the file system is gone */
static bool
take_request(void)
{
    static char buf[ROOM] __attribute__((aligned(8)));
    const struct fuse_in_header *in = (const void *)buf;
    ssize_t n = read(fuse, buf, sizeof buf);
    bool caught;

    if (n < 0)
        return errno == EINTR || errno == EAGAIN || errno == ENOENT;
    if (!can_hold(in->opcode)) {
        do_quick(in);
        return true;
    }
    caught = catching && in->opcode == FUSE_WRITE;
    if (!(holding || caught) || nwaiting == WAITING) {
        carry_out(in);
        return true;
    }
    if (caught)
        catching = false;
    waiting[nwaiting] = malloc((size_t)n);
    if (!waiting[nwaiting])
        err(1, "malloc");
    memcpy(waiting[nwaiting++], buf, (size_t)n);
    return true;
}

static void
let_go(int error)
{
    for (size_t i = 0; i < nwaiting; i++) {
        const struct fuse_in_header *in = (const void *)waiting[i];

        if (error)
            answer(in->unique, error, NULL, 0);
        else
            carry_out(in);
        free(waiting[i]);
    }
    nwaiting = 0;
    holding = catching = false;
}

/* returns: false at the end of the input */
static bool
take_command(void)
{
    char line[64];
    ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);

    if (n <= 0)
        return false;
    line[n] = '\0';
    if (strcmp(line, "hold\n") == 0)
        holding = true;
    else if (strcmp(line, "catch\n") == 0)
        catching = true;
    else if (strcmp(line, "go\n") == 0)
        let_go(0);
    else if (strncmp(line, "fail ", 5) == 0)
        let_go(atoi(line + 5));
    dprintf(STDOUT_FILENO, "%zu\n", nwaiting);
    return true;
}

int
main(int argc, char **argv)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.events = POLLIN}};
    char options[128];

    if (argc != 3 || (size = strtoull(argv[2], NULL, 10)) == 0)
        errx(2, "usage: hangfs DIR SIZE");
    disk = calloc(1, size);
    fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (!disk || fuse < 0)
        err(1, "/dev/fuse");
    snprintf(options, sizeof options,
             "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
    if (mount("hangfs", argv[1], "fuse.hangfs", MS_NODEV | MS_NOSUID, options) <
        0)
        err(1, "mount %s", argv[1]);
    dprintf(STDOUT_FILENO, "ready\n");
    fds[1].fd = fuse;
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            break;
        if (fds[1].revents && !take_request())
            break;
        if (fds[0].revents && !take_command())
            break;
    }
    umount2(argv[1], MNT_DETACH);
    return 0; /* closing /dev/fuse ends what waits with ECONNABORTED */
}
