/* SPDX-License-Identifier: BSD-3-Clause */
/* One peer's connection.
 *
 *  phase    event                              next     deadline
 *  -------  ---------------------------------  -------  ----------------------
 *  PLAIN    STARTTLS, nothing buffered behind  TLS      CONN_HANDSHAKE_MS
 *  TLS      certificate verified, host known   OPTIONS  CONN_HANDSHAKE_MS
 *  OPTIONS  GO or EXPORT_NAME granted          LIVE     CONN_IDLE_MS, each
 *  LIVE     transmit.c says why it ended       -        none: TCP tells
 *
 * Whatever else happens ends the connection.  Each has a thread; others
 * only give it orders.
 */
#include "proxy/conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"
#include "proxy/nbd.h"
#include "proxy/transmit.h"

#define STACK_SIZE (512 * 1024)

/* How a connection ended, when it did not come to CONN_LIVE. */
enum end {
    END_GO_ON,   /* it did not */
    END_QUIET,   /* the peer left, or we did */
    END_REFUSED, /* worth a warning */
};

static const char *const phases[] = {
    [CONN_PLAIN] = "plain",
    [CONN_TLS] = "tls",
    [CONN_OPTIONS] = "options",
    [CONN_LIVE] = "live",
};

const char *
conn_phase_name(enum conn_phase p)
{
    return phases[p];
}

static void
enter(struct conn *c, enum conn_phase next)
{
    log_debug("%s: %s -> %s", c->name, phases[atomic_load(&c->phase)],
              phases[next]);
    atomic_store(&c->phase, next);
}

void
conn_order(struct conn *c, enum session_order o)
{
    int now = atomic_load(&c->order);
    uint64_t one = 1;

    /* Only a drain can be taken back. */
    while (now < SESSION_FINISH || (int)o > now)
        if (atomic_compare_exchange_weak(&c->order, &now, (int)o))
            break;
    (void)!write(c->wake_fd, &one, sizeof one);
}

static void
member_order(struct session_member *m, enum session_order o)
{
    conn_order((struct conn *)((char *)m - offsetof(struct conn, member)), o);
}

/* ---- reading and writing before CONN_LIVE ------------------------------ */

static enum end
refused(struct conn *c, const char *why)
{
    server_refused(c->server, c, why);
    return END_REFUSED;
}

static enum end
quiet(struct conn *c, const char *why)
{
    log_debug("%s: ended: %s", c->name, why);
    return END_QUIET;
}

static enum end
wait_for(struct conn *c, short events, uint64_t deadline_ms)
{
    struct pollfd fds[2] = {
        {.fd = c->stream.fd, .events = events},
        {.fd = c->wake_fd, .events = POLLIN},
    };
    int n = poll(fds, 2, clock_left_ms(deadline_ms, clock_ms()));

    if (fds[1].revents) {
        uint64_t count;

        (void)!read(c->wake_fd, &count, sizeof count);
    }
    if (atomic_load(&c->order) >= SESSION_FINISH)
        return quiet(c, "told to");
    if (n == 0 && clock_ms() >= deadline_ms)
        return atomic_load(&c->phase) == CONN_OPTIONS
                   ? quiet(c, "idle too long")
                   : refused(c, "handshake timed out");
    return END_GO_ON;
}

static enum end
broken(struct conn *c, ssize_t n)
{
    if (n == 0 || n == -ECONNRESET)
        return quiet(c, n ? c->stream.error : "closed by the peer");
    return refused(c, c->stream.error);
}

static enum end
send_out(struct conn *c, uint64_t deadline_ms)
{
    size_t sent = 0;

    if (c->out.failed)
        return refused(c, "out of memory");
    for (;;) {
        size_t left = c->out.len - sent;
        ssize_t n = left ? stream_write(&c->stream, c->out.data + sent, left)
                         : stream_flush(&c->stream);
        enum end e = END_GO_ON;

        if (n == -EAGAIN)
            e = wait_for(c, c->stream.write_events, deadline_ms);
        else if (n < 0)
            e = broken(c, n);
        else if (left == 0)
            break;
        else
            sent += (size_t)n;
        if (e)
            return e;
    }
    buffer_clear(&c->out);
    return END_GO_ON;
}

static enum end
read_in(struct conn *c, uint64_t deadline_ms)
{
    for (;;) {
        ssize_t n = stream_read(&c->stream, c->in + c->in_len,
                                sizeof c->in - c->in_len);
        enum end e;

        if (n > 0) {
            c->in_len += (size_t)n;
            return END_GO_ON;
        }
        if (n != -EAGAIN)
            return broken(c, n);
        e = wait_for(c, c->stream.read_events, deadline_ms);
        if (e)
            return e;
    }
}

/* The last option is done with: what is behind it moves up. */
static void
consume(struct conn *c)
{
    memmove(c->in, c->in + c->used, c->in_len - c->used);
    c->in_len -= c->used;
    c->used = 0;
}

static enum negotiate_event
next_option(struct conn *c)
{
    return negotiate_step(&c->negotiate, c->in, c->in_len, &c->used, &c->out,
                          clock_ms());
}

/* ---- plain, and TLS ---------------------------------------------------- */

/* Until STARTTLS has been answered. */
static enum end
plain(struct conn *c, uint64_t deadline_ms)
{
    enum negotiate_event event = NEGOTIATE_ANSWERED;
    enum end e = END_GO_ON;

    negotiate_greet(&c->out);
    while (!e && event != NEGOTIATE_STARTTLS) {
        e = send_out(c, deadline_ms);
        if (e || event == NEGOTIATE_ABORT)
            return e ? e : quiet(c, "aborted by the client");
        event = next_option(c);
        consume(c);
        if (event == NEGOTIATE_BROKEN)
            return refused(c, c->negotiate.reason);
        if (event == NEGOTIATE_MORE)
            e = read_in(c, deadline_ms);
    }
    /* What came in the clear must not be taken for what came in TLS. */
    if (!e && c->in_len > 0)
        return refused(c, "plain bytes behind STARTTLS");
    return e ? e : send_out(c, deadline_ms);
}

static enum end
not_secure(struct conn *c, const char *why)
{
    atomic_fetch_add(&c->server->tls_errors, 1);
    return refused(c, why);
}

static enum end
identify(struct conn *c)
{
    const struct config_host *peer;
    const char *why;
    char err[256];

    peer = tls_peer(c->server->config, c->stream.ssl, err, sizeof err);
    if (!peer)
        return not_secure(c, err);
    if (server_identify(c->server, c, peer, &why))
        return refused(c, why);
    /* A reload that came before server_identify has not looked at it. */
    if (!tls_is_current(c->server->tls, c->stream.ssl) &&
        tls_check_again(c->server->tls, c->cert, c->chain, err, sizeof err))
        return not_secure(c, err);
    log_debug("%s: it is %s, from %s", c->name, peer->name, c->address);
    return END_GO_ON;
}

static enum end
secure(struct conn *c, uint64_t deadline_ms)
{
    SSL_CTX *ctx = tls_context(c->server->tls);
    int rc = stream_secure(&c->stream, ctx);

    SSL_CTX_free(ctx);
    if (rc)
        return refused(c, "out of memory");
    while ((rc = stream_handshake(&c->stream)) == -EAGAIN) {
        enum end e = wait_for(c, c->stream.read_events, deadline_ms);

        if (e)
            return e;
    }
    if (rc)
        return not_secure(c, c->stream.error);
    negotiate_secure(&c->negotiate, clock_ms());
    return identify(c);
}

/* ---- options inside TLS ------------------------------------------------ */

static int
deny(struct refusal *why, uint32_t code, const char *text)
{
    why->code = code;
    snprintf(why->text, sizeof why->text, "%s", text);
    return -EACCES;
}

/* The share that the last option's name means, for this peer. */
static int
find_share(struct conn *c, struct export_name *name, struct share **share,
           struct refusal *why)
{
    char err[200];

    if (export_name_parse((const char *)c->negotiate.name,
                          c->negotiate.name_len, name, err, sizeof err))
        return deny(why, NBD_REP_ERR_INVALID, err);
    *share = server_share(c->server, name->lun);
    if (!*share)
        return deny(why, NBD_REP_ERR_UNKNOWN, "no such LUN here");
    if (!config_lun_has(share_config(*share), c->peer))
        return deny(why, NBD_REP_ERR_POLICY,
                    "your host is not a member of this LUN");
    return 0;
}

static void
list(struct conn *c)
{
    struct server *s = c->server;

    for (size_t i = 0; i < s->nshares; i++)
        if (config_lun_has(share_config(s->shares[i]), c->peer))
            negotiate_list(&c->negotiate, &c->out,
                           share_config(s->shares[i])->name);
    negotiate_ack(&c->negotiate, &c->out);
}

static void
grant(struct conn *c, const struct share *s, const struct request_export *x,
      const struct lun_status *st, const char *description)
{
    uint32_t preferred = st->preferred;
    struct negotiate_export export = {
        .size = x->size,
        .flags = x->flags,
        .block_min = x->block_size,
        .block_max = x->max_io,
        .name = share_config(s)->name,
        .description = description,
    };

    /* proto.md wants a power of two, at least 512 and the minimum */
    if (preferred < 512)
        preferred = 512;
    if (preferred < x->block_size)
        preferred = x->block_size;
    if (preferred > x->max_io)
        preferred = x->block_size;
    export.block_preferred = preferred;
    negotiate_grant(&c->negotiate, &c->out, &export);
}

static int
describe(struct share *s, const char *id, unsigned pad, struct lun_status *st,
         char *text, size_t len, struct refusal *why)
{
    struct export_info info = {0};
    int rc = share_info(s, id, st, &info, why);

    info.pad = pad;
    if (!rc && export_info_format(&info, text, len))
        text[0] = '\0';
    return rc;
}

static enum end
info(struct conn *c)
{
    struct request_export x;
    struct export_name name;
    struct lun_status st;
    struct refusal why;
    struct share *s;
    char text[EXPORT_NAME_MAX + 1];
    int rc = find_share(c, &name, &s, &why);

    if (!rc)
        rc = describe(s, name.id, name.pad, &st, text, sizeof text, &why);
    if (rc) {
        log_debug("%s: INFO refused: %s", c->name, why.text);
        negotiate_refuse(&c->negotiate, &c->out, why.code, why.text);
    } else {
        request_export_init(&x, &st);
        grant(c, s, &x, &st, text);
    }
    return END_GO_ON;
}

static enum end
meta(struct conn *c)
{
    struct export_name name;
    struct refusal why;
    struct share *s;

    if (find_share(c, &name, &s, &why))
        negotiate_refuse(&c->negotiate, &c->out, why.code, why.text);
    else
        negotiate_meta(&c->negotiate, &c->out);
    return END_GO_ON;
}

static enum end
deny_go(struct conn *c, const struct refusal *why)
{
    char text[400];

    snprintf(text, sizeof text, "GO: %s", why->text);
    server_refused(c->server, c, text);
    if (!negotiate_refuse(&c->negotiate, &c->out, why->code, why->text))
        return END_REFUSED;
    return END_GO_ON;
}

/* ---- live -------------------------------------------------------------- */

static void
path_error(void *opaque, int error)
{
    share_path_error(opaque, error);
}

/* Let the peer take in what was sent before the connection goes. */
static void
bow_out(struct conn *c)
{
    uint64_t deadline_ms = clock_ms() + 200;

    stream_close_notify(&c->stream);
    while (clock_ms() < deadline_ms) {
        struct pollfd fd = {.fd = c->stream.fd, .events = POLLIN};

        if (poll(&fd, 1, clock_left_ms(deadline_ms, clock_ms())) <= 0 ||
            recv(c->stream.fd, c->in, sizeof c->in, MSG_DONTWAIT) <= 0)
            return;
    }
}

static bool
transmit(struct conn *c, struct share *s, const struct share_request *r,
         const struct request_export *x)
{
    const struct transmit_options opt = {
        .id = c->name,
        .stream = &c->stream,
        .wake_fd = c->wake_fd,
        .order = &c->order,
        .lun = share_lun(s),
        .extents = share_extents(s),
        .export = *x,
        .registration_no = r->registration_no,
        .tally = r->tally,
        .member = &c->member,
        .max_requests = share_config(s)->requests_per_connection,
        .host_held = &c->server->held[c->peer - c->server->config->hosts],
        .early = c->in,
        .early_len = c->in_len,
        .path_error = path_error,
        .opaque = s,
    };
    char why[256];
    enum transmit_end how = transmit_run(&opt, why, sizeof why);
    bool peaceful = how == TRANSMIT_DISC || how == TRANSMIT_DRAINED;

    if (how == TRANSMIT_DEVICE || how == TRANSMIT_RESOURCE)
        log_warning("%s: %s: closed on %s: %s", c->name, share_config(s)->name,
                    c->peer->name, why);
    else
        log_info("%s: %s: %s has left: %s", c->name, share_config(s)->name,
                 c->peer->name, why);
    return peaceful;
}

/* The whole life of a granted export. */
static enum end
live(struct conn *c, struct share *s, const struct share_request *r)
{
    const struct export_name *name = r->name;
    struct request_export x;
    char text[256];
    enum end e;
    bool peaceful = false;
    struct lun_status st;
    struct refusal why;

    /* The answer was given by share_open: this is for the text only. */
    if (describe(s, "", 0, &st, text, sizeof text, &why))
        text[0] = '\0';
    request_export_init(&x, &r->status);
    grant(c, s, &x, &r->status, text);
    consume(c);
    x.structured = c->negotiate.structured;
    x.base_allocation = c->negotiate.base_allocation;
    if (name->client[0])
        log_info("%s: %s: %s opened it for %s, generation %llu", c->name,
                 name->lun, c->peer->name, name->client,
                 (unsigned long long)name->generation);
    else
        log_info("%s: %s: %s opened it", c->name, name->lun, c->peer->name);
    enter(c, CONN_LIVE);
    e = send_out(c, clock_ms() + CONN_HANDSHAKE_MS);
    if (!e) {
        point_pass(POINT_GO_ANSWERED);
        peaceful = transmit(c, s, r, &x);
    }
    share_leave(s, &c->member);
    if (peaceful)
        bow_out(c);
    return peaceful ? END_QUIET : END_REFUSED;
}

static enum end
go(struct conn *c)
{
    struct export_name name;
    struct refusal why;
    struct share *s;
    struct share_request r = {
        .peer = c->peer,
        .name = &name,
        .member = &c->member,
    };

    if (find_share(c, &name, &s, &why))
        return deny_go(c, &why);
    c->member.since_ms = clock_ms();
    /* The answer has to be there before the peer gives us up. */
    r.deadline_ms =
        clock_ms() + share_config(s)->timers.open_timeout * 4ull / 5;
    if (share_open(s, &r, &why))
        return deny_go(c, &why);
    return live(c, s, &r);
}

static enum end
option(struct conn *c, enum negotiate_event event)
{
    switch (event) {
    case NEGOTIATE_LIST:
        list(c);
        return END_GO_ON;
    case NEGOTIATE_INFO:
        return info(c);
    case NEGOTIATE_META:
        return meta(c);
    case NEGOTIATE_GO:
        return go(c);
    case NEGOTIATE_ABORT:
        send_out(c, clock_ms() + 1000);
        bow_out(c);
        return quiet(c, "aborted by the client");
    case NEGOTIATE_BROKEN:
        return refused(c, c->negotiate.reason);
    default:
        return END_GO_ON;
    }
}

static enum end
options(struct conn *c)
{
    uint64_t deadline_ms = clock_ms() + CONN_IDLE_MS;

    for (;;) {
        enum negotiate_event event = next_option(c);
        enum end e;

        if (event == NEGOTIATE_MORE) {
            e = read_in(c, deadline_ms);
        } else {
            e = option(c, event);
            deadline_ms = clock_ms() + CONN_IDLE_MS;
            if (!e)
                e = send_out(c, deadline_ms);
            consume(c);
        }
        if (e)
            return e;
    }
}

/* ---- beginning and end ------------------------------------------------- */

static void
conn_free(struct conn *c, bool reset)
{
    stream_fini(&c->stream, reset);
    buffer_fini(&c->out);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    X509_free(c->cert);
    sk_X509_pop_free(c->chain, X509_free);
    free(c);
}

static void *
serve(void *arg)
{
    struct conn *c = arg;
    uint64_t deadline_ms = clock_ms() + CONN_HANDSHAKE_MS;
    enum end e = plain(c, deadline_ms);
    pthread_t before;
    bool join;

    if (!e) {
        enter(c, CONN_TLS);
        e = secure(c, deadline_ms);
    }
    if (!e) {
        enter(c, CONN_OPTIONS);
        e = options(c);
    }
    /* Closed before it is off the list, so that "all have ended" is true;
     * freed after, so that nobody on the way to it finds it gone. */
    stream_fini(&c->stream,
                e == END_REFUSED && atomic_load(&c->phase) == CONN_LIVE);
    join = server_leave(c->server, c, &before);
    conn_free(c, false);
    if (join)
        pthread_join(before, NULL);
    return NULL;
}

static void
set_socket_options(int fd)
{
    const int on = 1, idle_s = 10, interval_s = 3, count = 3;
    const unsigned user_timeout_ms = CONN_USER_TIMEOUT_MS;

    /* None of them can fail on a TCP socket; without them it works as well,
     * only slower to notice. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms,
               sizeof user_timeout_ms);
}

static void
set_address(struct conn *c, const struct sockaddr_storage *from)
{
    char port[16];

    if (getnameinfo((const struct sockaddr *)from, sizeof *from, c->ip,
                    sizeof c->ip, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV)) {
        snprintf(c->ip, sizeof c->ip, "unknown");
        snprintf(port, sizeof port, "?");
    }
    snprintf(c->address, sizeof c->address,
             from->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", c->ip, port);
}

static int
start_thread(struct conn *c)
{
    pthread_attr_t attr;
    pthread_t thread;
    int rc;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    rc = pthread_create(&thread, &attr, serve, c);
    pthread_attr_destroy(&attr);
    return rc;
}

void
conn_start_take_fd(struct server *s, int fd,
                   const struct sockaddr_storage *from)
{
    struct conn *c = calloc(1, sizeof *c);
    const char *why = "out of memory";

    if (!c) {
        close(fd);
        return;
    }
    c->server = s;
    set_socket_options(fd);
    set_address(c, from);
    stream_init_take_fd(&c->stream, fd);
    c->member.order = member_order;
    c->member.address = c->address;
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake_fd < 0 || server_add(s, c, &why)) {
        server_refused(s, c, why);
        conn_free(c, true);
        return;
    }
    if (start_thread(c)) {
        server_refused(s, c, "no thread for it");
        server_remove(s, c);
        conn_free(c, true);
    }
}
