/* SPDX-License-Identifier: BSD-3-Clause */
/* HTTP and JSON on a process' own Unix socket, over libmicrohttpd.
 *
 * Threads: the handler is called from health/http's.  A connection carries
 * one request. */
#include "health/control.h"

#include <errno.h>
#include <grp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "health/http.h"
#include "health/unix_socket.h"

#define BODY_MAX  (64 * 1024)
#define CLIENTS   32u /* at once; others wait in the socket's backlog */
#define CLIENT_MS 10000
#define NO_GROUP  ((gid_t)-1)

struct request {
    size_t len;
    char body[BODY_MAX];
};

struct control {
    /* fixed after control_start */
    control_handler handler;
    void *opaque;
    struct unix_socket socket;
    struct http *http;
    atomic_uint readers; /* a gid; NO_GROUP: none */
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
in_group(int fd, const struct ucred *cred, gid_t group)
{
    gid_t groups[64];
    socklen_t len = sizeof groups;

    if (group == NO_GROUP)
        return false;
    if (cred->gid == group)
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
        return false;
    for (size_t i = 0; i < len / sizeof groups[0]; i++)
        if (groups[i] == group)
            return true;
    return false;
}

static bool
get_peer(int fd, struct ucred *cred)
{
    socklen_t len = sizeof *cred;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, cred, &len) == 0;
}

static bool
may_command(const struct ucred *cred)
{
    return cred->uid == 0 || cred->uid == geteuid();
}

static bool
peer_allowed(struct control *c, struct MHD_Connection *conn, const char *method)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred cred;

    return info && get_peer(info->connect_fd, &cred) &&
           (may_command(&cred) ||
            (strcmp(method, "GET") == 0 &&
             in_group(info->connect_fd, &cred, atomic_load(&c->readers))));
}

/* Who may only read must not keep orders waiting. */
static bool
is_guest(void *opaque, int fd)
{
    struct ucred cred;

    (void)opaque;
    return !get_peer(fd, &cred) || !may_command(&cred);
}

static bool
announces_too_much(struct MHD_Connection *conn)
{
    const char *text =
        MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Content-Length");

    return text && strtoull(text, NULL, 10) > BODY_MAX;
}

static enum MHD_Result
begin_request(struct control *c, struct MHD_Connection *conn,
              const char *method, void **slot)
{
    if (!peer_allowed(c, conn, method))
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

/* Of the request that this thread hands to a handler. */
static _Thread_local struct ucred caller;

static void
remember_caller(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (!info || !get_peer(info->connect_fd, &caller))
        caller = (struct ucred){.uid = (uid_t)-1};
}

void
control_caller(char *text, size_t len)
{
    snprintf(text, len, "uid %ld (pid %ld)", (long)(int)caller.uid,
             (long)caller.pid);
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
    remember_caller(conn);
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
        return begin_request(cls, conn, method, slot);
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

/* ---- start and stop ---------------------------------------------------- */

struct control *
control_start(const char *socket_path, control_handler handler, void *opaque)
{
    struct control *c = calloc(1, sizeof *c);
    struct http_options http = {
        .clients = CLIENTS,
        .client_ms = CLIENT_MS,
        .memory = BODY_MAX,
        .is_guest = is_guest,
        .handle = on_request,
        .completed = on_completed,
        .opaque = c,
    };
    int fd;

    if (!c)
        return NULL;
    c->handler = handler;
    c->opaque = opaque;
    atomic_init(&c->readers, NO_GROUP);
    fd = unix_socket_listen(&c->socket, socket_path);
    if (fd < 0) {
        free(c);
        errno = -fd;
        return NULL;
    }
    c->http = http_start_take_fd(fd, &http);
    if (!c->http) {
        int saved = errno;

        unix_socket_remove(&c->socket);
        free(c);
        errno = saved;
        return NULL;
    }
    return c;
}

void
control_let_read(struct control *c, const char *group)
{
    const char *path = c->socket.addr.sun_path;
    struct group found, *g = NULL;
    char buf[4096];
    int err;

    if (!group)
        return;
    err = getgrnam_r(group, &found, buf, sizeof buf, &g);
    if (!g)
        log_warning("%s: group %s: %s", path, group,
                    err ? strerror(err) : "there is none");
    else if (chown(path, (uid_t)-1, g->gr_gid) < 0 || chmod(path, 0660) < 0)
        log_warning("%s: cannot give it to group %s: %s", path, group,
                    strerror(errno));
    else
        atomic_store(&c->readers, g->gr_gid);
}

void
control_stop(struct control *c)
{
    if (!c)
        return;
    /* before it is closed: until then nobody takes it for stale */
    unix_socket_remove(&c->socket);
    http_stop(c->http);
    free(c);
}
