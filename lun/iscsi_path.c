/* SPDX-License-Identifier: BSD-3-Clause */
/* One path: a thread that logs in, serves, probes, fails and tries again.
 *
 *   state     event                          next      action
 *   UNKNOWN   logged in, LUN known           GOOD      requests flow
 *   UNKNOWN   attempt failed or too long     FAILED    try again later
 *   GOOD      session error, probe overdue,  FAILED    RST; what was under way
 *             answers lost, dropped                    moves (iscsi_route.c)
 *   FAILED    logged in, LUN known           GOOD      requests flow
 *
 * However a session ends, its socket is closed with a RST (SO_LINGER 0, set
 * as soon as the socket exists), so that the kernel does not go on sending
 * what is queued in it, not even when the process is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "lun/iscsi_impl.h"

/* ---- from other threads ------------------------------------------------- */

void
iscsi_path_wake(struct iscsi_path *p)
{
    eventfd_write(p->fd, 1);
}

void
iscsi_path_drop_locked(struct iscsi_path *p, enum iscsi_drop how,
                       const char *why)
{
    if (!p->nexus || p->dropped[0] != '\0')
        return;
    snprintf(p->dropped, sizeof(p->dropped), "%s", why);
    p->renewing = how == ISCSI_RENEW;
    iscsi_path_wake(p);
}

void
iscsi_path_trouble(struct iscsi_path *p, const char *fmt, ...)
{
    va_list ap;

    if (p->trouble[0] != '\0')
        return; /* the first cause counts */
    va_start(ap, fmt);
    vsnprintf(p->trouble, sizeof(p->trouble), fmt, ap);
    va_end(ap);
    if (p->trouble[0] == '\0')
        snprintf(p->trouble, sizeof(p->trouble), "unknown error");
}

/* ---- the session -------------------------------------------------------- */

/* Milliseconds since anything came in on the socket, answers in parts too. */
static uint64_t
silent_ms(const struct iscsi_path *p, uint64_t now_ms)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    uint64_t silent = now_ms - p->heard_ms;

    memset(&info, 0, sizeof(info));
    if (getsockopt(iscsi_get_fd(p->ctx), IPPROTO_TCP, TCP_INFO, &info, &len) ==
            0 &&
        info.tcpi_last_data_recv < silent)
        silent = info.tcpi_last_data_recv;
    return silent;
}

int
iscsi_path_poll(struct iscsi_path *p, uint64_t until_ms)
{
    struct pollfd fds[2] = {{.fd = p->fd, .events = POLLIN}};
    eventfd_t count;
    int n;

    fds[1].fd = iscsi_get_fd(p->ctx);
    fds[1].events = (short)iscsi_which_events(p->ctx);
    n = poll(fds, 2, clock_left_ms(until_ms, clock_ms()));
    if (n < 0 && errno != EINTR) {
        iscsi_path_trouble(p, "poll: %s", strerror(errno));
    } else if (n > 0) {
        if (fds[0].revents)
            eventfd_read(p->fd, &count);
        if (fds[1].revents && iscsi_service(p->ctx, fds[1].revents) < 0)
            iscsi_path_trouble(p, "%s", iscsi_get_error(p->ctx));
    }
    if (p->lun->stopping)
        iscsi_path_trouble(p, "closed");
    return p->trouble[0] == '\0' ? 0 : -ENOLINK;
}

static void
nop_answered(struct iscsi_context *ctx, int status, void *data, void *opaque)
{
    struct iscsi_path *p = opaque;

    (void)ctx;
    (void)data;
    if (p->closing || status != SCSI_STATUS_GOOD)
        return;
    p->heard_ms = clock_ms();
    p->nop_sent_ms = 0;
}

/* Sends the next NOP-Out, and sees to it that a silent path fails. */
static void
probe(struct iscsi_path *p, uint64_t now_ms)
{
    const struct lun_options *opt = p->lun->opt;
    uint64_t waited = p->nop_sent_ms ? now_ms - p->nop_sent_ms : 0;

    if (waited >= opt->probe_timeout_ms &&
        silent_ms(p, now_ms) >= opt->probe_timeout_ms) {
        iscsi_path_trouble(p, "no answer for %llu ms",
                           (unsigned long long)(now_ms - p->heard_ms));
        return;
    }
    if (p->nop_sent_ms || now_ms < p->next_nop_ms)
        return;
    if (iscsi_nop_out_async(p->ctx, nop_answered, NULL, 0, p) != 0) {
        iscsi_path_trouble(p, "cannot probe: %s", iscsi_get_error(p->ctx));
        return;
    }
    p->nop_sent_ms = now_ms;
    p->next_nop_ms = now_ms + opt->probe_interval_ms;
}

void
iscsi_path_doubt(struct iscsi_path *p)
{
    p->reset_ms = clock_ms();
    if (p->doubt_ms == 0)
        p->doubt_ms = p->reset_ms;
}

static bool
any_open_since(struct iscsi_path *p, uint64_t sent_ms)
{
    struct iscsi_request *r;

    TAILQ_FOREACH(r, &p->sent, link)
    {
        if (r->in_target && r->sent_ms <= sent_ms)
            return true;
    }
    return iscsi_control_open_since(p, sent_ms);
}

/* After a reset the target may have dropped commands without a word.  What
 * was sent before and is not answered in time will never be. */
static void
check_doubt(struct iscsi_path *p, uint64_t now_ms)
{
    if (p->doubt_ms == 0 || now_ms < p->doubt_ms + ISCSI_DOUBT_MS)
        return;
    if (any_open_since(p, p->doubt_ms)) {
        iscsi_path_trouble(p, "a command was lost in a reset");
        return;
    }
    p->doubt_ms = p->reset_ms > p->doubt_ms ? p->reset_ms : 0;
}

/* ---- serving ------------------------------------------------------------ */

/* What the thread takes over in one go under the lock. */
struct batch {
    struct iscsi_request *start[ISCSI_DEPTH];
    unsigned n;
    struct iscsi_controls controls;
};

static void
hand_over_locked(struct iscsi_path *p)
{
    struct iscsi_request *r;

    while ((r = TAILQ_FIRST(&p->finished))) {
        TAILQ_REMOVE(&p->finished, r, finished);
        TAILQ_REMOVE(&p->sent, r, link);
        p->nsent--;
        if (r->result == -EBADE)
            iscsi_pr_conflict_locked(p);
        iscsi_route_finish_locked(p->lun, r, r->result);
    }
}

/* Those whose pause is over; an abandoned one was not carried out and need
 * not be. */
static void
resume_locked(struct iscsi_path *p, struct batch *b, uint64_t now_ms)
{
    struct iscsi_request *r;
    struct iscsi_request *next;

    if (p->waiting == 0)
        return;
    for (r = TAILQ_FIRST(&p->sent); r && b->n < ISCSI_DEPTH; r = next) {
        next = TAILQ_NEXT(r, link);
        if (r->resume_ms == 0 || r->resume_ms > now_ms)
            continue;
        p->waiting--;
        r->resume_ms = 0;
        if (r->queue) {
            b->start[b->n++] = r;
            continue;
        }
        TAILQ_REMOVE(&p->sent, r, link);
        p->nsent--;
        iscsi_route_finish_locked(p->lun, r, -ECANCELED);
    }
}

static void
take_locked(struct iscsi_path *p, struct batch *b)
{
    struct iscsi_request *r;
    struct iscsi_control *c;

    while (!p->resting && p->nsent < ISCSI_DEPTH && b->n < ISCSI_DEPTH &&
           (r = TAILQ_FIRST(&p->inbox))) {
        TAILQ_REMOVE(&p->inbox, r, link);
        TAILQ_INSERT_TAIL(&p->sent, r, link);
        r->place = ISCSI_SENT;
        p->nsent++;
        b->start[b->n++] = r;
    }
    while ((c = STAILQ_FIRST(&p->controls))) {
        STAILQ_REMOVE_HEAD(&p->controls, link);
        STAILQ_INSERT_TAIL(&b->controls, c, link);
    }
    if (p->dropped[0] != '\0')
        iscsi_path_trouble(p, "%s", p->dropped);
}

/* One exchange with the other threads: finished requests go, new ones come. */
static void
exchange(struct iscsi_path *p, uint64_t now_ms)
{
    struct batch b = {.n = 0};
    struct iscsi_control *c;
    enum lun_registration before;
    bool changed;

    STAILQ_INIT(&b.controls);
    pthread_mutex_lock(&p->lun->lock);
    before = p->lun->registration;
    hand_over_locked(p);
    changed = p->lun->registration != before;
    resume_locked(p, &b, now_ms);
    take_locked(p, &b);
    pthread_mutex_unlock(&p->lun->lock);
    if (changed)
        lun_changed(p->lun->owner);
    if (p->trouble[0] != '\0') { /* nothing more leaves */
        STAILQ_CONCAT(&p->issued, &b.controls);
        return;
    }
    while ((c = STAILQ_FIRST(&b.controls))) {
        STAILQ_REMOVE_HEAD(&b.controls, link);
        iscsi_control_start(p, c);
    }
    for (unsigned i = 0; i < b.n; i++)
        iscsi_command_start(p, b.start[i]);
}

static uint64_t
next_ms(struct iscsi_path *p)
{
    const struct lun_options *opt = p->lun->opt;
    uint64_t now_ms = clock_ms();
    uint64_t at_ms = p->next_nop_ms;
    uint64_t control_ms = iscsi_control_next_ms(p);

    if (p->nop_sent_ms) {
        at_ms = p->nop_sent_ms + opt->probe_timeout_ms;
        if (at_ms <= now_ms) /* overdue, but other answers came in */
            at_ms = now_ms + opt->probe_interval_ms / 4 + 1;
    }
    if (p->waiting > 0 && at_ms > now_ms + ISCSI_PAUSE_MS)
        at_ms = now_ms + ISCSI_PAUSE_MS;
    return control_ms < at_ms ? control_ms : at_ms;
}

static void
serve(struct iscsi_path *p)
{
    while (p->trouble[0] == '\0') {
        uint64_t now_ms = clock_ms();

        exchange(p, now_ms);
        if (p->trouble[0] != '\0')
            break;
        iscsi_control_resume(p, now_ms);
        probe(p, now_ms);
        check_doubt(p, now_ms);
        /* what was just queued leaves without another poll() */
        if (iscsi_which_events(p->ctx) & POLLOUT &&
            iscsi_service(p->ctx, POLLOUT) < 0)
            iscsi_path_trouble(p, "%s", iscsi_get_error(p->ctx));
        if (p->trouble[0] == '\0')
            iscsi_path_poll(p, next_ms(p));
    }
}

/* ---- from session to session -------------------------------------------- */

/* The socket goes with a RST; every callback comes once more and is deaf. */
static void
close_session(struct iscsi_path *p)
{
    if (!p->ctx)
        return;
    p->closing = true;
    iscsi_destroy_context(p->ctx);
    p->ctx = NULL;
    p->closing = false;
}

static void
set_state_locked(struct iscsi_path *p, enum lun_path_state state,
                 const char *error)
{
    if (p->state != state)
        p->since_ms = clock_ms();
    p->state = state;
    snprintf(p->error, sizeof(p->error), "%s", error);
}

/* The LUN must be the same one over every path, and the expected one. */
static bool
same_lun_locked(struct iscsi_path *p, const struct iscsi_info *info)
{
    struct iscsi_lun *l = p->lun;
    const char *expected = l->known ? l->info.id : l->opt->expected_id;

    if (expected && strcmp(expected, info->id) != 0) {
        l->wrong_id |= !l->known;
        iscsi_path_trouble(p, "shows LUN %s, not %s: refused", info->id,
                           expected);
        return false;
    }
    if (l->known && info->block_size != l->info.block_size) {
        iscsi_path_trouble(p, "shows blocks of %u bytes, not %u: refused",
                           info->block_size, l->info.block_size);
        return false;
    }
    return true;
}

static void
learn_locked(struct iscsi_lun *l, const struct iscsi_info *info)
{
    if (l->known) {
        l->info.size = info->size;
        return;
    }
    l->info = *info;
    l->known = true;
    l->wrong_id = false;
}

static bool
become_good(struct iscsi_path *p, const struct iscsi_info *info)
{
    struct iscsi_lun *l = p->lun;
    struct iscsi_nexus *n = calloc(1, sizeof(*n));
    bool ok;

    if (!n) {
        iscsi_path_trouble(p, "out of memory");
        return false;
    }
    TAILQ_INIT(&n->lost);
    SLIST_INIT(&n->ghosts);
    pthread_mutex_lock(&l->lock);
    n->id = ++l->last_nexus;
    ok = same_lun_locked(p, info);
    if (ok) {
        learn_locked(l, info);
        p->nexus = n;
        p->dropped[0] = '\0';
        p->renewing = false;
        set_state_locked(p, LUN_PATH_GOOD, "");
        iscsi_route_held_locked(l);
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    if (!ok) {
        free(n);
        return false;
    }
    log_info("lun %s: path %s: good", l->opt->name, p->portal);
    lun_changed(l->owner);
    return true;
}

/* Returns true when the next login is to follow at once. */
static bool
become_failed(struct iscsi_path *p)
{
    struct iscsi_lun *l = p->lun;
    enum lun_registration before;
    bool renew;
    bool news;
    bool fenced;
    unsigned good;

    pthread_mutex_lock(&l->lock);
    before = l->registration;
    renew = p->renewing && p->dropped[0] != '\0' && !l->stopping;
    p->renewing = false;
    p->dropped[0] = '\0';
    news = !renew &&
           (p->state != LUN_PATH_FAILED || strcmp(p->error, p->trouble) != 0);
    hand_over_locked(p);
    if (!renew)
        set_state_locked(p, LUN_PATH_FAILED, p->trouble);
    iscsi_route_path_lost_locked(p);
    good = iscsi_route_good_locked(l);
    fenced = l->registration != before;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    if (renew)
        log_info("lun %s: path %s: logging in anew: %s", l->opt->name,
                 p->portal, p->trouble);
    else if (news && !l->stopping)
        log_warning("lun %s: path %s: failed: %s; %u of %zu paths left",
                    l->opt->name, p->portal, p->trouble, good, l->npaths);
    if (news || fenced)
        lun_changed(l->owner);
    return renew;
}

static void
begin_session(struct iscsi_path *p)
{
    p->trouble[0] = '\0';
    p->connect_status = -1;
    p->waiting = 0;
    p->nop_sent_ms = p->doubt_ms = 0;
    p->attempt_ms = p->heard_ms = p->next_nop_ms = clock_ms();
    TAILQ_INIT(&p->finished);
    STAILQ_INIT(&p->issued);
}

/* Waits for the next attempt: counted from the start of the last one. */
static void
back_off(struct iscsi_path *p)
{
    struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
    uint64_t until_ms = p->attempt_ms + p->backoff_ms;
    eventfd_t count;

    p->backoff_ms = p->backoff_ms * 2 > ISCSI_BACKOFF_MAX_MS
                        ? ISCSI_BACKOFF_MAX_MS
                        : p->backoff_ms * 2;
    while (!p->lun->stopping && clock_ms() < until_ms) {
        poll(&pfd, 1, clock_left_ms(until_ms, clock_ms()));
        eventfd_read(p->fd, &count);
    }
}

static void *
path_main(void *opaque)
{
    struct iscsi_path *p = opaque;
    struct iscsi_info info;

    p->backoff_ms = ISCSI_BACKOFF_MIN_MS;
    while (!p->lun->stopping) {
        begin_session(p);
        if (iscsi_setup(p, &info) == 0 && become_good(p, &info)) {
            uint64_t good_ms = clock_ms();

            serve(p);
            p->attempt_ms = clock_ms();
            if (p->attempt_ms - good_ms >= ISCSI_BACKOFF_MAX_MS)
                p->backoff_ms = ISCSI_BACKOFF_MIN_MS;
        }
        close_session(p);
        if (!become_failed(p))
            back_off(p);
    }
    return NULL;
}

int
iscsi_path_start(struct iscsi_path *p)
{
    sigset_t all;
    sigset_t before;
    int err;

    p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->fd < 0)
        return -errno;
    /* The program's signals are not for us; and libiscsi's writev() would
     * raise SIGPIPE on a socket that the target has reset. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&p->thread, NULL, path_main, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        close(p->fd);
        p->fd = -1;
    }
    return -err;
}

void
iscsi_path_stop(struct iscsi_path *p)
{
    iscsi_path_wake(p);
    pthread_join(p->thread, NULL);
    close(p->fd);
    p->fd = -1;
}
