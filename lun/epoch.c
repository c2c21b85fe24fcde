/* SPDX-License-Identifier: BSD-3-Clause */
/* Epochs and keys on the host's own disk, safe against a crash at any time. */
#include "lun/epoch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "lun/key.h"

/* "01234567\n": of fixed length, so that it is overwritten in place and no
 * crash leaves a file that is shorter than it was. */
#define EPOCH_DIGITS 8
/* "de70001002000003\n" */
#define KEY_DIGITS 16

/* The first epoch is below this, far from coming round to 1 again. */
#define FIRST_EPOCH_MAX 0x3FFFFFu

static void
close_fd(const int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

#define SCOPED_FD __attribute__((cleanup(close_fd))) int

/* Names become file names: one that came from an option must not leave
 * statedir.  A LUN's name may hold dots, a process' may not, so that no two
 * pairs of them share a file. */
static int
path_of(char path[PATH_MAX], const char *statedir, const char *lun,
        const char *process, const char *suffix)
{
    int n;

    if (!*lun || strchr(lun, '/') || strpbrk(process, "/."))
        return -EINVAL;
    n = snprintf(path, PATH_MAX, "%s/%s%s%s%s", statedir, lun,
                 *process ? "." : "", process, suffix);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int
sync_folder(const char *folder)
{
    SCOPED_FD fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

static int
write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Read until the end of the file or size bytes.  Returns how many. */
static ssize_t
read_all(int fd, char *text, size_t size)
{
    size_t used = 0;

    while (used < size) {
        ssize_t n = read(fd, text + used, size - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        used += (size_t)n;
    }
    return (ssize_t)used;
}

/* Exactly digits digits of that base and a newline. */
static int
parse(const char *line, size_t digits, int base, uint64_t *out)
{
    static const char all[] = "0123456789abcdef";
    uint64_t n = 0;

    for (size_t i = 0; i < digits; i++) {
        const char *digit = line[i] ? strchr(all, line[i]) : NULL;

        if (!digit || digit - all >= base)
            return -EUCLEAN;
        n = n * (uint64_t)base + (uint64_t)(digit - all);
    }
    if (line[digits] != '\n')
        return -EUCLEAN;
    *out = n;
    return 0;
}

/* ---- epochs ------------------------------------------------------------ */

/* An empty file was made, and then the host crashed before the first epoch
 * was on disk, so before it was given out. */
static int
read_epoch(int fd, uint32_t *epoch)
{
    char text[EPOCH_DIGITS + 2]; /* one more than there may be */
    ssize_t n = read_all(fd, text, sizeof(text));
    uint64_t value;
    int r;

    *epoch = 0;
    if (n <= 0)
        return (int)n;
    if (n != EPOCH_DIGITS + 1)
        return -EUCLEAN;
    r = parse(text, EPOCH_DIGITS, 10, &value);
    if (r < 0)
        return r;
    if (value == 0 || value > KEY_EPOCH_MAX)
        return -EUCLEAN;
    *epoch = (uint32_t)value;
    return 0;
}

/* A host whose disk was replaced has forgotten which epochs it used, and a
 * PREEMPT aimed at one of them may still be on its way: begin anywhere. */
static int
first_epoch(uint32_t *epoch)
{
    uint32_t r;

    if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
        return -errno;
    *epoch = key_next_epoch(r % FIRST_EPOCH_MAX);
    return 0;
}

static int
write_epoch(int fd, const char *statedir, uint32_t epoch)
{
    char text[EPOCH_DIGITS + 2];
    int r;

    snprintf(text, sizeof(text), "%0*" PRIu32 "\n", EPOCH_DIGITS, epoch);
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    r = write_all(fd, text, EPOCH_DIGITS + 1);
    if (r < 0)
        return r;
    if (fsync(fd) < 0)
        return -errno;
    /* The maker of the file may have crashed before this. */
    return sync_folder(statedir);
}

static int
lock(int fd)
{
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int
next(const char *statedir, const char *lun, uint32_t *epoch)
{
    char path[PATH_MAX];
    int r = path_of(path, statedir, lun, "", ".epoch");

    if (r < 0)
        return r;

    SCOPED_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    r = lock(fd);
    if (r < 0)
        return r;
    r = read_epoch(fd, epoch);
    if (r < 0)
        return r;
    if (*epoch == 0)
        r = first_epoch(epoch);
    else
        *epoch = key_next_epoch(*epoch);
    return r < 0 ? r : write_epoch(fd, statedir, *epoch);
}

uint32_t
epoch_next(const char *statedir, const char *lun)
{
    uint32_t epoch = 0;
    int r = next(statedir, lun, &epoch);

    if (r == 0)
        return epoch;
    errno = -r;
    return 0;
}

static int
last(const char *statedir, const char *lun, uint32_t *epoch)
{
    char path[PATH_MAX];
    int r = path_of(path, statedir, lun, "", ".epoch");

    if (r < 0)
        return r;

    SCOPED_FD fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    r = lock(fd);
    return r < 0 ? r : read_epoch(fd, epoch);
}

uint32_t
epoch_last(const char *statedir, const char *lun)
{
    uint32_t epoch = 0;
    int r = last(statedir, lun, &epoch);

    errno = -r;
    return r < 0 ? 0 : epoch;
}

/* ---- keys -------------------------------------------------------------- */

static int
write_keys(const char *path, const uint64_t *keys, size_t n)
{
    SCOPED_FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char line[KEY_DIGITS + 2];
    int r = 0;

    if (fd < 0)
        return -errno;
    for (size_t i = 0; r == 0 && i < n; i++) {
        snprintf(line, sizeof(line), "%0*" PRIx64 "\n", KEY_DIGITS, keys[i]);
        r = write_all(fd, line, KEY_DIGITS + 1);
    }
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    return r;
}

int
epoch_save_keys(const char *statedir, const char *lun, const char *process,
                const uint64_t *keys, size_t n)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    int r = path_of(path, statedir, lun, process, ".keys");

    if (r == 0)
        r = path_of(fresh, statedir, lun, process, ".keys~");
    if (r < 0)
        return r;
    r = write_keys(fresh, keys, n);
    if (r == 0 && rename(fresh, path) < 0)
        r = -errno;
    if (r < 0) {
        unlink(fresh);
        return r;
    }
    return sync_folder(statedir);
}

/* One key to a line; the file ends with a newline or is damaged. */
static int
read_keys(int fd, uint64_t *keys, size_t max)
{
    char line[KEY_DIGITS + 1];

    for (size_t n = 0;; n++) {
        ssize_t got = read_all(fd, line, sizeof(line));
        uint64_t key;
        int r;

        if (got <= 0)
            return got < 0 ? (int)got : (int)n;
        if (got != sizeof(line))
            return -EUCLEAN;
        r = parse(line, KEY_DIGITS, 16, &key);
        if (r < 0)
            return r;
        if (n == max)
            return -E2BIG;
        keys[n] = key;
    }
}

int
epoch_load_keys(const char *statedir, const char *lun, const char *process,
                uint64_t *keys, size_t max)
{
    char path[PATH_MAX];
    int r = path_of(path, statedir, lun, process, ".keys");

    if (r < 0)
        return r;

    SCOPED_FD fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    return read_keys(fd, keys, max);
}
