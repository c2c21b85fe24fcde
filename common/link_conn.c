/* SPDX-License-Identifier: BSD-3-Clause */
/* One libnbd handle and its socket: made, trusted, pumped, closed.
 *
 * Everything here runs in the link's thread, but for what link_impl.h says may
 * be called from others.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/link_impl.h"

/* How long the peer may take to close after NBD_CMD_DISC. */
#define FAREWELL_MS 200

/* libnbd passes the peer's words beside a refusal only to its debug
 * messages (libnbd 1.14, generator/states-newstyle.c, handle_reply_error). */
#define PEER_SAYS "handshake: server error message: "

void
link_text(char *to, const char *from)
{
    size_t i;

    for (i = 0; from[i] && i < LINK_TEXT_MAX - 1; i++) {
        unsigned char c = (unsigned char)from[i];

        to[i] = c < ' ' || c >= 0x7f ? '?' : from[i];
    }
    to[i] = '\0';
}

/* What libnbd says in this thread, without the name of its function. */
static const char *
nbd_reason(void)
{
    const char *text = nbd_get_error(), *colon;

    if (text == NULL)
        return "unknown error";
    colon = strstr(text, ": ");
    return colon && strncmp(text, "nbd_", 4) == 0 ? colon + 2 : text;
}

void
link_conn_note_reason(struct link *k)
{
    pthread_mutex_lock(&k->lock);
    if (k->reason[0] == '\0')
        link_text(k->reason, nbd_reason());
    pthread_mutex_unlock(&k->lock);
}

static int
fail(struct link *k, const char *why)
{
    if (k->failure[0] == '\0')
        link_text(k->failure, why);
    return -1;
}

static int
fail_as(struct link *k, enum link_failure kind, const char *why)
{
    if (k->failure[0] == '\0')
        k->kind = kind;
    return fail(k, why);
}

/* Of a socket: did it find nobody, or somebody who would not? */
static bool
is_unreachable(int error)
{
    return error == ECONNREFUSED || error == ETIMEDOUT ||
           error == EHOSTUNREACH || error == ENETUNREACH ||
           error == EHOSTDOWN || error == ENETDOWN || error == EADDRNOTAVAIL;
}

/* GnuTLS hides the socket's error; if we have that, it is the better one. */
static int
fail_socket(struct link *k, const char *why)
{
    if (k->socket_error == 0)
        return fail(k, why);
    return fail_as(k,
                   is_unreachable(k->socket_error) ? LINK_FAIL_UNREACHABLE
                                                   : LINK_FAIL_REFUSED,
                   strerror(k->socket_error));
}

static int
fail_nbd(struct link *k)
{
    const char *why = nbd_reason();

    if (k->socket_error)
        return fail_socket(k, "");
    /* GnuTLS has one text for all that may be wrong with a certificate. */
    if (strstr(why, "certificate verification")) {
        char text[LINK_TEXT_MAX];

        snprintf(text, sizeof text,
                 "%s (the peer's certificate must be of our CA, neither "
                 "expired nor revoked, and carry the address %s)",
                 why, k->opt.address);
        return fail_as(k, LINK_FAIL_CERTIFICATE, text);
    }
    return fail_as(k,
                   is_unreachable(nbd_get_errno()) ? LINK_FAIL_UNREACHABLE
                                                   : LINK_FAIL_REFUSED,
                   why);
}

static void
stamp_of(const struct stat *st, struct link_file *f)
{
    f->device = st->st_dev;
    f->inode = st->st_ino;
    f->ctime_s = (uint64_t)st->st_ctim.tv_sec;
    f->ctime_ns = (uint64_t)st->st_ctim.tv_nsec;
}

static int
stamp_file(struct link *k, const char *name, bool needed, struct stat *st)
{
    char path[4096], text[LINK_TEXT_MAX];
    int n;

    memset(st, 0, sizeof *st);
    n = snprintf(path, sizeof path, "%s/%s", k->opt.tls_dir, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return fail_as(k, LINK_FAIL_FILES,
                       "the path of the TLS directory is too long");
    if (!needed && lstat(path, st) == -1 && errno == ENOENT) {
        memset(st, 0, sizeof *st);
        return 0;
    }
    if (access(path, R_OK) == 0 && stat(path, st) == 0)
        return 0;
    snprintf(text, sizeof text, "TLS: %s: %s", name, strerror(errno));
    return fail_as(k, LINK_FAIL_FILES, text);
}

/* libnbd trusts any server when it cannot read ca-cert.pem (it falls back to
 * the system's CAs and does not verify, 1.14 lib/crypto.c set_up_system_CA),
 * and passes over a CRL it cannot read.  Both must be there before the
 * handshake and be the same files after it. */
static int
stamp_take(struct link *k, struct link_stamp *s)
{
    struct stat st;

    memset(s, 0, sizeof *s);
    if (k->opt.tls_dir == NULL)
        return 0;
    if (stamp_file(k, "client-cert.pem", true, &st) == -1 ||
        stamp_file(k, "client-key.pem", true, &st) == -1 ||
        stamp_file(k, "ca-cert.pem", true, &st) == -1)
        return -1;
    stamp_of(&st, &s->ca);
    if (stamp_file(k, "ca-crl.pem", false, &st) == -1)
        return -1;
    stamp_of(&st, &s->crl);
    return 0;
}

int
link_conn_check(struct link *k)
{
    if (k->opt.tls_dir && nbd_get_tls_negotiated(k->nbd) != 1)
        return fail(k, "TLS was not negotiated");
    return link_conn_recheck(k);
}

/* Are CA and CRL the files of k->stamp still?  A few system calls, for each
 * parked connection and each second; what is wrong with them stamp_take tells.
 * Our own certificate and key are not looked at: a connection that stands does
 * not need them any more. */
static bool
stamp_holds(const struct link *k)
{
    struct link_stamp now = {0};
    char path[4096];
    struct stat st;

    snprintf(path, sizeof path, "%s/ca-cert.pem", k->opt.tls_dir);
    if (stat(path, &st) == -1)
        return false;
    stamp_of(&st, &now.ca);
    snprintf(path, sizeof path, "%s/ca-crl.pem", k->opt.tls_dir);
    if (stat(path, &st) == 0)
        stamp_of(&st, &now.crl);
    else if (lstat(path, &st) == 0 || errno != ENOENT)
        return false;
    return memcmp(&now, &k->stamp, sizeof now) == 0;
}

int
link_conn_recheck(struct link *k)
{
    struct link_stamp now;

    if (k->opt.tls_dir == NULL || stamp_holds(k))
        return 0;
    if (stamp_take(k, &now) == -1)
        return -1;
    if (memcmp(&now, &k->stamp, sizeof now) != 0)
        return fail_as(k, LINK_FAIL_FILES, "TLS: the CA or CRL has changed");
    return 0;
}

static int
set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

/* libnbd sends an option in five pieces: held back until the last of them they
 * are one packet, and wake the peer once. */
static void
cork(struct link *k, bool on)
{
    set_option(k->fd, IPPROTO_TCP, TCP_CORK, on);
}

/* A connection that brings nothing through in link_timeout is over; closing
 * it means RST, so that nothing unsent leaves the host afterwards. */
static int
tune_socket(int fd, unsigned timeout_ms)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};

    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == -1 ||
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) == -1 ||
        set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)timeout_ms) == -1 ||
        set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1) == -1 ||
        set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1) == -1 ||
        set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1) == -1 ||
        set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3) == -1)
        return -1;
    return 0;
}

/* libnbd closes its socket whenever the connection dies, in whatever thread
 * saw that.  Our own dup cannot come to mean another file meanwhile. */
static int
take_socket(struct link *k)
{
    int fd = fcntl(nbd_aio_get_fd(k->nbd), F_DUPFD_CLOEXEC, 0);

    if (fd == -1 || tune_socket(fd, k->opt.link_timeout_ms) == -1) {
        fail(k, strerror(errno));
        if (fd != -1)
            close(fd);
        return -1;
    }
    pthread_mutex_lock(&k->lock);
    k->fd = fd;
    pthread_mutex_unlock(&k->lock);
    return 0;
}

static int
set_up_handle(struct nbd_handle *h, const struct link_options *opt)
{
    if (nbd_set_opt_mode(h, true) == -1 || nbd_set_full_info(h, true) == -1 ||
        nbd_set_request_structured_replies(h, true) == -1)
        return -1;
    /* link_io.c counts what a READ brings instead. */
    nbd_set_pread_initialize(h, false);
    if (opt->tls_dir == NULL)
        return nbd_set_tls(h, LIBNBD_TLS_DISABLE);
    nbd_set_tls_verify_peer(h, true);
    if (nbd_set_tls(h, LIBNBD_TLS_REQUIRE) == -1)
        return -1;
    return nbd_set_tls_certificates(h, opt->tls_dir);
}

int
link_conn_open(struct link *k)
{
    char port[8];

    k->failure[0] = '\0';
    k->kind = LINK_FAIL_REFUSED;
    k->socket_error = 0;
    k->question = LINK_ASKS_NOTHING;
    k->hears = true;
    if (stamp_take(k, &k->stamp) == -1)
        return -1;
    k->nbd = nbd_create();
    if (k->nbd == NULL || set_up_handle(k->nbd, &k->opt) == -1)
        return fail_nbd(k);
    /* By address and port: only then does libnbd compare the certificate
     * with the address (1.14 lib/crypto.c, h->hostname). */
    snprintf(port, sizeof port, "%u", k->opt.port);
    if (nbd_aio_connect_tcp(k->nbd, k->opt.address, port) == -1)
        return fail_nbd(k);
    return take_socket(k);
}

void
link_conn_drop(struct link *k)
{
    int fd;

    pthread_mutex_lock(&k->lock);
    while (k->leader == LINK_LED_BY_WORKER) /* on its way out of poll */
        pthread_cond_wait(&k->cond, &k->lock);
    fd = k->fd;
    k->fd = -1;
    pthread_mutex_unlock(&k->lock);
    if (fd != -1)
        close(fd);
}

void
link_conn_close(struct link *k)
{
    nbd_close(k->nbd);
    k->nbd = NULL;
    k->question = LINK_ASKS_NOTHING;
    link_conn_drop(k);
}

static int
peer_said(void *opaque, const char *context, const char *message)
{
    struct link *k = opaque;

    (void)context;
    if (strncmp(message, PEER_SAYS, strlen(PEER_SAYS)) == 0)
        link_text(k->peer_text, message + strlen(PEER_SAYS));
    return 0;
}

/* Also called when the connection dies; link_conn_over comes first then. */
static int
option_answered(void *opaque, int *error)
{
    struct link *k = opaque;

    k->answered = true;
    k->answer_error = *error;
    if (*error != 0 && k->peer_text[0] == '\0')
        link_text(k->peer_text, nbd_reason());
    return 0;
}

/* What the peer says beside an error libnbd tells in its debug messages only,
 * and those are a quarter of the work of an INFO. */
static int
listen_to_peer(struct link *k, bool on)
{
    if (!on)
        return nbd_set_debug(k->nbd, false);
    if (nbd_set_debug_callback(
            k->nbd,
            (nbd_debug_callback){.callback = peer_said, .user_data = k}) == -1)
        return -1;
    return nbd_set_debug(k->nbd, true);
}

static int
prepare_question(struct link *k, enum link_question q, const char *name)
{
    struct nbd_handle *h = k->nbd;

    if (nbd_set_export_name(h, name) == -1 || nbd_clear_meta_contexts(h) == -1)
        return -1;
    /* INFO does without the context's extra round trip. */
    if (q == LINK_ASKS_GO && nbd_get_structured_replies_negotiated(h) == 1 &&
        nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1)
        return -1;
    return listen_to_peer(k, q == LINK_ASKS_GO || k->hears);
}

int
link_conn_ask(struct link *k, enum link_question q, const char *name)
{
    nbd_completion_callback cb = {.callback = option_answered, .user_data = k};
    int r;

    k->answered = false;
    k->answer_error = 0;
    k->peer_text[0] = '\0';
    k->asked_us = clock_us();
    r = prepare_question(k, q, name);
    cork(k, true);
    if (r == 0)
        r = q == LINK_ASKS_GO ? nbd_aio_opt_go(k->nbd, cb)
                              : nbd_aio_opt_info(k->nbd, cb);
    cork(k, false);
    if (r == -1) {
        link_text(k->peer_text, nbd_reason());
        nbd_set_debug(k->nbd, false);
        return -1;
    }
    k->question = q;
    return 0;
}

static uint16_t
export_flags(struct nbd_handle *h)
{
    static const struct {
        int (*is)(struct nbd_handle *);
        uint16_t bit; /* NBD proto.md, transmission flags */
    } map[] = {
        {nbd_is_read_only, 1 << 1}, {nbd_can_flush, 1 << 2},
        {nbd_can_fua, 1 << 3},      {nbd_is_rotational, 1 << 4},
        {nbd_can_trim, 1 << 5},     {nbd_can_zero, 1 << 6},
        {nbd_can_df, 1 << 7},       {nbd_can_multi_conn, 1 << 8},
        {nbd_can_cache, 1 << 10},   {nbd_can_fast_zero, 1 << 11},
    };
    uint16_t flags = 1 << 0;

    for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
        if (map[i].is(h) == 1)
            flags |= map[i].bit;
    return flags;
}

static uint32_t
block_size(struct nbd_handle *h, int which)
{
    int64_t n = nbd_get_block_size(h, which);

    return n > 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
}

void
link_conn_export(struct link *k, struct link_status *st)
{
    char *text = nbd_get_export_description(k->nbd);
    int64_t size = nbd_get_size(k->nbd);

    link_text(st->description, text ? text : "");
    free(text);
    st->size = size > 0 ? (uint64_t)size : 0;
    st->flags = export_flags(k->nbd);
    st->block_min = block_size(k->nbd, LIBNBD_SIZE_MINIMUM);
    st->block_preferred = block_size(k->nbd, LIBNBD_SIZE_PREFERRED);
    st->block_max = block_size(k->nbd, LIBNBD_SIZE_MAXIMUM);
}

/* A parked connection without a question has nothing to read (libnbd would
 * refuse), but its end must be seen. */
short
link_conn_events(unsigned direction)
{
    short events = POLLRDHUP;

    if (direction & LIBNBD_AIO_DIRECTION_READ)
        events |= POLLIN;
    if (direction & LIBNBD_AIO_DIRECTION_WRITE)
        events |= POLLOUT;
    return events;
}

/* A thread that issues a command may leave libnbd waiting to write, or find
 * the connection dead.  It wakes the leader unless watching says that this
 * looks for that already.  watching is 0 from before the leader reads the
 * direction: whatever changes after that is seen by the other side (both are
 * sequentially consistent), and whatever changed before it is in the
 * direction.  (When one leader takes over from another, 0 may be stored while
 * the new one polls: it is woken for nothing.) */
void
link_conn_poll(struct link *k)
{
    struct pollfd fds[2] = {{.fd = -1}, {.fd = k->wake_fd, .events = POLLIN}};
    bool leads = k->nbd && link_lead_by_thread(k);
    uint64_t dummy;

    if (k->nbd) {
        fds[0].fd = k->fd;
        fds[0].events = POLLRDHUP;
    }
    if (leads) {
        fds[0].events = link_conn_events(nbd_aio_get_direction(k->nbd));
        atomic_store(&k->watching, (unsigned)fds[0].events);
    }
    if (poll(fds, 2, clock_left_ms(k->wake_ms, clock_ms())) <= 0)
        fds[0].revents = fds[1].revents = 0; /* EINTR: look again */
    if (leads)
        atomic_store(&k->watching, 0);
    k->revents = fds[0].revents;
    if (fds[1].revents)
        (void)!read(k->wake_fd, &dummy, sizeof dummy);
}

static void
note_socket_error(struct link *k)
{
    socklen_t len = sizeof k->socket_error;

    if (k->socket_error == 0 &&
        getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &k->socket_error, &len) == -1)
        k->socket_error = 0;
}

void
link_conn_pump(struct link *k)
{
    short ended = k->revents & (POLLERR | POLLHUP | POLLRDHUP | POLLNVAL);
    unsigned direction;
    int r = 0;

    if (k->nbd == NULL || k->revents == 0)
        return;
    /* While libnbd connects it reads the error itself. */
    if ((k->revents & POLLERR) && k->status.state != LINK_CONNECTING)
        note_socket_error(k);
    direction = nbd_aio_get_direction(k->nbd);
    if ((direction & LIBNBD_AIO_DIRECTION_READ) &&
        (ended || (k->revents & POLLIN)))
        r = nbd_aio_notify_read(k->nbd);
    else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) &&
             (ended || (k->revents & POLLOUT)))
        r = nbd_aio_notify_write(k->nbd);
    else if (direction == 0 && ended)
        fail_socket(k, "the peer closed the connection");
    k->revents = 0;
    if (r == -1)
        fail_nbd(k);
}

bool
link_conn_ended(struct link *k)
{
    return nbd_aio_is_dead(k->nbd) == 1 || nbd_aio_is_closed(k->nbd) == 1;
}

static void
fail_dead(struct link *k)
{
    char why[LINK_TEXT_MAX];

    pthread_mutex_lock(&k->lock);
    link_text(why, k->reason[0] ? k->reason : "the connection broke");
    pthread_mutex_unlock(&k->lock);
    fail_socket(k, why);
}

bool
link_conn_over(struct link *k)
{
    if (nbd_aio_is_dead(k->nbd) == 1)
        fail_dead(k);
    else if (nbd_aio_is_closed(k->nbd) == 1 &&
             k->status.state == LINK_CONNECTING)
        fail_nbd(k); /* in opt mode libnbd itself closes, and says why */
    else if (nbd_aio_is_closed(k->nbd) == 1)
        fail_socket(k, "the peer closed the connection");
    return k->failure[0] != '\0';
}

void
link_conn_farewell(struct link *k)
{
    struct linger soft = {.l_onoff = 0};

    if (nbd_aio_disconnect(k->nbd, 0) == -1)
        return;
    k->wake_ms = clock_ms() + FAREWELL_MS;
    while (!link_conn_over(k) && clock_ms() < k->wake_ms) {
        link_conn_poll(k);
        link_conn_pump(k);
    }
    if (nbd_aio_is_closed(k->nbd) == 1)
        setsockopt(k->fd, SOL_SOCKET, SO_LINGER, &soft, sizeof soft);
}

/* connect() to no address at all: tcp(7) resets the connection, whatever is
 * queued in the socket is dropped, and every poll and recv on it ends. */
void
link_reset_locked(struct link *k)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};

    if (k->fd != -1 && connect(k->fd, &none, sizeof none) == -1)
        shutdown(k->fd, SHUT_RDWR);
}

void
link_wake(struct link *k)
{
    uint64_t one = 1;

    /* It fails only where the counter is full, and so awake. */
    (void)!write(k->wake_fd, &one, sizeof one);
}

void
link_wake_leader(struct link *k)
{
    uint64_t one = 1;

    (void)!write(k->lead_fd, &one, sizeof one);
    link_wake(k);
}
