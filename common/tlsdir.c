/* SPDX-License-Identifier: BSD-3-Clause */
/* The directory of certificates that libnbd wants, made of the configured
 * files.
 *
 * Its owner holds a shared flock on it for as long as it lives; whoever gets
 * an exclusive one may remove it.  The kernel drops the lock of a process
 * that was killed, and no process number can mislead us.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/tlsdir.h"

#define PREFIX "tls."

struct tlsdir {
    char *path;
    int fd; /* holds the lock */
};

static const char *const names[] = {"ca-cert.pem", "client-cert.pem",
                                    "client-key.pem", "ca-crl.pem"};
#define NNAMES (sizeof names / sizeof names[0])

static int
link_file(int dirfd, const char *name, const char *target)
{
    char *absolute = NULL, *cwd;
    int r;

    if (target == NULL)
        return 0;
    if (target[0] == '/')
        return symlinkat(target, dirfd, name);
    cwd = getcwd(NULL, 0);
    if (cwd == NULL)
        return -1;
    r = asprintf(&absolute, "%s/%s", cwd, target);
    free(cwd);
    if (r == -1)
        return -1;
    r = symlinkat(absolute, dirfd, name);
    free(absolute);
    return r;
}

static void
empty_dir(int fd)
{
    for (size_t i = 0; i < NNAMES; i++)
        unlinkat(fd, names[i], 0);
}

/* Ours, locked and not just taken away by a cleaner? */
static bool
still_there(const char *path, int fd)
{
    struct stat by_name, by_fd;

    return stat(path, &by_name) == 0 && fstat(fd, &by_fd) == 0 &&
           by_name.st_dev == by_fd.st_dev && by_name.st_ino == by_fd.st_ino;
}

/* Returns 1, 0 when a cleaner was quicker, or -1. */
static int
try_dir(struct tlsdir *d, const char *rundir)
{
    free(d->path);
    d->path = NULL;
    if (asprintf(&d->path, "%s/" PREFIX "XXXXXX", rundir) == -1) {
        d->path = NULL;
        return -1;
    }
    if (mkdtemp(d->path) == NULL)
        return -1;
    d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (d->fd == -1)
        return errno == ENOENT ? 0 : -1;
    if (flock(d->fd, LOCK_SH) == -1)
        return -1;
    if (still_there(d->path, d->fd))
        return 1;
    close(d->fd);
    d->fd = -1;
    return 0;
}

static void
clean_one(int rundir, const char *name)
{
    int fd =
        openat(rundir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd == -1)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        empty_dir(fd);
        unlinkat(rundir, name, AT_REMOVEDIR);
    }
    close(fd);
}

/* What cannot be removed stays; that harms nobody. */
static void
clean(const char *rundir)
{
    DIR *dir = opendir(rundir);
    struct dirent *e;

    if (dir == NULL)
        return;
    while ((e = readdir(dir)))
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0)
            clean_one(dirfd(dir), e->d_name);
    closedir(dir);
}

static int
fill(struct tlsdir *d, const char *rundir, const struct tlsdir_files *f)
{
    const char *targets[NNAMES] = {f->ca, f->cert, f->key, f->crl};
    int r;

    do
        r = try_dir(d, rundir);
    while (r == 0);
    if (r == -1)
        return -1;
    for (size_t i = 0; i < NNAMES; i++)
        if (link_file(d->fd, names[i], targets[i]) == -1)
            return -1;
    return 0;
}

struct tlsdir *
tlsdir_create(const char *rundir, const struct tlsdir_files *f)
{
    struct tlsdir *d = calloc(1, sizeof *d);
    int err;

    if (d == NULL)
        return NULL;
    d->fd = -1;
    clean(rundir);
    if (fill(d, rundir, f) == 0)
        return d;
    err = errno;
    tlsdir_destroy(d);
    errno = err;
    return NULL;
}

const char *
tlsdir_path(const struct tlsdir *d)
{
    return d->path;
}

void
tlsdir_destroy(struct tlsdir *d)
{
    if (d == NULL)
        return;
    if (d->fd != -1) {
        empty_dir(d->fd);
        rmdir(d->path);
        close(d->fd);
    }
    free(d->path);
    free(d);
}
