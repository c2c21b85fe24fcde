/* SPDX-License-Identifier: BSD-3-Clause */
/* HTTP and JSON on a process' own Unix socket, over libmicrohttpd.
 *
 * Threads: one, made by control_start, runs libmicrohttpd and calls the
 * handler.  Only the wake eventfd is touched by others while it runs.  A
 * connection carries one request and lives for at most CLIENT_MS, whatever
 * the client does: libmicrohttpd's own timeout begins anew with each byte. */
#include "health/control.h"

#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "health/unix_socket.h"

#define BODY_MAX  (64 * 1024)
#define CLIENTS   32u /* at once; others wait in the socket's backlog */
#define CLIENT_MS 10000

struct client {
    TAILQ_ENTRY(client) link;
    int fd; /* MHD's; valid until MHD_CONNECTION_NOTIFY_CLOSED */
    uint64_t deadline_ms;
    bool cut;
};

struct request {
    size_t len;
    char body[BODY_MAX];
};

TAILQ_HEAD(client_list, client);

struct control {
    /* fixed after control_start */
    control_handler handler;
    void *opaque;
    struct unix_socket socket;
    struct MHD_Daemon *daemon;
    int epoll_fd; /* MHD's */
    int wake_fd;
    pthread_t thread;

    /* control's thread only: by age, so the first is the next to be cut */
    struct client_list clients;
    bool freed; /* a connection ended since this was last set to false */
};

/* ---- answering --------------------------------------------------------- */

static json_t *
error_object(const char *text)
{
    json_t *o = json_pack("{s:s}", "error", text);

    /* a text quoted from the client may be no UTF-8 */
    return o ? o : json_pack("{s:s}", "error", "bad request");
}

/* Takes body. */
static enum MHD_Result
answer(struct MHD_Connection *conn, unsigned status, json_t *body)
{
    struct MHD_Response *r = NULL;
    enum MHD_Result result = MHD_NO;
    char *text =
        body ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;

    json_decref(body);
    if (text)
        r = MHD_create_response_from_buffer(strlen(text), text,
                                            MHD_RESPMEM_MUST_FREE);
    if (!r) {
        free(text);
        return MHD_NO;
    }
    if (MHD_add_response_header(r, "Content-Type", "application/json") &&
        MHD_add_response_header(r, "Cache-Control", "no-store") &&
        MHD_add_response_header(r, "Connection", "close") &&
        (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
         MHD_add_response_header(r, "Allow", "GET, POST")))
        result = MHD_queue_response(conn, status, r);
    MHD_destroy_response(r);
    return result;
}

static bool
peer_allowed(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred cred;
    socklen_t len = sizeof cred;

    return info &&
           getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) ==
               0 &&
           (cred.uid == 0 || cred.uid == geteuid());
}

static bool
announces_too_much(struct MHD_Connection *conn)
{
    const char *text =
        MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Content-Length");

    return text && strtoull(text, NULL, 10) > BODY_MAX;
}

static enum MHD_Result
begin_request(struct MHD_Connection *conn, const char *method, void **slot)
{
    if (!peer_allowed(conn))
        return answer(conn, MHD_HTTP_FORBIDDEN,
                      error_object("only root and the process' own user"));
    if (strcmp(method, "GET") && strcmp(method, "POST"))
        return answer(conn, MHD_HTTP_METHOD_NOT_ALLOWED,
                      error_object("only GET and POST"));
    if (announces_too_much(conn))
        return answer(conn, MHD_HTTP_CONTENT_TOO_LARGE,
                      error_object("the body is larger than 64 KiB"));
    *slot = calloc(1, sizeof(struct request));
    return *slot ? MHD_YES : MHD_NO;
}

/* An answer cannot be queued while a body comes in: who sends more without
 * having said so is cut off. */
static enum MHD_Result
collect_body(struct request *r, const char *data, size_t *len)
{
    if (*len > BODY_MAX - r->len)
        return MHD_NO;
    memcpy(r->body + r->len, data, *len);
    r->len += *len;
    *len = 0;
    return MHD_YES;
}

static enum MHD_Result
run_handler(struct control *c, struct MHD_Connection *conn, const char *method,
            const char *path, const struct request *r)
{
    json_t *body = NULL, *reply = NULL;
    json_error_t e;
    unsigned status;

    if (r->len > 0) {
        body = json_loadb(r->body, r->len, JSON_REJECT_DUPLICATES, &e);
        if (!body)
            return answer(conn, MHD_HTTP_BAD_REQUEST, error_object(e.text));
        if (!json_is_object(body)) {
            json_decref(body);
            return answer(conn, MHD_HTTP_BAD_REQUEST,
                          error_object("the body is not a JSON object"));
        }
    }
    status = c->handler(c->opaque, method, path, body, &reply);
    json_decref(body);
    log_debug("control: %s %s: %u", method, path, status);
    return answer(conn, status, reply ? reply : json_object());
}

static enum MHD_Result
on_request(void *cls, struct MHD_Connection *conn, const char *url,
           const char *method, const char *version, const char *data,
           size_t *len, void **slot)
{
    (void)version;
    if (!*slot)
        return begin_request(conn, method, slot);
    if (*len > 0)
        return collect_body(*slot, data, len);
    return run_handler(cls, conn, method, url, *slot);
}

static void
on_completed(void *cls, struct MHD_Connection *conn, void **slot,
             enum MHD_RequestTerminationCode why)
{
    (void)cls;
    (void)conn;
    (void)why;
    free(*slot);
    *slot = NULL;
}

/* ---- clients and their deadlines --------------------------------------- */

static void
add_client(struct control *c, struct MHD_Connection *conn, void **slot)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct client *k = calloc(1, sizeof *k);

    *slot = k;
    if (!info)
        goto free;
    if (!k) {
        /* without a place to keep its deadline it may not stay */
        shutdown(info->connect_fd, SHUT_RDWR);
        return;
    }
    k->fd = info->connect_fd;
    k->deadline_ms = clock_ms() + CLIENT_MS;
    TAILQ_INSERT_TAIL(&c->clients, k, link);
    return;

free:
    free(k);
    *slot = NULL;
}

static void
on_connection(void *cls, struct MHD_Connection *conn, void **slot,
              enum MHD_ConnectionNotificationCode what)
{
    struct control *c = cls;
    struct client *k = *slot;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        add_client(c, conn, slot);
        return;
    }
    c->freed = true;
    if (!k)
        return;
    if (!k->cut)
        TAILQ_REMOVE(&c->clients, k, link);
    free(k);
    *slot = NULL;
}

/* At its limit of connections MHD stops to listen, and begins again only when
 * it is run once more after some of them have ended: it must be, or nobody
 * would wake us any more (MHD_epoll() in daemon.c, 0.9.75). */
static void
run_daemon(struct control *c)
{
    do {
        c->freed = false;
        MHD_run(c->daemon);
    } while (c->freed);
}

/* MHD sees the end of the connection and closes it. */
static void
cut_slow_clients(struct control *c, uint64_t now_ms)
{
    struct client *k;

    while ((k = TAILQ_FIRST(&c->clients)) && k->deadline_ms <= now_ms) {
        TAILQ_REMOVE(&c->clients, k, link);
        k->cut = true;
        shutdown(k->fd, SHUT_RDWR);
    }
}

static int
next_wait_ms(struct control *c)
{
    const struct client *k = TAILQ_FIRST(&c->clients);
    int wait = clock_left_ms(k ? k->deadline_ms : CLOCK_NEVER, clock_ms());
    MHD_UNSIGNED_LONG_LONG mhd;

    if (MHD_get_timeout(c->daemon, &mhd) == MHD_YES &&
        (wait < 0 || mhd < (unsigned)wait))
        wait = mhd > INT_MAX ? INT_MAX : (int)mhd;
    return wait;
}

static void *
serve(void *arg)
{
    struct control *c = arg;
    struct pollfd p[2] = {
        {.fd = c->epoll_fd, .events = POLLIN},
        {.fd = c->wake_fd, .events = POLLIN},
    };

    while (!p[1].revents) {
        poll(p, 2, next_wait_ms(c));
        run_daemon(c);
        cut_slow_clients(c, clock_ms());
    }
    return NULL;
}

/* ---- start and stop ---------------------------------------------------- */

/* Takes fd, whatever comes of it. */
static int
start_daemon(struct control *c, int fd)
{
    const union MHD_DaemonInfo *info;

    c->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, c, MHD_OPTION_LISTEN_SOCKET,
        fd, MHD_OPTION_CONNECTION_LIMIT, CLIENTS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)BODY_MAX,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, c,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, c, MHD_OPTION_END);
    if (!c->daemon) {
        close(fd);
        return -ENOMEM;
    }
    info = MHD_get_daemon_info(c->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return -ENOTSUP;
    c->epoll_fd = info->epoll_fd;
    return 0;
}

/* The program's signals are its other threads' business. */
static int
start_thread(struct control *c)
{
    sigset_t all, old;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&c->thread, NULL, serve, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -err;
}

/* Everything but the thread. */
static void
destroy(struct control *c)
{
    /* before MHD closes the socket: until then nobody takes it for stale */
    unix_socket_remove(&c->socket);
    if (c->daemon)
        MHD_stop_daemon(c->daemon);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    free(c);
}

struct control *
control_start(const char *socket_path, control_handler handler, void *opaque)
{
    struct control *c = calloc(1, sizeof *c);
    int fd, err;

    if (!c)
        return NULL;
    c->handler = handler;
    c->opaque = opaque;
    TAILQ_INIT(&c->clients);
    fd = unix_socket_listen(&c->socket, socket_path);
    if (fd < 0) {
        free(c);
        errno = -fd;
        return NULL;
    }
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err = c->wake_fd < 0 ? -errno : 0;
    if (err < 0)
        close(fd);
    else
        err = start_daemon(c, fd);
    if (err == 0)
        err = start_thread(c);
    if (err < 0) {
        destroy(c);
        errno = -err;
        return NULL;
    }
    return c;
}

void
control_stop(struct control *c)
{
    if (!c)
        return;
    eventfd_write(c->wake_fd, 1);
    pthread_join(c->thread, NULL);
    destroy(c);
}
