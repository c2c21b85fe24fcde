/* SPDX-License-Identifier: BSD-3-Clause */
/* A link's life: the public calls and the state machine behind them.
 *
 * The thread of the link is the only one that changes the state.  It sleeps
 * in poll, lets libnbd act on what came (link_conn_pump), and takes one step
 * of this table.  "lost" is the end of the connection or a broken link:
 *
 *   state       event                         next        action
 *   CONNECTING  an attempt is due             CONNECTING  open
 *   CONNECTING  negotiated                    PARKED      INFO is due
 *   CONNECTING  lost, open_timeout            CONNECTING  later again
 *   PARKED      INFO is due                   PARKED      ask
 *   PARKED      INFO is due or a GO is        CONNECTING  later again
 *               wanted, CA or CRL changed
 *   PARKED      lost, INFO unanswered in      CONNECTING  later again
 *               link_timeout
 *   PARKED      a GO is wanted                GOING
 *   GOING       the INFO under way, if any,   GOING       ask GO
 *               is answered
 *   GOING       refused                       PARKED      -EACCES
 *   GOING       granted                       LIVE        0
 *   GOING       deadline                      DEAD        -ETIMEDOUT
 *   GOING       lost                          DEAD        -ENOTCONN
 *   LIVE        lost                          DEAD
 *   any         stop                          DEAD        the thread ends
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"
#include "common/link_impl.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MOST_MS  1000

/* The only way to another state.  why is the error that led there, "" when
 * none did. */
static void
enter(struct link *k, enum link_state state, const char *why)
{
    static const char *const names[] = {"connecting", "parked", "going", "live",
                                        "dead"};
    enum link_state old = k->status.state;
    bool quiet;

    pthread_mutex_lock(&k->lock);
    quiet = k->stop;
    k->status.state = state;
    if (state != old)
        k->status.since_ms = clock_ms();
    link_text(k->status.error, why);
    k->status.info_sent_ms = 0;
    pthread_mutex_unlock(&k->lock);
    log_debug("link %s: %s -> %s%s%s", k->name, names[old], names[state],
              why[0] ? ": " : "", why);
    if (!quiet && k->opt.changed)
        k->opt.changed(k->opt.opaque);
}

/* Who asked for a GO gets its answer; if nobody did there is nothing. */
static void
answer_go(struct link *k, int result)
{
    bool asked, quiet;

    pthread_mutex_lock(&k->lock);
    asked = k->go_name && !k->go_done;
    quiet = k->stop;
    if (asked) {
        k->go_result = result;
        k->go_done = true;
        pthread_cond_broadcast(&k->cond);
    }
    pthread_mutex_unlock(&k->lock);
    if (asked && !quiet && k->opt.changed)
        k->opt.changed(k->opt.opaque);
}

/* A connection that carries no commands was lost, or none came about: begin
 * anew after a while.  Said once for as long as the reason stays and no INFO
 * is answered: a network may pass all of a handshake and nothing longer. */
static void
retry(struct link *k)
{
    bool parked = k->status.state != LINK_CONNECTING, was_up = k->proven;

    if (!was_up && k->opt.failures)
        atomic_fetch_add(&k->opt.failures->of[k->kind], 1);
    k->proven = false;
    link_conn_close(k);
    k->attempts++;
    k->next_ms = clock_ms() + k->backoff_ms;
    k->backoff_ms *= 2;
    if (k->backoff_ms > BACKOFF_MOST_MS)
        k->backoff_ms = BACKOFF_MOST_MS;
    if (!parked && strcmp(k->status.error, k->failure) == 0)
        return;
    if (was_up || strcmp(k->told, k->failure) != 0)
        log_warning("link %s: %s%s", k->name, was_up ? "lost: " : "",
                    k->failure);
    link_text(k->told, k->failure);
    pthread_mutex_lock(&k->lock);
    k->status.would_serve = false;
    k->status.refusal[0] = '\0';
    k->status.info_ms = 0;
    pthread_mutex_unlock(&k->lock);
    enter(k, LINK_CONNECTING, k->failure);
}

/* The connection is over for good. */
static void
die(struct link *k, int go_result)
{
    link_conn_drop(k);
    log_warning("link %s: lost: %s", k->name, k->failure);
    enter(k, LINK_DEAD, k->failure);
    answer_go(k, go_result);
}

static void
set_failure(struct link *k, const char *what, unsigned ms)
{
    snprintf(k->failure, sizeof k->failure, "%s in %u ms", what, ms);
}

static void
park(struct link *k, const char *refusal)
{
    pthread_mutex_lock(&k->lock);
    link_text(k->status.refusal, refusal);
    pthread_mutex_unlock(&k->lock);
    enter(k, LINK_PARKED, k->told);
}

static void
step_connecting(struct link *k, uint64_t now)
{
    if (k->nbd == NULL && now < k->next_ms) {
        k->wake_ms = k->next_ms;
        return;
    }
    if (k->nbd == NULL) {
        k->deadline_ms = now + k->opt.open_timeout_ms;
        if (link_conn_open(k) == -1) {
            retry(k);
            k->wake_ms = k->next_ms;
            return;
        }
    }
    if (!link_conn_over(k) && nbd_aio_is_negotiating(k->nbd) == 1 &&
        link_conn_check(k) == 0) {
        k->next_ms = now;
        park(k, "");
        k->wake_ms = now;
        return;
    }
    if (k->failure[0] == '\0' && nbd_aio_is_ready(k->nbd) == 1)
        link_text(k->failure, "the peer does not speak fixed newstyle NBD");
    if (k->failure[0] == '\0' && now >= k->deadline_ms) {
        set_failure(k, "not negotiated", k->opt.open_timeout_ms);
        k->kind = LINK_FAIL_UNREACHABLE;
    }
    if (k->failure[0])
        retry(k);
    k->wake_ms = k->failure[0] ? k->next_ms : k->deadline_ms;
}

static bool
tells_news(const struct link_status *st, const struct link_status *old)
{
    return old->info_ms == 0 || st->would_serve != old->would_serve ||
           strcmp(st->refusal, old->refusal) != 0 ||
           strcmp(st->description, old->description) != 0 ||
           st->size != old->size || st->flags != old->flags;
}

/* The first answer shows that the connection carries more than a handshake. */
static void
prove(struct link *k)
{
    if (k->proven)
        return;
    log_info("link %s: parked (%u attempts failed)", k->name, k->attempts);
    k->proven = true;
    k->attempts = 0;
    k->told[0] = '\0';
}

/* Note the answer to an INFO; say so if it tells something new. */
static void
take_info(struct link *k)
{
    bool news;
    struct link_status st;
    uint64_t us = clock_us();

    prove(k);
    link_get_status(k, &st);
    st.error[0] = '\0';
    st.info_ms = clock_ms();
    st.info_sent_ms = 0;
    st.rtt_us = (unsigned)(us - k->asked_us);
    st.would_serve = k->answer_error == 0;
    link_text(st.refusal, st.would_serve ? "" : k->peer_text);
    if (st.would_serve)
        link_conn_export(k, &st);
    k->question = LINK_ASKS_NOTHING;
    k->hears = !st.would_serve;
    k->backoff_ms = BACKOFF_FIRST_MS;
    news = tells_news(&st, &k->status);
    if (strcmp(st.refusal, k->status.refusal) != 0)
        log_info("link %s: the peer would %s%s", k->name,
                 st.would_serve ? "serve" : "not serve: ", st.refusal);
    pthread_mutex_lock(&k->lock);
    k->status = st;
    pthread_mutex_unlock(&k->lock);
    if (news && k->opt.changed)
        k->opt.changed(k->opt.opaque);
}

static void
ask_info(struct link *k, uint64_t now)
{
    pthread_mutex_lock(&k->lock);
    k->status.info_sent_ms = now;
    pthread_mutex_unlock(&k->lock);
    k->deadline_ms = now + k->opt.link_timeout_ms;
    k->next_ms = now + k->opt.standby_interval_ms;
    if (link_conn_ask(k, LINK_ASKS_INFO, k->opt.info_name) == -1)
        link_text(k->failure, k->peer_text);
}

/* It would serve until now, and would not any more: ask once more, to hear why.
 * Returns false when there is no need to. */
static bool
ask_for_reason(struct link *k, uint64_t now)
{
    if (k->answer_error == 0 || k->hears)
        return false;
    k->hears = true;
    pthread_mutex_lock(&k->lock);
    k->status.would_serve = false;
    pthread_mutex_unlock(&k->lock);
    ask_info(k, now);
    return true;
}

/* Returns false when an INFO is under way still. */
static bool
settle_info(struct link *k, uint64_t now)
{
    if (k->question != LINK_ASKS_INFO)
        return true;
    if (k->answered && !ask_for_reason(k, now)) {
        take_info(k);
        return true;
    }
    if (now >= k->deadline_ms) {
        k->kind = LINK_FAIL_UNREACHABLE;
        set_failure(k,
                    k->proven ? "NBD_OPT_INFO was not answered"
                              : "connected, but large packets seem not to "
                                "come through (compare the MTUs): "
                                "NBD_OPT_INFO was not answered",
                    k->opt.link_timeout_ms);
    }
    k->wake_ms = k->deadline_ms;
    return false;
}

static bool
go_wanted(struct link *k, uint64_t *deadline_ms)
{
    bool wanted;

    pthread_mutex_lock(&k->lock);
    wanted = k->go_name && !k->go_done;
    *deadline_ms = k->go_deadline_ms;
    pthread_mutex_unlock(&k->lock);
    return wanted;
}

static void step_going(struct link *k, uint64_t now);

static void
step_parked(struct link *k, uint64_t now)
{
    uint64_t dummy;
    bool go = go_wanted(k, &dummy);
    bool due = k->question == LINK_ASKS_NOTHING && now >= k->next_ms;

    if ((go || due) && !link_conn_over(k))
        link_conn_recheck(k);
    if (!link_conn_over(k)) {
        if (go) {
            enter(k, LINK_GOING, "");
            step_going(k, now);
            return;
        }
        /* An answer that is there already is taken in this same round. */
        if (due)
            ask_info(k, now);
        if (!link_conn_over(k) && settle_info(k, now))
            k->wake_ms = k->next_ms;
    }
    if (k->failure[0]) {
        retry(k);
        answer_go(k, -EBUSY); /* it came for a link that was parked no more */
        k->wake_ms = k->next_ms;
    }
}

static void
go_live(struct link *k)
{
    struct link_status st;

    nbd_set_debug(k->nbd, false);
    nbd_clear_debug_callback(k->nbd);
    k->question = LINK_ASKS_NOTHING;
    k->has_extents =
        nbd_can_meta_context(k->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    link_get_status(k, &st);
    link_conn_export(k, &st);
    st.refusal[0] = '\0';
    pthread_mutex_lock(&k->lock);
    k->status = st;
    pthread_mutex_unlock(&k->lock);
    enter(k, LINK_LIVE, "");
    answer_go(k, 0);
}

static void
take_go(struct link *k, uint64_t now)
{
    if (k->answer_error == 0) {
        point_pass(POINT_GO_GRANTED);
        go_live(k);
        k->wake_ms = CLOCK_NEVER;
        return;
    }
    k->question = LINK_ASKS_NOTHING;
    k->next_ms = now + k->opt.standby_interval_ms;
    park(k, k->peer_text);
    answer_go(k, -EACCES);
    k->wake_ms = now;
}

/* Nobody changes go_name before answer_go. */
static void
send_go(struct link *k, uint64_t now)
{
    if (link_conn_ask(k, LINK_ASKS_GO, k->go_name) == 0) {
        point_pass(POINT_GO_SENT);
        return;
    }
    k->answer_error = EINVAL;
    take_go(k, now);
}

static void
step_going(struct link *k, uint64_t now)
{
    uint64_t deadline_ms;
    bool late;

    go_wanted(k, &deadline_ms);
    late = now >= deadline_ms;
    if (!link_conn_over(k) && settle_info(k, now)) {
        if (k->question == LINK_ASKS_NOTHING)
            send_go(k, now);
        k->wake_ms = deadline_ms;
        if (!link_conn_over(k) && k->question == LINK_ASKS_GO && k->answered)
            take_go(k, now);
    }
    if (k->status.state != LINK_GOING)
        return;
    if (k->failure[0] == '\0' && late)
        link_text(k->failure, "NBD_OPT_GO was not answered in time");
    else
        late = false;
    if (k->failure[0])
        die(k, late ? -ETIMEDOUT : -ENOTCONN);
    else if (k->wake_ms > deadline_ms)
        k->wake_ms = deadline_ms;
}

static void
step_live(struct link *k)
{
    k->wake_ms = CLOCK_NEVER;
    if (!link_conn_over(k))
        return;
    if (link_conn_ended(k)) {
        die(k, 0);
        return;
    }
    /* libnbd itself must end the commands, and it does when the socket is
     * of no more use. */
    pthread_mutex_lock(&k->lock);
    link_reset_locked(k);
    pthread_mutex_unlock(&k->lock);
}

/* link_destroy: no new commands, end those under way. */
static void
step_stop(struct link *k)
{
    bool live = k->status.state == LINK_LIVE, idle;

    enter(k, LINK_DEAD, "closed");
    answer_go(k, -ENOTCONN);
    pthread_mutex_lock(&k->lock);
    idle = TAILQ_EMPTY(&k->waits);
    if (!live || !idle)
        link_reset_locked(k);
    pthread_mutex_unlock(&k->lock);
    if (live && idle)
        link_conn_farewell(k);
    else if (live)
        for (k->wake_ms = CLOCK_NEVER; !link_conn_ended(k); link_conn_pump(k))
            link_conn_poll(k);
}

/* One round; false when the thread has nothing left to do. */
static bool
step(struct link *k)
{
    uint64_t now = clock_ms();
    bool stop, breaking;

    link_conn_pump(k);
    pthread_mutex_lock(&k->lock);
    stop = k->stop;
    breaking = k->breaking;
    k->breaking = false;
    pthread_mutex_unlock(&k->lock);
    if (stop) {
        step_stop(k);
        return false;
    }
    if (breaking && k->nbd)
        link_text(k->failure, "broken by order");
    switch (k->status.state) {
    case LINK_CONNECTING:
        step_connecting(k, now);
        break;
    case LINK_PARKED:
        step_parked(k, now);
        break;
    case LINK_GOING:
        step_going(k, now);
        break;
    case LINK_LIVE:
        step_live(k);
        break;
    case LINK_DEAD:
        break;
    }
    return k->status.state != LINK_DEAD;
}

static void *
run(void *opaque)
{
    struct link *k = opaque;

    while (step(k))
        link_conn_poll(k);
    return NULL;
}

static int
copy_options(struct link *k, const struct link_options *opt)
{
    struct in6_addr any;
    bool v6 = strchr(opt->address, ':') != NULL;

    /* A name would be looked up, perhaps for long, and not be verified. */
    if (inet_pton(v6 ? AF_INET6 : AF_INET, opt->address, &any) != 1)
        return -EINVAL;
    k->opt = *opt;
    k->opt.peer = strdup(opt->peer);
    k->opt.address = strdup(opt->address);
    k->opt.tls_dir = opt->tls_dir ? strdup(opt->tls_dir) : NULL;
    k->opt.info_name = strdup(opt->info_name);
    if (!k->opt.peer || !k->opt.address || !k->opt.info_name ||
        (opt->tls_dir && !k->opt.tls_dir))
        return -ENOMEM;
    snprintf(k->name, sizeof k->name, v6 ? "%s [%s]:%u" : "%s %s:%u", opt->peer,
             opt->address, opt->port);
    return 0;
}

/* Signals are for the threads of the program, not for ours. */
static int
start_thread(struct link *k)
{
    sigset_t all, old;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    err = pthread_create(&k->thread, NULL, run, k);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err == 0)
        pthread_setname_np(k->thread, "detour-link");
    return -err;
}

static void
release(struct link *k)
{
    free((char *)k->opt.peer);
    free((char *)k->opt.address);
    free((char *)k->opt.tls_dir);
    free((char *)k->opt.info_name);
    free(k->go_name);
    if (k->wake_fd != -1)
        close(k->wake_fd);
    if (k->lead_fd != -1)
        close(k->lead_fd);
    pthread_cond_destroy(&k->cond);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

struct link *
link_create(const struct link_options *opt)
{
    struct link *k = calloc(1, sizeof *k);
    int err;

    if (k == NULL)
        return NULL;
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->cond, NULL);
    TAILQ_INIT(&k->waits);
    k->fd = -1;
    k->backoff_ms = BACKOFF_FIRST_MS;
    k->status.state = LINK_CONNECTING;
    k->status.since_ms = clock_ms();
    k->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    k->lead_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err = k->wake_fd == -1 || k->lead_fd == -1 ? -errno : copy_options(k, opt);
    if (err == 0)
        err = start_thread(k);
    if (err == 0)
        return k;
    release(k);
    errno = -err;
    return NULL;
}

void
link_end(struct link *k)
{
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_mutex_unlock(&k->lock);
    link_wake(k);
}

void
link_destroy(struct link *k)
{
    if (k == NULL)
        return;
    link_end(k);
    pthread_join(k->thread, NULL);
    pthread_mutex_lock(&k->lock);
    while (!TAILQ_EMPTY(&k->waits))
        pthread_cond_wait(&k->cond, &k->lock);
    pthread_mutex_unlock(&k->lock);
    link_conn_close(k);
    release(k);
}

const char *
link_failure_name(enum link_failure f)
{
    static const char *const names[LINK_FAILURES] = {
        [LINK_FAIL_CERTIFICATE] = "certificate",
        [LINK_FAIL_REFUSED] = "refused",
        [LINK_FAIL_UNREACHABLE] = "unreachable",
        [LINK_FAIL_FILES] = "files",
    };

    return names[f];
}

void
link_get_status(struct link *k, struct link_status *st)
{
    pthread_mutex_lock(&k->lock);
    *st = k->status;
    pthread_mutex_unlock(&k->lock);
}

int
link_go_begin(struct link *k, const char *export_name, uint64_t deadline_ms)
{
    uint64_t most_ms = clock_ms() + k->opt.open_timeout_ms;
    char *name = strdup(export_name), *unused = name;
    bool free_for_it;

    if (name == NULL)
        return -ENOMEM;
    pthread_mutex_lock(&k->lock);
    free_for_it = k->status.state == LINK_PARKED && !k->stop &&
                  (k->go_name == NULL || k->go_done);
    if (free_for_it) {
        unused = k->go_name;
        k->go_name = name;
        k->go_deadline_ms = deadline_ms < most_ms ? deadline_ms : most_ms;
        k->go_done = false;
        link_wake(k);
    }
    pthread_mutex_unlock(&k->lock);
    free(unused);
    return free_for_it ? 0 : -EBUSY;
}

int
link_go_result(struct link *k)
{
    int r;

    pthread_mutex_lock(&k->lock);
    r = k->go_done ? k->go_result : -EINPROGRESS;
    pthread_mutex_unlock(&k->lock);
    return r;
}

int
link_go(struct link *k, const char *export_name, uint64_t deadline_ms)
{
    int r = link_go_begin(k, export_name, deadline_ms);

    if (r < 0)
        return r;
    pthread_mutex_lock(&k->lock);
    while (!k->go_done)
        pthread_cond_wait(&k->cond, &k->lock);
    r = k->go_result;
    pthread_mutex_unlock(&k->lock);
    return r;
}

void
link_break(struct link *k)
{
    pthread_mutex_lock(&k->lock);
    k->breaking = true;
    link_reset_locked(k);
    pthread_mutex_unlock(&k->lock);
    link_wake(k);
}
