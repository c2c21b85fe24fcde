/* SPDX-License-Identifier: BSD-3-Clause */
/* libmicrohttpd on a thread of ours, with a deadline for each connection.
 *
 * Threads: one, made by http_start_take_fd, runs libmicrohttpd and calls the
 * handler.  Only the wake eventfd is touched by others while it runs. */
#include "health/http.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

struct client {
    TAILQ_ENTRY(client) link;
    int fd; /* MHD's; valid until MHD_CONNECTION_NOTIFY_CLOSED */
    uint64_t deadline_ms;
    bool guest, cut;
};

TAILQ_HEAD(client_list, client);

struct http {
    /* fixed after http_start_take_fd */
    struct http_options opt;
    struct MHD_Daemon *daemon;
    int epoll_fd; /* MHD's */
    int wake_fd;
    pthread_t thread;

    /* http's thread only: by age, so the first is the next to be cut */
    struct client_list clients;
    unsigned guests;
    bool freed; /* a connection ended since this was last set to false */
};

/* ---- clients and their deadlines --------------------------------------- */

static void
add_client(struct http *h, struct MHD_Connection *conn, void **slot)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct client *k;
    bool guest;

    *slot = NULL;
    if (!info)
        return;
    guest = h->opt.is_guest && h->opt.is_guest(h->opt.opaque, info->connect_fd);
    k = guest && h->guests >= h->opt.clients / 2 ? NULL : calloc(1, sizeof *k);
    if (!k) {
        /* without a place to keep its deadline it may not stay either */
        shutdown(info->connect_fd, SHUT_RDWR);
        return;
    }
    k->fd = info->connect_fd;
    k->deadline_ms = clock_ms() + h->opt.client_ms;
    k->guest = guest;
    h->guests += guest;
    TAILQ_INSERT_TAIL(&h->clients, k, link);
    *slot = k;
}

static void
on_connection(void *cls, struct MHD_Connection *conn, void **slot,
              enum MHD_ConnectionNotificationCode what)
{
    struct http *h = cls;
    struct client *k = *slot;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        add_client(h, conn, slot);
        return;
    }
    h->freed = true;
    if (!k)
        return;
    if (!k->cut)
        TAILQ_REMOVE(&h->clients, k, link);
    h->guests -= k->guest;
    free(k);
    *slot = NULL;
}

/* At its limit of connections MHD stops to listen, and begins again only when
 * it is run once more after some of them have ended: it must be, or nobody
 * would wake us any more (MHD_epoll() in daemon.c, 0.9.75). */
static void
run_daemon(struct http *h)
{
    do {
        h->freed = false;
        MHD_run(h->daemon);
    } while (h->freed);
}

/* MHD sees the end of the connection and closes it. */
static void
cut_slow_clients(struct http *h, uint64_t now_ms)
{
    struct client *k;

    while ((k = TAILQ_FIRST(&h->clients)) && k->deadline_ms <= now_ms) {
        TAILQ_REMOVE(&h->clients, k, link);
        k->cut = true;
        shutdown(k->fd, SHUT_RDWR);
    }
}

static int
next_wait_ms(struct http *h)
{
    const struct client *k = TAILQ_FIRST(&h->clients);
    int wait = clock_left_ms(k ? k->deadline_ms : CLOCK_NEVER, clock_ms());
    MHD_UNSIGNED_LONG_LONG mhd;

    if (MHD_get_timeout(h->daemon, &mhd) == MHD_YES &&
        (wait < 0 || mhd < (unsigned)wait))
        wait = mhd > INT_MAX ? INT_MAX : (int)mhd;
    return wait;
}

static void *
serve(void *arg)
{
    struct http *h = arg;
    struct pollfd p[2] = {
        {.fd = h->epoll_fd, .events = POLLIN},
        {.fd = h->wake_fd, .events = POLLIN},
    };

    while (!p[1].revents) {
        poll(p, 2, next_wait_ms(h));
        run_daemon(h);
        cut_slow_clients(h, clock_ms());
    }
    return NULL;
}

/* ---- start and stop ---------------------------------------------------- */

static struct MHD_Daemon *
make_daemon(struct http *h, int fd)
{
    const struct http_tls *tls = h->opt.tls;
    struct MHD_OptionItem secure[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, tls ? (void *)tls->cert : NULL},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, tls ? (void *)tls->key : NULL},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, "NORMAL:-VERS-ALL:+VERS-TLS1.3"},
        {tls && tls->client_ca ? MHD_OPTION_HTTPS_MEM_TRUST : MHD_OPTION_END, 0,
         tls ? (void *)tls->client_ca : NULL},
        {MHD_OPTION_END, 0, NULL},
    };

    if (!tls)
        secure[0].option = MHD_OPTION_END;
    return MHD_start_daemon(
        MHD_USE_EPOLL | (tls ? MHD_USE_TLS : 0u), 0, NULL, NULL, h->opt.handle,
        h->opt.opaque, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, h->opt.clients,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, h->opt.per_ip,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, h->opt.memory,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_NOTIFY_COMPLETED, h->opt.completed, h->opt.opaque,
        MHD_OPTION_ARRAY, secure, MHD_OPTION_END);
}

/* Takes fd, whatever comes of it. */
static int
start_daemon(struct http *h, int fd)
{
    const union MHD_DaemonInfo *info;

    h->daemon = make_daemon(h, fd);
    if (!h->daemon) {
        close(fd);
        return h->opt.tls ? -EINVAL : -ENOMEM;
    }
    info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return -ENOTSUP;
    h->epoll_fd = info->epoll_fd;
    return 0;
}

/* The program's signals are its other threads' business. */
static int
start_thread(struct http *h)
{
    sigset_t all, old;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&h->thread, NULL, serve, h);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -err;
}

/* Everything but the thread. */
static void
destroy(struct http *h)
{
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    if (h->wake_fd >= 0)
        close(h->wake_fd);
    free(h);
}

struct http *
http_start_take_fd(int fd, const struct http_options *o)
{
    struct http *h = calloc(1, sizeof *h);
    int err;

    if (!h) {
        close(fd);
        errno = ENOMEM;
        return NULL;
    }
    h->opt = *o;
    TAILQ_INIT(&h->clients);
    h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err = h->wake_fd < 0 ? -errno : 0;
    if (err < 0)
        close(fd);
    else
        err = start_daemon(h, fd);
    h->opt.tls = NULL;
    if (err == 0)
        err = start_thread(h);
    if (err < 0) {
        destroy(h);
        errno = -err;
        return NULL;
    }
    return h;
}

void
http_stop(struct http *h)
{
    if (!h)
        return;
    eventfd_write(h->wake_fd, 1);
    pthread_join(h->thread, NULL);
    destroy(h);
}
