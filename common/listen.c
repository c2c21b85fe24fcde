/* SPDX-License-Identifier: BSD-3-Clause */
/* TCP sockets that listen on configured addresses. */
#include "common/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"

#define BACKLOG 512

static int
open_one(const struct addrinfo *a)
{
    const int on = 1;
    int fd =
        socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* IPv6 sockets understand IP_FREEBIND as well */
    setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int saved = errno;

        close(fd);
        return -saved;
    }
    return fd;
}

static int
open_address(const char *address, uint16_t port)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
    };
    struct addrinfo *found;
    char service[8];
    int rc;

    snprintf(service, sizeof service, "%u", port);
    rc = getaddrinfo(address, service, &hints, &found);
    if (rc) {
        log_error("listen %s: %s", address, gai_strerror(rc));
        return -1;
    }
    rc = open_one(found);
    freeaddrinfo(found);
    if (rc < 0)
        log_error("listen %s port %u: %s", address, port, strerror(-rc));
    else
        log_info("listening on %s port %u", address, port);
    return rc;
}

int *
listen_open(const struct config_host *h)
{
    int *fds = malloc(h->naddresses * sizeof *fds + 1);

    if (!fds) {
        log_error("out of memory");
        return NULL;
    }
    for (size_t i = 0; i < h->naddresses; i++) {
        fds[i] = open_address(h->addresses[i], h->port);
        if (fds[i] < 0) {
            listen_close(fds, i);
            return NULL;
        }
    }
    return fds;
}

void
listen_close(int *fds, size_t n)
{
    if (!fds)
        return;
    for (size_t i = 0; i < n; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(fds);
}
