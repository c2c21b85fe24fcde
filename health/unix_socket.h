/* SPDX-License-Identifier: BSD-3-Clause */
/* A listening Unix socket whose file belongs to one process at a time. */
#ifndef DETOUR_HEALTH_UNIX_SOCKET_H
#define DETOUR_HEALTH_UNIX_SOCKET_H

#include <sys/types.h>
#include <sys/un.h>

struct unix_socket {
    struct sockaddr_un addr;
    dev_t dev; /* of the file that we made, so that we remove no other */
    ino_t ino;
};

/* unix_socket_listen - make the file path (mode 0600) and listen on it.
 *
 * A file that a dead process left is replaced.  Two processes that start at
 * once are kept apart by a lock on ".control.lock" in the same folder.
 *
 * errors:  -EADDRINUSE   somebody listens there
 *          -ENOTSOCK     path is a file of another kind
 *          -ENAMETOOLONG
 *          and what open, bind and listen say; u is undefined then
 * returns: the socket, non-blocking and close-on-exec
 */
int unix_socket_listen(struct unix_socket *u, const char *path);

/* unix_socket_remove - unlink the file if it is still ours. */
void unix_socket_remove(const struct unix_socket *u);

#endif
