/* SPDX-License-Identifier: BSD-3-Clause */
/* A listening Unix socket whose file belongs to one process at a time. */
#include "health/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG   128
#define LOCK_NAME ".control.lock"

/* Between finding a file stale and binding the new one, nobody else may do
 * the same: the second would unlink what the first has just made.  The lock
 * file is ours alone (0600), so that only we can make ourselves wait. */
static int
lock_folder(const struct sockaddr_un *addr)
{
    char name[sizeof addr->sun_path + sizeof LOCK_NAME];
    const char *slash = strrchr(addr->sun_path, '/');
    int dir_len = slash ? (int)(slash - addr->sun_path) + 1 : 0;
    int fd, err;

    snprintf(name, sizeof name, "%.*s%s", dir_len, addr->sun_path, LOCK_NAME);
    fd = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    while (flock(fd, LOCK_EX) < 0) {
        if (errno == EINTR)
            continue;
        err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

static int
new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd < 0 ? -errno : fd;
}

/* Only a refused connection proves that nobody listens; EAGAIN is a listener
 * whose queue is full. */
static int
remove_if_stale(const struct sockaddr_un *addr)
{
    struct stat st;
    int fd, err = 0;

    if (lstat(addr->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -ENOTSOCK;
    fd = new_socket();
    if (fd < 0)
        return fd;
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 ||
        errno == EAGAIN)
        err = -EADDRINUSE;
    else if (errno != ECONNREFUSED)
        err = -errno;
    else if (unlink(addr->sun_path) < 0)
        err = -errno;
    close(fd);
    return err;
}

/* The mode that bind gives to the file is the socket's own, so that there is
 * no moment at which others may connect: net/unix/af_unix.c unix_bind_bsd(). */
static int
bind_and_listen(struct unix_socket *u)
{
    struct stat st;
    int fd = new_socket(), err;

    if (fd < 0)
        return fd;
    if (fchmod(fd, 0600) < 0 ||
        bind(fd, (struct sockaddr *)&u->addr, sizeof u->addr) < 0)
        goto close;
    if (lstat(u->addr.sun_path, &st) < 0 || listen(fd, BACKLOG) < 0)
        goto unlink;
    u->dev = st.st_dev;
    u->ino = st.st_ino;
    return fd;

unlink:
    err = -errno;
    unlink(u->addr.sun_path);
    close(fd);
    return err;

close:
    err = -errno;
    close(fd);
    return err;
}

int
unix_socket_listen(struct unix_socket *u, const char *path)
{
    int lock, fd;

    memset(u, 0, sizeof *u);
    u->addr.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof u->addr.sun_path)
        return -ENAMETOOLONG;
    strcpy(u->addr.sun_path, path);

    lock = lock_folder(&u->addr);
    if (lock < 0)
        return lock;
    fd = remove_if_stale(&u->addr);
    if (fd == 0)
        fd = bind_and_listen(u);
    close(lock);
    return fd;
}

void
unix_socket_remove(const struct unix_socket *u)
{
    int lock = lock_folder(&u->addr);
    struct stat st;

    if (lstat(u->addr.sun_path, &st) == 0 && st.st_dev == u->dev &&
        st.st_ino == u->ino)
        unlink(u->addr.sun_path);
    if (lock >= 0)
        close(lock);
}
