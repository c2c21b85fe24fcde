/* SPDX-License-Identifier: BSD-3-Clause */
/* The locks of a host's processes for one LUN. */
#include "lun/hostlock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "common/clock.h"

/* flock(2) has no deadline, and a blocked one would need a thread and a
 * signal to end it; registrations are rare and not in a hurry. */
#define POLL_MS 20

int
hostlock_open(const char *rundir, const char *lun, const char *process)
{
    char path[PATH_MAX];
    int n, fd;

    if (process && strchr(process, '/'))
        return -EINVAL;
    /* no LUN's name holds an @, so that no two locks share a file */
    n = snprintf(path, sizeof path, "%s/%s%s%s.lock", rundir, lun,
                 process ? "@" : "", process ? process : "");
    if (n < 0 || (size_t)n >= sizeof path)
        return -ENAMETOOLONG;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

static int
take(int fd, int kind, uint64_t deadline_ms)
{
    const struct timespec pause = {.tv_nsec = POLL_MS * 1000000};

    while (flock(fd, kind | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (clock_ms() >= deadline_ms)
            return -ETIMEDOUT;
        nanosleep(&pause, NULL);
    }
    return 0;
}

int
hostlock_shared(int fd, uint64_t deadline_ms)
{
    return take(fd, LOCK_SH, deadline_ms);
}

int
hostlock_exclusive(int fd, uint64_t deadline_ms)
{
    return take(fd, LOCK_EX, deadline_ms);
}

void
hostlock_drop(int fd)
{
    flock(fd, LOCK_UN);
}
