/* SPDX-License-Identifier: BSD-3-Clause */
/* The monitor against a device made of variables: what it sends, when it
 * judges, whom it tells. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "health/monitor.h"
#include "health/prober.h"

/* Far more than any step needs, far less than a person's patience. */
#define PATIENCE_MS 10000
#include "tests/unit/eventually.h"

/* ---- the device ---------------------------------------------------------- */

#define HELD_MAX 64

static struct {
    pthread_mutex_t lock;
    struct lun_status st;
    bool hang;
    int error; /* of probes answered */
    int fd;
    struct lun_io *done[HELD_MAX], *held[HELD_MAX];
    unsigned ndone, nheld;
    unsigned sent, answered, allocated, looks;
    unsigned checks;
    int check_hangs_ms; /* up to its deadline if < 0 */
    unsigned told;      /* lun_fail_queued, and what last */
    bool told_to_fail;
    bool interrupted; /* lun_queue_interrupt, since the last lun_reap ended */
    struct lun_io last;
} dev = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct lun_queue {
    int unused;
};
static struct lun_queue the_queue;
static struct lun *const the_lun = (struct lun *)&dev;

void __wrap_lun_get_status(struct lun *l, struct lun_status *st);
struct lun_queue *__wrap_lun_queue_create(struct lun *l);
void __wrap_lun_queue_destroy(struct lun_queue *q);
void __wrap_lun_queue_interrupt(struct lun_queue *q);
struct lun_io *__wrap_lun_io_get(struct lun_queue *q, size_t room);
void __wrap_lun_io_put(struct lun_io *io);
void __wrap_lun_submit(struct lun_queue *q, struct lun_io *io);
size_t __wrap_lun_reap(struct lun_queue *q, struct lun_io **ios, size_t max,
                       uint64_t deadline_ms);
int __wrap_lun_check_registration(struct lun *l, uint64_t deadline_ms);
void __wrap_lun_fail_queued(struct lun *l, bool fail);

void
__wrap_lun_get_status(struct lun *l, struct lun_status *st)
{
    assert_ptr_equal(l, the_lun);
    pthread_mutex_lock(&dev.lock);
    *st = dev.st;
    dev.looks++;
    pthread_mutex_unlock(&dev.lock);
}

struct lun_queue *
__wrap_lun_queue_create(struct lun *l)
{
    assert_ptr_equal(l, the_lun);
    return &the_queue;
}

void
__wrap_lun_queue_destroy(struct lun_queue *q)
{
    assert_ptr_equal(q, &the_queue);
    while (dev.nheld > 0)
        free(dev.held[--dev.nheld]);
    while (dev.ndone > 0)
        free(dev.done[--dev.ndone]);
}

void
__wrap_lun_queue_interrupt(struct lun_queue *q)
{
    (void)q;
    pthread_mutex_lock(&dev.lock);
    dev.interrupted = true;
    eventfd_write(dev.fd, 1);
    pthread_mutex_unlock(&dev.lock);
}

struct lun_io *
__wrap_lun_io_get(struct lun_queue *q, size_t room)
{
    struct lun_io *io = calloc(1, sizeof *io);

    assert_true(room > 0);
    io->queue = q;
    pthread_mutex_lock(&dev.lock);
    dev.allocated++;
    pthread_mutex_unlock(&dev.lock);
    return io;
}

void
__wrap_lun_io_put(struct lun_io *io)
{
    pthread_mutex_lock(&dev.lock);
    dev.allocated--;
    pthread_mutex_unlock(&dev.lock);
    free(io);
}

static void
finish_locked(struct lun_io *io)
{
    io->error = dev.error;
    dev.done[dev.ndone++] = io;
    eventfd_write(dev.fd, 1);
}

void
__wrap_lun_submit(struct lun_queue *q, struct lun_io *io)
{
    (void)q;
    pthread_mutex_lock(&dev.lock);
    dev.sent++;
    dev.last = *io;
    if (dev.hang)
        dev.held[dev.nheld++] = io;
    else
        finish_locked(io);
    pthread_mutex_unlock(&dev.lock);
}

size_t
__wrap_lun_reap(struct lun_queue *q, struct lun_io **ios, size_t max,
                uint64_t deadline_ms)
{
    bool over = false;
    eventfd_t value;
    size_t n = 0;

    (void)q;
    while (!over) {
        struct pollfd p = {.fd = dev.fd, .events = POLLIN};

        if (deadline_ms != 0)
            poll(&p, 1, clock_left_ms(deadline_ms, clock_ms()));
        pthread_mutex_lock(&dev.lock);
        eventfd_read(dev.fd, &value);
        while (n < max && dev.ndone > 0) {
            ios[n++] = dev.done[--dev.ndone];
            dev.answered++;
        }
        if (dev.ndone > 0)
            eventfd_write(dev.fd, 1);
        over = n > 0 || dev.interrupted || clock_ms() >= deadline_ms;
        dev.interrupted = false;
        pthread_mutex_unlock(&dev.lock);
    }
    return n;
}

int
__wrap_lun_check_registration(struct lun *l, uint64_t deadline_ms)
{
    int hang;

    assert_ptr_equal(l, the_lun);
    pthread_mutex_lock(&dev.lock);
    dev.checks++;
    hang = dev.check_hangs_ms;
    pthread_mutex_unlock(&dev.lock);
    if (hang < 0)
        poll(NULL, 0, clock_left_ms(deadline_ms, clock_ms()));
    return hang < 0 ? -ETIMEDOUT : 0;
}

void
__wrap_lun_fail_queued(struct lun *l, bool fail)
{
    assert_ptr_equal(l, the_lun);
    pthread_mutex_lock(&dev.lock);
    dev.told_to_fail = fail;
    dev.told++;
    pthread_mutex_unlock(&dev.lock);
}

/* the held ones come back, as a device that wakes up would let them */
static void
let_go(unsigned n)
{
    pthread_mutex_lock(&dev.lock);
    while (n-- > 0 && dev.nheld > 0) {
        finish_locked(dev.held[0]);
        memmove(dev.held, dev.held + 1, --dev.nheld * sizeof dev.held[0]);
    }
    pthread_mutex_unlock(&dev.lock);
}

#define SET(field, value)                                                      \
    do {                                                                       \
        pthread_mutex_lock(&dev.lock);                                         \
        dev.field = (value);                                                   \
        pthread_mutex_unlock(&dev.lock);                                       \
    } while (0)

static unsigned
counted(const unsigned *field)
{
    unsigned n;

    pthread_mutex_lock(&dev.lock);
    n = *field;
    pthread_mutex_unlock(&dev.lock);
    return n;
}

/* ---- the owner ----------------------------------------------------------- */

static struct {
    atomic_uint changes;
    atomic_uint_least64_t oldest, answered;
    atomic_bool quick; /* its requests are, a thousand each window */
    uint64_t counts[SLOW_BUCKETS];
    struct slow_options slow;
    struct monitor *m;
} own;

static uint64_t
oldest(void *opaque)
{
    assert_ptr_equal(opaque, &own);
    return atomic_load(&own.oldest);
}

static uint64_t
answered(void *opaque)
{
    assert_ptr_equal(opaque, &own);
    return atomic_load(&own.answered);
}

static void
durations(void *opaque, uint64_t *counts)
{
    assert_ptr_equal(opaque, &own);
    own.counts[slow_bucket(0)] += atomic_load(&own.quick) ? 1000 : 0;
    memcpy(counts, own.counts, sizeof own.counts);
}

static void
changed(void *opaque)
{
    assert_ptr_equal(opaque, &own);
    atomic_fetch_add(&own.changes, 1);
}

static void
start(unsigned interval_ms, unsigned probe_timeout_ms, unsigned io_timeout_ms)
{
    const struct monitor_options opt = {
        .name = "vm1",
        .probe_interval_ms = interval_ms,
        .probe_timeout_ms = probe_timeout_ms,
        .io_timeout_ms = io_timeout_ms,
        .check_registration = true,
        .oldest_ms = oldest,
        .answered_ms = answered,
        .durations = durations,
        .slow = own.slow,
        .changed = changed,
        .opaque = &own,
    };

    own.m = monitor_start(the_lun, &opt);
    assert_non_null(own.m);
}

static enum verdict_state
verdict_now(void)
{
    struct monitor_status st;

    monitor_get(own.m, &st);
    return st.verdict.state;
}

static int
setup(void **state)
{
    (void)state;
    assert_int_equal(dev.nheld + dev.ndone, 0);
    memset(&dev.st, 0, sizeof dev.st);
    dev.st.known = true;
    dev.st.block_size = 4096;
    dev.st.size = 1 << 20;
    dev.st.paths_known = dev.st.paths_good = 2;
    dev.hang = false;
    dev.error = dev.check_hangs_ms = 0;
    dev.sent = dev.answered = dev.allocated = dev.checks = dev.told = 0;
    dev.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    memset(&own, 0, sizeof own);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    monitor_stop(own.m);
    own.m = NULL;
    close(dev.fd);
    return 0;
}

/* ---- probing ------------------------------------------------------------- */

static void
test_monitor_probes_read_the_first_block(void **state)
{
    struct monitor_status st;

    (void)state;
    start(20, 100, 200);
    eventually(counted(&dev.answered) >= 3);
    pthread_mutex_lock(&dev.lock);
    assert_int_equal(dev.last.op, LUN_READ);
    assert_int_equal(dev.last.offset, 0);
    assert_int_equal(dev.last.count, 4096);
    assert_int_equal(dev.last.registration_no, 0);
    pthread_mutex_unlock(&dev.lock);
    eventually(verdict_now() == VERDICT_GOOD);
    monitor_get(own.m, &st);
    assert_true(st.probe_ms > 0 && st.probe_ms <= clock_ms());
    assert_true(st.verdict.good_ms > 0);
    assert_int_equal(st.probes_stuck, 0);
    assert_int_equal(st.lun.size, 1 << 20);
    assert_int_equal(atomic_load(&own.changes), 1);
    assert_true(counted(&dev.allocated) <= 1);
}

static void
test_monitor_sends_nothing_before_the_lun_is_known(void **state)
{
    (void)state;
    dev.st.known = false;
    start(5, 20, 30);
    eventually(verdict_now() == VERDICT_LOST);
    assert_int_equal(counted(&dev.sent), 0);
    SET(st.known, true);
    monitor_kick(own.m);
    eventually(verdict_now() == VERDICT_GOOD);
}

/* Once for each change, and not before the first loss. */
static void
test_monitor_lost_paths_fail_what_the_map_queues(void **state)
{
    (void)state;
    start(20, 2000, 4000);
    eventually(verdict_now() == VERDICT_GOOD);
    assert_int_equal(counted(&dev.told), 0);
    SET(st.paths_known, 2);
    SET(st.paths_good, 0);
    monitor_kick(own.m);
    eventually(verdict_now() == VERDICT_LOST);
    eventually(counted(&dev.told) == 1);
    assert_true(dev.told_to_fail);
    SET(st.paths_good, 1);
    monitor_kick(own.m);
    eventually(verdict_now() == VERDICT_DEGRADED);
    eventually(counted(&dev.told) == 2);
    assert_false(dev.told_to_fail);
}

static void
test_monitor_leaves_two_hung_probes_and_sends_no_third(void **state)
{
    struct monitor_status st;
    uint64_t until;

    (void)state;
    dev.hang = true;
    start(5, 20, 30);
    eventually((monitor_get(own.m, &st), st.probes_stuck == 2));
    assert_int_equal(st.verdict.state, VERDICT_LOST);
    /* many intervals on, there are still two */
    for (until = clock_ms() + 100; clock_ms() < until;)
        poll(NULL, 0, 5);
    assert_int_equal(counted(&dev.sent), 2);
    /* one comes back: a new one goes out, and hangs as well */
    let_go(1);
    eventually(counted(&dev.sent) == 3);
    SET(hang, false);
    let_go(2);
    eventually(verdict_now() == VERDICT_GOOD);
    eventually((monitor_get(own.m, &st), st.probes_stuck == 0));
}

static void
test_monitor_hung_device_is_lost_in_time(void **state)
{
    struct monitor_status st;
    uint64_t dead;

    (void)state;
    start(50, 150, 200);
    eventually(verdict_now() == VERDICT_GOOD);
    SET(hang, true);
    dead = clock_ms();
    eventually(verdict_now() == VERDICT_LOST);
    monitor_get(own.m, &st);
    /* one interval until the next probe, its timeout, and the machine's */
    assert_true(st.verdict.since_ms >= dead + 150 - 1);
    assert_true(st.verdict.since_ms <= dead + 50 + 150 + 500);
}

static void
test_monitor_probe_error_is_lost(void **state)
{
    struct monitor_status st;

    (void)state;
    start(10, 100, 200);
    eventually(verdict_now() == VERDICT_GOOD);
    SET(error, -ENOLINK);
    eventually(verdict_now() == VERDICT_LOST);
    monitor_get(own.m, &st);
    assert_non_null(strstr(st.verdict.reason, "a probe failed: "));
    SET(error, 0);
    eventually(verdict_now() == VERDICT_GOOD);
    eventually(atomic_load(&own.changes) >= 3); /* told after it shows */
}

/* Each would fail, with lines in the kernel's log. */
static void
test_monitor_without_a_path_probes_rarely(void **state)
{
    unsigned sent, looks;

    (void)state;
    start(5, 200, 400);
    eventually(verdict_now() == VERDICT_GOOD);
    SET(st.paths_good, 0);
    SET(error, -ENOLINK);
    eventually(verdict_now() == VERDICT_LOST);
    looks = counted(&dev.looks);
    eventually(counted(&dev.looks) >= looks + 2);
    sent = counted(&dev.sent);
    eventually((monitor_kick(own.m), counted(&dev.looks) >= looks + 40));
    assert_int_equal(counted(&dev.sent), sent);

    /* the first path is looked for at once, whether told of or not */
    SET(error, 0);
    SET(st.paths_good, 1);
    eventually(verdict_now() == VERDICT_DEGRADED);
}

/* ---- kicks --------------------------------------------------------------- */

/* No probe and no tick can do it: the next are an hour away. */
static void
test_monitor_kick_judges_at_once(void **state)
{
    struct monitor_status st;
    uint64_t kicked;

    (void)state;
    start(3600000, 7200000, 7200000);
    eventually(verdict_now() == VERDICT_GOOD);
    SET(st.paths_good, 0);
    kicked = clock_ms();
    monitor_kick(own.m);
    eventually(verdict_now() == VERDICT_LOST);
    monitor_get(own.m, &st);
    assert_true(st.verdict.since_ms - kicked < 500);
    assert_string_equal(st.verdict.reason, "no path left (2 known)");

    /* and back: a kick while it is lost brings the next probe forward */
    SET(st.paths_good, 2);
    monitor_kick(own.m);
    eventually(verdict_now() == VERDICT_GOOD);
}

static void
test_monitor_path_error_is_lost_until_a_later_probe(void **state)
{
    unsigned changes;

    (void)state;
    start(3600000, 7200000, 7200000);
    eventually(verdict_now() == VERDICT_GOOD);
    changes = atomic_load(&own.changes);
    monitor_path_error(own.m, -ENOLINK);
    eventually(atomic_load(&own.changes) == changes + 2);
    assert_int_equal(verdict_now(), VERDICT_GOOD);
    assert_int_equal(counted(&dev.sent), 2);
}

static void
test_monitor_other_errors_change_nothing(void **state)
{
    unsigned changes, answered_before;

    (void)state;
    start(5, 200, 400);
    eventually(verdict_now() == VERDICT_GOOD);
    changes = atomic_load(&own.changes);
    monitor_path_error(own.m, -ENOSPC);
    monitor_path_error(own.m, -EBADE);
    answered_before = counted(&dev.answered);
    eventually(counted(&dev.answered) >= answered_before + 3);
    assert_int_equal(atomic_load(&own.changes), changes);
}

static void
test_monitor_kicks_in_crowds_are_no_crowd_of_probes(void **state)
{
    uint64_t began;
    unsigned sent;

    (void)state;
    dev.error = -ENOLINK;
    start(3600000, 7200000, 10);
    eventually(verdict_now() == VERDICT_LOST);
    sent = counted(&dev.sent);
    began = clock_ms();
    while (clock_ms() < began + 200)
        monitor_kick(own.m);
    assert_true(counted(&dev.sent) - sent <= (clock_ms() - began) / 10 + 1);
}

/* ---- what the owner tells ------------------------------------------------ */

static void
test_monitor_slow_request_is_not_lost(void **state)
{
    unsigned before;

    (void)state;
    start(5, 200, 400);
    eventually(verdict_now() == VERDICT_GOOD);
    atomic_store(&own.oldest, 1); /* since the clock began */
    before = counted(&dev.answered);
    eventually(counted(&dev.answered) >= before + 10);
    assert_int_equal(verdict_now(), VERDICT_GOOD);
}

static void
test_monitor_answered_requests_contradict_a_hung_probe(void **state)
{
    struct monitor_status st;

    (void)state;
    start(10, 50, 100);
    eventually(verdict_now() == VERDICT_GOOD);
    /* told as answers of the far future: always recent */
    atomic_store(&own.answered, clock_ms() + 3600000);
    SET(hang, true);
    eventually((monitor_get(own.m, &st), st.probes_stuck == 2));
    assert_int_equal(st.verdict.state, VERDICT_DEGRADED);
    atomic_store(&own.answered, 1);
    eventually(verdict_now() == VERDICT_LOST);
}

static void
test_monitor_tells_what_changed_on_the_lun(void **state)
{
    unsigned changes;

    (void)state;
    start(3600000, 7200000, 7200000);
    eventually(verdict_now() == VERDICT_GOOD);
    changes = atomic_load(&own.changes);
    SET(st.inflight, 5); /* no news */
    monitor_kick(own.m);
    SET(st.registration, LUN_FENCED);
    monitor_kick(own.m);
    eventually(atomic_load(&own.changes) == changes + 1);
    SET(st.orphans, 1);
    monitor_kick(own.m);
    eventually(atomic_load(&own.changes) == changes + 2);
    SET(st.size, 2 << 20);
    monitor_kick(own.m);
    eventually(atomic_load(&own.changes) == changes + 3);
}

/* ---- the registration ---------------------------------------------------- */

static void
test_monitor_checks_only_a_registration_that_can_be_seen(void **state)
{
    (void)state;
    start(10, 100, 200);
    eventually(verdict_now() == VERDICT_GOOD);
    assert_int_equal(counted(&dev.checks), 0);
    SET(st.registration, LUN_REGISTERED);
    eventually(counted(&dev.checks) == 1);
}

static void
test_monitor_checks_at_once_when_paths_come_back(void **state)
{
    uint64_t back;
    unsigned checks;

    (void)state;
    dev.st.registration = LUN_REGISTERED;
    start(10, 100, 200);
    eventually(counted(&dev.checks) >= 1);
    SET(st.paths_good, 0);
    eventually(verdict_now() == VERDICT_LOST);
    checks = counted(&dev.checks);
    SET(st.paths_good, 2);
    back = clock_ms();
    eventually(counted(&dev.checks) > checks);
    assert_true(clock_ms() - back < 900);
}

static void
test_monitor_judges_and_stops_while_a_check_hangs(void **state)
{
    uint64_t before;

    (void)state;
    dev.st.registration = LUN_REGISTERED;
    dev.check_hangs_ms = -1;
    dev.hang = false;
    start(10, 100, 200);
    eventually(counted(&dev.checks) >= 1);
    before = clock_ms();
    SET(hang, true);
    SET(st.paths_good, 0);
    monitor_kick(own.m);
    eventually(verdict_now() == VERDICT_LOST);
    monitor_stop(own.m);
    own.m = NULL;
    assert_true(clock_ms() - before < 1000);
}

/* ---- the pace ------------------------------------------------------------ */

static unsigned
usual_us(void)
{
    struct monitor_status st;

    monitor_get(own.m, &st);
    return st.usual_us;
}

static void
start_with_a_past(void)
{
    own.slow =
        (struct slow_options){.factor = 2, .least_ms = 40, .window_ms = 100};
    start(10, 2000, 3000);
    /* more windows than a test makes slow ones, which become usual, too */
    eventually(usual_us() > 0 && counted(&dev.answered) >= 250);
}

/* The device answers each probe after at least so long. */
static bool
verdict_of_slow_device(unsigned ms, enum verdict_state wanted)
{
    uint64_t give_up = clock_ms() + PATIENCE_MS;

    SET(hang, true);
    while (verdict_now() != wanted && clock_ms() < give_up) {
        poll(NULL, 0, (int)ms);
        let_go(PROBER_MAX);
    }
    SET(hang, false);
    let_go(PROBER_MAX);
    return verdict_now() == wanted;
}

static void
test_monitor_slow_device_is_told_and_forgotten(void **state)
{
    struct monitor_status st;

    (void)state;
    start_with_a_past();
    atomic_store(&own.changes, 0);
    assert_true(verdict_of_slow_device(200, VERDICT_SLOW));
    monitor_get(own.m, &st);
    assert_true(st.recent_us >= 40000);
    assert_true(st.usual_us < st.recent_us);
    assert_non_null(strstr(st.verdict.reason, "probes take"));
    assert_true(atomic_load(&own.changes) >= 1);
    eventually(verdict_now() == VERDICT_GOOD);
}

/* The owner's requests are as quick as ever. */
static void
test_monitor_quick_requests_are_asked_for(void **state)
{
    struct monitor_status st;
    unsigned sent;

    (void)state;
    atomic_store(&own.quick, true);
    start_with_a_past();
    sent = counted(&dev.answered);
    SET(hang, true);
    while (counted(&dev.answered) < sent + 6) {
        poll(NULL, 0, 100);
        let_go(PROBER_MAX);
        assert_int_not_equal(verdict_now(), VERDICT_SLOW);
    }
    monitor_get(own.m, &st);
    assert_true(st.recent_us >= 40000);
    atomic_store(&own.quick, false);
    assert_true(verdict_of_slow_device(200, VERDICT_SLOW));
}

/* A device that hung and came back was lost, not slow. */
static void
test_monitor_lost_device_is_not_slow_afterwards(void **state)
{
    (void)state;
    start_with_a_past();
    SET(hang, true);
    eventually(verdict_now() == VERDICT_LOST);
    SET(hang, false);
    let_go(PROBER_MAX);
    eventually(verdict_now() != VERDICT_LOST);
    for (uint64_t until = clock_ms() + 4 * 100; clock_ms() < until;) {
        assert_int_not_equal(verdict_now(), VERDICT_SLOW);
        poll(NULL, 0, 1);
    }
}

static void
test_monitor_stop_without_a_monitor_is_fine(void **state)
{
    (void)state;
    monitor_stop(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_monitor_probes_read_the_first_block),
        TEST(test_monitor_sends_nothing_before_the_lun_is_known),
        TEST(test_monitor_lost_paths_fail_what_the_map_queues),
        TEST(test_monitor_leaves_two_hung_probes_and_sends_no_third),
        TEST(test_monitor_hung_device_is_lost_in_time),
        TEST(test_monitor_probe_error_is_lost),
        TEST(test_monitor_without_a_path_probes_rarely),
        TEST(test_monitor_kick_judges_at_once),
        TEST(test_monitor_path_error_is_lost_until_a_later_probe),
        TEST(test_monitor_other_errors_change_nothing),
        TEST(test_monitor_kicks_in_crowds_are_no_crowd_of_probes),
        TEST(test_monitor_slow_request_is_not_lost),
        TEST(test_monitor_answered_requests_contradict_a_hung_probe),
        TEST(test_monitor_tells_what_changed_on_the_lun),
        TEST(test_monitor_checks_only_a_registration_that_can_be_seen),
        TEST(test_monitor_checks_at_once_when_paths_come_back),
        TEST(test_monitor_judges_and_stops_while_a_check_hangs),
        TEST(test_monitor_slow_device_is_told_and_forgotten),
        TEST(test_monitor_quick_requests_are_asked_for),
        TEST(test_monitor_lost_device_is_not_slow_afterwards),
        TEST(test_monitor_stop_without_a_monitor_is_fine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
