/* SPDX-License-Identifier: BSD-3-Clause */
/* Letting sessions in: the order of the steps, what refuses, and the keeper
 * that registers, against a LUN and a monitor held by the test. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "lun/backend.h"
#include "lun/wait.h"
#include "proxy/nbd.h"
#include "proxy/share.h"

#define PATIENCE_MS 5000

/* ---- the LUN and the monitor ------------------------------------------- */

static struct fake {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct lun_status st;
    bool usable;
    unsigned registers, releases, fences;
    int register_error, fence_error;
    unsigned fenced[8];
    bool finished;        /* the old session's write has come back */
    bool fenced_too_soon; /* before that */
    struct monitor_options monitor;
} fake;

struct lun *__wrap_lun_create(const struct lun_options *opt);
unsigned __wrap_lun_destroy(struct lun *l, uint64_t deadline_ms);
void __wrap_lun_get_status(struct lun *l, struct lun_status *st);
int __wrap_lun_register(struct lun *l, uint64_t deadline_ms);
void __wrap_lun_release(struct lun *l);
int __wrap_lun_fence(struct lun *l, unsigned host, uint64_t deadline_ms);
struct monitor *__wrap_monitor_start(struct lun *l,
                                     const struct monitor_options *opt);
void __wrap_monitor_stop(struct monitor *m);
void __wrap_monitor_get(struct monitor *m, struct monitor_status *st);

struct lun *
__wrap_lun_create(const struct lun_options *opt)
{
    (void)opt;
    return (struct lun *)&fake;
}

unsigned
__wrap_lun_destroy(struct lun *l, uint64_t deadline_ms)
{
    (void)l;
    (void)deadline_ms;
    return 0;
}

void
__wrap_lun_get_status(struct lun *l, struct lun_status *st)
{
    (void)l;
    pthread_mutex_lock(&fake.lock);
    *st = fake.st;
    pthread_mutex_unlock(&fake.lock);
}

int
__wrap_lun_register(struct lun *l, uint64_t deadline_ms)
{
    int rc;

    (void)l;
    (void)deadline_ms;
    pthread_mutex_lock(&fake.lock);
    fake.registers++;
    rc = fake.register_error;
    if (!rc && fake.st.registration != LUN_REGISTERED) {
        fake.st.registration = LUN_REGISTERED;
        fake.st.registration_no++;
    }
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.lock);
    return rc;
}

void
__wrap_lun_release(struct lun *l)
{
    (void)l;
    pthread_mutex_lock(&fake.lock);
    fake.releases++;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.lock);
}

int
__wrap_lun_fence(struct lun *l, unsigned host, uint64_t deadline_ms)
{
    int rc;

    (void)l;
    (void)deadline_ms;
    pthread_mutex_lock(&fake.lock);
    rc = fake.fence_error;
    fake.fenced[fake.fences++] = host;
    fake.fenced_too_soon |= !fake.finished;
    pthread_mutex_unlock(&fake.lock);
    return rc;
}

struct monitor *
__wrap_monitor_start(struct lun *l, const struct monitor_options *opt)
{
    (void)l;
    fake.monitor = *opt;
    return (struct monitor *)&fake;
}

void
__wrap_monitor_stop(struct monitor *m)
{
    (void)m;
}

void
__wrap_monitor_get(struct monitor *m, struct monitor_status *st)
{
    (void)m;
    *st = (struct monitor_status){0};
    pthread_mutex_lock(&fake.lock);
    st->verdict.state = fake.usable ? VERDICT_GOOD : VERDICT_LOST;
    pthread_mutex_unlock(&fake.lock);
    snprintf(st->verdict.reason, sizeof st->verdict.reason, "as told");
}

/* ---- the bench --------------------------------------------------------- */

static struct config_host hosts[] = {
    {.name = (char *)"a", .number = 1},
    {.name = (char *)"b", .number = 2},
    {.name = (char *)"c", .number = 3},
};

static struct config_lun lun = {
    .name = (char *)"vm1",
    .device = (char *)"none",
    .fence = CONFIG_FENCE_PR,
    .timers = {.io_timeout = 1000},
};

static struct config config = {
    .hosts = hosts,
    .nhosts = 3,
    .self = &hosts[0],
};

struct peer {
    struct session_member member; /* first */
    _Atomic int told;
};

static void
told(struct session_member *m, enum session_order o)
{
    atomic_store(&((struct peer *)m)->told, (int)o);
}

static void
change(enum lun_registration registration, bool usable)
{
    pthread_mutex_lock(&fake.lock);
    fake.st.registration = registration;
    fake.usable = usable;
    pthread_mutex_unlock(&fake.lock);
    fake.monitor.changed(fake.monitor.opaque);
}

static bool
state_is(struct share *s, enum serve_state wanted)
{
    uint64_t deadline_ms = clock_ms() + PATIENCE_MS;
    struct share_status st;

    do {
        struct timespec pause = {.tv_nsec = 1000000};

        share_get_status(s, &st);
        if (st.serve.state == wanted)
            return true;
        nanosleep(&pause, NULL); /* between two looks */
    } while (clock_ms() < deadline_ms);
    return false;
}

static int
setup(void **state)
{
    struct share *s;

    fake = (struct fake){.usable = true};
    fake.st = (struct lun_status){.known = true,
                                  .id = "naa.1",
                                  .size = 1 << 20,
                                  .block_size = 512,
                                  .max_io = 65536};
    pthread_mutex_init(&fake.lock, NULL);
    wait_cond_init(&fake.changed);
    s = share_create(&config, &lun);
    *state = s;
    return s && state_is(s, SERVE_SERVING) ? 0 : -1;
}

static int
teardown(void **state)
{
    share_destroy(*state, 0);
    return 0;
}

struct asked {
    struct share *share;
    struct peer *peer;
    struct export_name name;
    struct refusal why;
    struct share_request request;
    int rc;
};

static void *
ask(void *opaque)
{
    struct asked *a = opaque;

    a->peer->member.order = told;
    a->request = (struct share_request){
        .peer = &hosts[1],
        .name = &a->name,
        .deadline_ms = a->request.deadline_ms,
        .member = &a->peer->member,
    };
    a->rc = share_open(a->share, &a->request, &a->why);
    return NULL;
}

static struct asked
question(struct share *s, struct peer *p, uint64_t generation,
         const char *fence)
{
    struct asked a = {.share = s, .peer = p};

    snprintf(a.name.lun, sizeof a.name.lun, "vm1");
    a.request.deadline_ms = clock_ms() + PATIENCE_MS;
    if (generation) {
        snprintf(a.name.client, sizeof a.name.client, "vm");
        a.name.generation = generation;
    }
    if (fence) {
        snprintf(a.name.fence[0], sizeof a.name.fence[0], "%s", fence);
        a.name.nfence = 1;
    }
    return a;
}

static int
come(struct share *s, struct peer *p, uint64_t generation, const char *fence,
     struct refusal *why)
{
    struct asked a = question(s, p, generation, fence);

    ask(&a);
    if (why)
        *why = a.why;
    return a.rc;
}

static void
assert_refused(struct share *s, uint64_t generation, const char *fence,
               uint32_t code, const char *words)
{
    struct refusal why;
    struct peer p = {0};

    assert_int_equal(come(s, &p, generation, fence, &why), -EACCES);
    assert_int_equal(why.code, code);
    if (!strstr(why.text, words))
        fail_msg("no '%s' in '%s'", words, why.text);
    assert_null(p.member.session);
}

static bool
was_told(struct peer *p, enum session_order o)
{
    uint64_t deadline_ms = clock_ms() + PATIENCE_MS;

    while (atomic_load(&p->told) != (int)o && clock_ms() < deadline_ms) {
        struct timespec pause = {.tv_nsec = 1000000};

        nanosleep(&pause, NULL);
    }
    return atomic_load(&p->told) == (int)o;
}

static void
assert_fences(struct share *s, unsigned long done, unsigned long failed)
{
    struct share_status st;

    share_get_status(s, &st);
    assert_int_equal(st.fences, done);
    assert_int_equal(st.fences_failed, failed);
}

/* ---- tests ------------------------------------------------------------- */

static void
test_share_session_is_let_in(void **state)
{
    struct share *s = *state;
    struct export_info info;
    struct lun_status st;
    struct refusal why;
    struct peer p = {0};

    assert_int_equal(come(s, &p, 1, "c", NULL), 0);
    assert_int_equal(fake.fences, 1);
    assert_int_equal(fake.fenced[0], 3);
    assert_fences(s, 1, 0);
    atomic_store(&p.member.inflight, 5);
    assert_int_equal(share_info(s, "naa.1", &st, &info, &why), 0);
    assert_int_equal(info.sessions, 1);
    assert_int_equal(info.load, 5);
    assert_string_equal(info.state, "serving");
    assert_string_equal(info.id, "naa.1");
    share_leave(s, &p.member);
}

static void
test_share_wrong_names_do_nothing(void **state)
{
    struct share *s = *state;

    assert_refused(s, 0, "c", NBD_REP_ERR_INVALID, "need a client");
    assert_refused(s, 1, "a", NBD_REP_ERR_INVALID, "this very host");
    assert_refused(s, 1, "z", NBD_REP_ERR_INVALID, "no such host");
    assert_int_equal(fake.fences, 0);
}

static void
test_share_another_identity_is_refused(void **state)
{
    struct share *s = *state;
    struct export_info info;
    struct lun_status st;
    struct refusal why;

    assert_int_equal(share_info(s, "naa.2", &st, &info, &why), -EACCES);
    assert_int_equal(why.code, NBD_REP_ERR_INVALID);
    assert_non_null(strstr(why.text, "another LUN"));
}

static void
test_share_stale_generation_fences_nobody(void **state)
{
    struct share *s = *state;
    struct peer p = {0};

    assert_int_equal(come(s, &p, 5, NULL, NULL), 0);
    assert_refused(s, 4, "c", NBD_REP_ERR_POLICY, "older than 5");
    assert_int_equal(fake.fences, 0);
    assert_int_equal(p.told, SESSION_RUN);
    share_leave(s, &p.member);
}

static void
test_share_fences_after_the_old_session_has_finished(void **state)
{
    struct lun_io io = {.op = LUN_WRITE};
    struct share *s = *state;
    struct peer old = {0}, new = {0};
    struct asked a;
    pthread_t thread;

    assert_int_equal(come(s, &old, 1, NULL, NULL), 0);
    io.tally = old.member.session->tally;
    lun_tally_begin(&io);
    a = question(s, &new, 2, "c");
    pthread_create(&thread, NULL, ask, &a);
    assert_true(was_told(&old, SESSION_FINISH));
    share_leave(s, &old.member);
    pthread_mutex_lock(&fake.lock);
    assert_int_equal(fake.fences, 0);
    fake.finished = true;
    pthread_mutex_unlock(&fake.lock);
    lun_tally_end(&io);
    pthread_join(thread, NULL);
    assert_int_equal(a.rc, 0);
    assert_int_equal(fake.fences, 1);
    assert_false(fake.fenced_too_soon);
    share_leave(s, &new.member);
}

static void
test_share_hung_old_write_refuses_in_time(void **state)
{
    struct lun_io io = {.op = LUN_WRITE};
    struct share *s = *state;
    struct peer old = {0}, new = {0};
    struct asked a;

    assert_int_equal(come(s, &old, 1, NULL, NULL), 0);
    io.tally = old.member.session->tally;
    lun_tally_begin(&io);
    share_leave(s, &old.member);
    a = question(s, &new, 2, "c");
    a.request.deadline_ms = clock_ms() + 50;
    ask(&a);
    assert_int_equal(a.rc, -EACCES);
    assert_non_null(strstr(a.why.text, "generation 1 have not come back"));
    assert_int_equal(fake.fences, 0);
    lun_tally_end(&io);
    assert_int_equal(come(s, &new, 3, NULL, NULL), 0);
    share_leave(s, &new.member);
}

static void
test_share_old_connection_that_stays_refuses_in_time(void **state)
{
    struct share *s = *state;
    struct peer old = {0}, new = {0};
    struct asked a;

    assert_int_equal(come(s, &old, 1, NULL, NULL), 0);
    a = question(s, &new, 2, NULL);
    a.request.deadline_ms = clock_ms() + 50;
    ask(&a);
    assert_int_equal(a.rc, -EACCES);
    assert_int_equal(old.told, SESSION_FINISH);
    share_leave(s, &old.member);
}

static void
test_share_failed_fence_refuses(void **state)
{
    struct share *s = *state;

    fake.fence_error = -ETIMEDOUT;
    assert_refused(s, 1, "c", NBD_REP_ERR_SHUTDOWN, "cannot fence c");
    assert_fences(s, 0, 1);
}

static void
test_share_fenced_cuts_and_registers_anew(void **state)
{
    struct share *s = *state;
    struct peer p = {0};
    unsigned before = fake.registers;

    assert_int_equal(come(s, &p, 1, NULL, NULL), 0);
    change(LUN_FENCED, true);
    assert_true(was_told(&p, SESSION_ABANDON));
    assert_true(state_is(s, SERVE_CLOSING));
    assert_refused(s, 2, NULL, NBD_REP_ERR_SHUTDOWN, "not serving");
    assert_int_equal(fake.registers, before);
    share_leave(s, &p.member);
    assert_true(state_is(s, SERVE_SERVING));
    assert_int_equal(fake.registers, before + 1);
}

static void
test_share_lost_paths_cut_and_release(void **state)
{
    struct share *s = *state;
    struct peer p = {0};

    assert_int_equal(come(s, &p, 0, NULL, NULL), 0);
    change(LUN_REGISTERED, false);
    assert_true(was_told(&p, SESSION_ABANDON));
    share_leave(s, &p.member);
    assert_true(state_is(s, SERVE_WAITING));
    pthread_mutex_lock(&fake.lock);
    while (fake.releases == 0)
        assert_true(
            wait_cond(&fake.changed, &fake.lock, clock_ms() + PATIENCE_MS));
    pthread_mutex_unlock(&fake.lock);
    assert_refused(s, 0, NULL, NBD_REP_ERR_SHUTDOWN, "as told");
    change(LUN_REGISTERED, true);
    assert_true(state_is(s, SERVE_SERVING));
}

static void
test_share_lost_while_it_waits_refuses(void **state)
{
    struct share *s = *state;
    struct peer old = {0}, new = {0};
    struct asked a;
    pthread_t thread;

    assert_int_equal(come(s, &old, 1, NULL, NULL), 0);
    a = question(s, &new, 2, "c");
    pthread_create(&thread, NULL, ask, &a);
    assert_true(was_told(&old, SESSION_FINISH));
    change(LUN_REGISTERED, false);
    pthread_join(thread, NULL);
    assert_int_equal(a.rc, -EACCES);
    assert_int_equal(fake.fences, 0);
    share_leave(s, &old.member);
}

static void
test_share_drain_refuses_and_undrain_serves(void **state)
{
    struct share *s = *state;
    struct peer p = {0};

    assert_int_equal(come(s, &p, 1, NULL, NULL), 0);
    share_drain(s, true);
    assert_refused(s, 2, NULL, NBD_REP_ERR_SHUTDOWN, "draining");
    assert_true(was_told(&p, SESSION_DRAIN));
    share_leave(s, &p.member);
    assert_true(state_is(s, SERVE_DRAINED));
    share_drain(s, false);
    assert_true(state_is(s, SERVE_SERVING));
}

static void
test_share_tells_the_monitor_of_the_oldest_request(void **state)
{
    struct share *s = *state;
    struct peer p = {0};

    assert_int_equal(come(s, &p, 1, NULL, NULL), 0);
    assert_int_equal(fake.monitor.oldest_ms(fake.monitor.opaque), 0);
    atomic_store(&p.member.oldest_ms, 77);
    atomic_store(&p.member.answered_ms, 78);
    assert_int_equal(fake.monitor.oldest_ms(fake.monitor.opaque), 77);
    assert_int_equal(fake.monitor.answered_ms(fake.monitor.opaque), 78);
    share_leave(s, &p.member);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_share_session_is_let_in),
        TEST(test_share_wrong_names_do_nothing),
        TEST(test_share_another_identity_is_refused),
        TEST(test_share_stale_generation_fences_nobody),
        TEST(test_share_fences_after_the_old_session_has_finished),
        TEST(test_share_hung_old_write_refuses_in_time),
        TEST(test_share_old_connection_that_stays_refuses_in_time),
        TEST(test_share_failed_fence_refuses),
        TEST(test_share_fenced_cuts_and_registers_anew),
        TEST(test_share_lost_paths_cut_and_release),
        TEST(test_share_lost_while_it_waits_refuses),
        TEST(test_share_drain_refuses_and_undrain_serves),
        TEST(test_share_tells_the_monitor_of_the_oldest_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
