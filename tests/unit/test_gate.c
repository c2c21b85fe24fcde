/* SPDX-License-Identifier: BSD-3-Clause */
/* The gate: who may enter the route, who waits for whom, and how those inside
 * are counted, interrupted and waited for. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "lun/backend.h"
#include "plugin/gate.h"
#include "plugin/route.h"

#define PATIENCE_MS 10000

/* A queue is no more than an address here. */
static atomic_uint interrupts;
static struct lun_queue *last_interrupted;

void __wrap_lun_queue_interrupt(struct lun_queue *q);

void
__wrap_lun_queue_interrupt(struct lun_queue *q)
{
    last_interrupted = q;
    atomic_fetch_add(&interrupts, 1);
}

static struct lun_queue *
queue(uintptr_t n)
{
    return (struct lun_queue *)(n * 64);
}

static struct gate_request
a_write(uint64_t offset, uint64_t count)
{
    return (struct gate_request){
        .writes = true, .offset = offset, .count = count};
}

static struct gate_request
a_read(uint64_t offset, uint64_t count)
{
    return (struct gate_request){.offset = offset, .count = count};
}

static int
setup(void **state)
{
    static struct gate g;

    gate_init(&g);
    atomic_store(&interrupts, 0);
    *state = &g;
    return 0;
}

static int
teardown(void **state)
{
    gate_fini(*state);
    return 0;
}

/* ---- a worker: one request that enters in a thread of its own ----------- */

struct worker {
    struct gate *g;
    struct gate_request rq;
    unsigned limit_ms;
    pthread_t thread;
    int result;
    atomic_bool entered;
};

static void *
enter(void *opaque)
{
    struct worker *w = opaque;

    w->result = gate_enter(w->g, &w->rq, w->limit_ms);
    atomic_store(&w->entered, true);
    return NULL;
}

static void
wait_held(struct gate *g, unsigned n)
{
    uint64_t deadline = clock_ms() + PATIENCE_MS;
    struct gate_stats st;

    for (;;) {
        gate_get_stats(g, &st);
        if (st.held == n)
            return;
        assert_true(clock_ms() < deadline);
        usleep(500);
    }
}

/* Start w and wait until it is held as the nth. */
static void
start_held(struct worker *w, struct gate *g, struct gate_request rq, unsigned n)
{
    memset(w, 0, sizeof *w);
    w->g = g;
    w->rq = rq;
    assert_int_equal(pthread_create(&w->thread, NULL, enter, w), 0);
    wait_held(g, n);
    assert_false(atomic_load(&w->entered));
}

static int
join(struct worker *w)
{
    pthread_join(w->thread, NULL);
    return w->result;
}

static void
leave_and_finish(struct gate *g, struct gate_request *rq)
{
    gate_leave(g, rq, false);
    gate_finish(g, rq);
}

static void
open_local(struct gate *g)
{
    gate_open_local(g, 7);
}

/* ---- routes ------------------------------------------------------------- */

static void
test_gate_holds_until_it_is_opened(void **state)
{
    struct gate *g = *state;
    struct worker w;

    start_held(&w, g, a_read(0, 512), 1);
    open_local(g);
    assert_int_equal(join(&w), 0);
    assert_int_equal(w.rq.route.where, GATE_LOCAL);
    assert_int_equal(w.rq.route.registration_no, 7);
    assert_int_equal(w.rq.route.serial, 1);
    leave_and_finish(g, &w.rq);
}

static void
test_gate_each_opening_has_its_own_serial(void **state)
{
    struct gate *g = *state;
    struct session *s = (struct session *)queue(3);
    struct gate_request rq = a_read(0, 512);

    open_local(g);
    gate_hold(g);
    gate_open_peer(g, 3, s);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    assert_int_equal(rq.route.where, GATE_PEER);
    assert_int_equal(rq.route.serial, 2);
    assert_ptr_equal(rq.route.session, s);
    leave_and_finish(g, &rq);
}

static void
test_gate_held_too_long_fails(void **state)
{
    struct gate *g = *state;
    struct gate_request rq = a_write(0, 512);
    uint64_t begun = clock_ms();

    assert_int_equal(gate_enter(g, &rq, 30), -EIO);
    assert_true(clock_ms() >= begun + 30);
    /* the limit counts from the first try */
    begun = clock_ms();
    assert_int_equal(gate_enter(g, &rq, 30), -EIO);
    assert_true(clock_ms() < begun + 30);
    gate_finish(g, &rq);
    /* nothing of it is left in anybody's way */
    open_local(g);
    rq = a_write(0, 512);
    assert_int_equal(gate_enter(g, &rq, 1), 0);
    leave_and_finish(g, &rq);
}

static void
test_gate_comes_back_to_look(void **state)
{
    struct gate *g = *state;
    struct gate_request rq = a_write(0, 512), other = a_write(512, 512);

    rq.look_ms = 10;
    assert_int_equal(gate_enter(g, &rq, 0), -EAGAIN);
    assert_true(rq.waited);
    /* the limit counts all the same */
    rq.look_ms = 10000;
    assert_int_equal(gate_enter(g, &rq, 30), -EIO);
    open_local(g);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    assert_true(rq.waited);
    leave_and_finish(g, &rq);

    assert_int_equal(gate_enter(g, &other, 0), 0);
    assert_false(other.waited);
    gate_leave(g, &other, false);
    assert_int_equal(gate_enter(g, &other, 0), 0);
    assert_true(other.waited);
    leave_and_finish(g, &other);
}

static void
test_gate_closed_refuses_those_who_wait_and_come(void **state)
{
    struct gate *g = *state;
    struct gate_request rq = a_read(0, 512);
    struct worker w;

    start_held(&w, g, a_read(0, 512), 1);
    gate_close(g);
    assert_int_equal(join(&w), -ESHUTDOWN);
    gate_finish(g, &w.rq);
    assert_int_equal(gate_enter(g, &rq, 0), -ESHUTDOWN);
    gate_finish(g, &rq);
    open_local(g); /* for ever */
    gate_hold(g);
    assert_int_equal(gate_enter(g, &rq, 0), -ESHUTDOWN);
    gate_finish(g, &rq);
}

/* Its waiters never come out: a gate and threads that are left behind. */
static void
test_gate_sealed_keeps_those_who_wait_and_come(void **state)
{
    static struct gate g;
    static struct worker waits, comes;

    (void)state;
    gate_init(&g);
    start_held(&waits, &g, a_write(0, 512), 1);
    gate_seal(&g);
    open_local(&g);
    gate_close(&g);
    start_held(&comes, &g, a_read(0, 512), 2);
    assert_false(atomic_load(&waits.entered));
    assert_true(gate_still(&g, clock_ms() + PATIENCE_MS));
    pthread_detach(waits.thread);
    pthread_detach(comes.thread);
}

static void
test_gate_sealed_lets_those_inside_finish(void **state)
{
    static struct gate g;
    struct gate_request rq = a_write(0, 512);

    (void)state;
    gate_init(&g);
    open_local(&g);
    assert_int_equal(gate_enter(&g, &rq, 0), 0);
    gate_seal(&g);
    assert_true(gate_is_held(&g));
    assert_false(gate_drain(&g, clock_ms()));
    assert_false(gate_still(&g, clock_ms()));
    gate_leave(&g, &rq, false); /* it may go on outside */
    assert_true(gate_drain(&g, clock_ms()));
    assert_false(gate_still(&g, clock_ms()));
    gate_finish(&g, &rq);
    assert_true(gate_still(&g, clock_ms()));
    gate_fini(&g);
}

static void
test_gate_only_one_report_holds_an_opening(void **state)
{
    struct gate *g = *state;

    assert_false(gate_hold_serial(g, 0));
    open_local(g);
    assert_false(gate_hold_serial(g, 0));
    assert_false(gate_hold_serial(g, 2));
    assert_true(gate_hold_serial(g, 1));
    assert_false(gate_hold_serial(g, 1));
    open_local(g);
    assert_false(gate_hold_serial(g, 1)); /* a late report */
    assert_true(gate_hold_serial(g, 2));
    gate_close(g);
    assert_false(gate_hold_serial(g, 2));
}

/* ---- older writes ------------------------------------------------------- */

static void
test_gate_overlapping_write_waits_for_the_answer(void **state)
{
    struct gate *g = *state;
    struct gate_request old = a_write(4096, 4096);
    struct worker w;

    open_local(g);
    assert_int_equal(gate_enter(g, &old, 0), 0);
    start_held(&w, g, a_write(8191, 1), 1);
    /* that the older one has left the route is not enough: it comes again */
    gate_leave(g, &old, false);
    assert_int_equal(gate_enter(g, &old, 0), 0);
    gate_leave(g, &old, false);
    wait_held(g, 1);
    assert_false(atomic_load(&w.entered));
    gate_finish(g, &old);
    assert_int_equal(join(&w), 0);
    leave_and_finish(g, &w.rq);
}

static void
test_gate_neighbours_and_reads_do_not_wait(void **state)
{
    struct gate *g = *state;
    struct gate_request old = a_write(4096, 4096);
    struct gate_request others[] = {a_write(0, 4096), a_write(8192, 512),
                                    a_read(4096, 4096), a_read(0, 16384)};

    open_local(g);
    assert_int_equal(gate_enter(g, &old, 0), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(gate_enter(g, &others[i], 1), 0);
    for (size_t i = 0; i < 4; i++)
        leave_and_finish(g, &others[i]);
    leave_and_finish(g, &old);
}

static void
test_gate_write_does_not_wait_for_reads(void **state)
{
    struct gate *g = *state;
    struct gate_request rd = a_read(0, 4096), wr = a_write(0, 4096);

    open_local(g);
    assert_int_equal(gate_enter(g, &rd, 0), 0);
    assert_int_equal(gate_enter(g, &wr, 1), 0);
    leave_and_finish(g, &rd);
    leave_and_finish(g, &wr);
}

/* Both are held; when the gate opens the older one goes first, and keeps its
 * age when its route fails. */
static void
test_gate_held_writes_go_in_order_of_age(void **state)
{
    struct gate *g = *state;
    struct worker old, young;

    start_held(&old, g, a_write(0, 8192), 1);
    start_held(&young, g, a_write(4096, 8192), 2);
    open_local(g);
    assert_int_equal(join(&old), 0);
    wait_held(g, 1);
    assert_false(atomic_load(&young.entered));
    assert_true(gate_hold_serial(g, 1)); /* the route has failed */
    gate_leave(g, &old.rq, true);
    open_local(g);
    assert_int_equal(gate_enter(g, &old.rq, 0), 0);
    assert_false(atomic_load(&young.entered));
    leave_and_finish(g, &old.rq);
    assert_int_equal(join(&young), 0);
    leave_and_finish(g, &young.rq);
}

/* A chain: the youngest overlaps only the middle one. */
static void
test_gate_a_waiting_write_is_waited_for(void **state)
{
    struct gate *g = *state;
    struct gate_request first = a_write(0, 4096);
    struct worker second, third;

    open_local(g);
    assert_int_equal(gate_enter(g, &first, 0), 0);
    start_held(&second, g, a_write(2048, 4096), 1);
    start_held(&third, g, a_write(5120, 4096), 2);
    leave_and_finish(g, &first);
    assert_int_equal(join(&second), 0);
    wait_held(g, 1);
    assert_false(atomic_load(&third.entered));
    leave_and_finish(g, &second.rq);
    assert_int_equal(join(&third), 0);
    leave_and_finish(g, &third.rq);
}

/* ---- leaving ------------------------------------------------------------ */

static void *
drain(void *opaque)
{
    struct worker *w = opaque;

    w->result = gate_drain(w->g, clock_ms() + PATIENCE_MS);
    return NULL;
}

static void
test_gate_drains_when_the_last_has_left(void **state)
{
    struct gate *g = *state;
    struct gate_request one = a_read(0, 512), two = a_read(0, 512);
    struct worker d = {.g = g};

    assert_true(gate_drain(g, 1)); /* nobody is inside */
    open_local(g);
    assert_int_equal(gate_enter(g, &one, 0), 0);
    assert_int_equal(gate_enter(g, &two, 0), 0);
    gate_hold(g);
    assert_false(gate_drain(g, clock_ms() + 10));
    pthread_create(&d.thread, NULL, drain, &d);
    gate_leave(g, &one, false);
    gate_leave(g, &two, false);
    assert_true(join(&d));
    gate_finish(g, &one);
    gate_finish(g, &two);
}

static void
test_gate_cut_interrupts_who_waits_inside(void **state)
{
    struct gate *g = *state;
    struct gate_request waits = a_write(0, 512), thinks = a_write(512, 512),
                        gone = a_write(1024, 512);

    open_local(g);
    assert_int_equal(gate_enter(g, &waits, 0), 0);
    assert_int_equal(gate_enter(g, &thinks, 0), 0);
    assert_int_equal(gate_enter(g, &gone, 0), 0);
    assert_true(gate_wait_on(g, &waits, queue(1)));
    assert_true(gate_wait_on(g, &gone, queue(2)));
    gate_leave(g, &gone, false);
    assert_false(gate_is_cut(g));
    gate_cut(g);
    assert_int_equal(atomic_load(&interrupts), 1);
    assert_ptr_equal(last_interrupted, queue(1));
    assert_true(gate_is_cut(g));
    /* too late to start */
    assert_false(gate_wait_on(g, &thinks, queue(3)));
    gate_leave(g, &thinks, false);
    /* gave up: its queue may be destroyed from now on */
    gate_wait_on(g, &waits, NULL);
    gate_cut(g);
    assert_int_equal(atomic_load(&interrupts), 1);
    gate_leave(g, &waits, true);
    assert_true(gate_drain(g, 1));
    open_local(g);
    assert_false(gate_is_cut(g));
    gate_finish(g, &waits);
    gate_finish(g, &thinks);
    gate_finish(g, &gone);
}

/* Its queue of the last time may be gone by now. */
static void
test_gate_cut_spares_who_has_not_begun_to_wait(void **state)
{
    struct gate *g = *state;
    struct gate_request rq = a_write(0, 512);

    open_local(g);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    assert_true(gate_wait_on(g, &rq, queue(1)));
    gate_leave(g, &rq, false);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    gate_cut(g);
    assert_int_equal(atomic_load(&interrupts), 0);
    leave_and_finish(g, &rq);
}

static void
test_gate_held_route_takes_no_new_start(void **state)
{
    struct gate *g = *state;
    struct gate_request rq = a_write(0, 512);

    open_local(g);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    gate_hold(g);
    assert_false(gate_wait_on(g, &rq, queue(1)));
    leave_and_finish(g, &rq);
}

static void
test_gate_remembers_an_unanswered_write(void **state)
{
    struct gate *g = *state;
    struct gate_request one = a_write(0, 512), two = a_write(512, 512);

    open_local(g);
    assert_int_equal(gate_enter(g, &one, 0), 0);
    assert_int_equal(gate_enter(g, &two, 0), 0);
    gate_leave(g, &one, true);
    gate_leave(g, &two, false);
    assert_true(gate_dirty(g));
    gate_hold(g);
    assert_true(gate_dirty(g));
    open_local(g);
    assert_false(gate_dirty(g));
    gate_finish(g, &one);
    gate_finish(g, &two);
}

/* ---- what others see ---------------------------------------------------- */

static void
test_gate_tells_the_oldest_on_own_paths(void **state)
{
    struct gate *g = *state;
    struct gate_request one = a_read(0, 512), two = a_read(0, 512);
    struct gate_stats st;

    assert_int_equal(gate_oldest_ms(g), 0);
    open_local(g);
    assert_int_equal(gate_enter(g, &one, 0), 0);
    assert_int_equal(gate_enter(g, &two, 0), 0);
    one.entered_ms -= 300;
    two.entered_ms -= 100;
    assert_int_equal(gate_oldest_ms(g), one.entered_ms);
    gate_get_stats(g, &st);
    assert_int_equal(st.inside, 2);
    assert_true(st.oldest_inside_ms >= 300);
    leave_and_finish(g, &one);
    assert_int_equal(gate_oldest_ms(g), two.entered_ms);
    leave_and_finish(g, &two);
    assert_int_equal(gate_oldest_ms(g), 0);
    gate_get_stats(g, &st);
    assert_int_equal(st.answered, 2);

    /* a peer's slowness says nothing about our own paths */
    gate_hold(g);
    gate_open_peer(g, 0, (struct session *)queue(1));
    one = a_read(0, 512);
    assert_int_equal(gate_enter(g, &one, 0), 0);
    assert_int_equal(gate_oldest_ms(g), 0);
    leave_and_finish(g, &one);
}

/* ---- orphans ------------------------------------------------------------ */

/* A write that has left and was not answered; its io, if any, is under way
 * on our own paths. */
static void
lose_write(struct gate *g, struct gate_request *rq, struct lun_io *io)
{
    rq->orphan = orphan_create();
    assert_non_null(rq->orphan);
    assert_int_equal(gate_enter(g, rq, 0), 0);
    if (io) {
        *io = (struct lun_io){.op = LUN_WRITE, .tally = rq->orphan->tally};
        lun_tally_begin(io);
    }
    gate_hold(g);
    gate_leave(g, rq, true);
}

static bool
goes_in(struct gate *g, struct gate_request rq)
{
    int r = gate_enter(g, &rq, 1);

    if (r == 0)
        gate_leave(g, &rq, false);
    gate_finish(g, &rq);
    return r == 0;
}

static void
test_gate_orphan_holds_what_overlaps_it(void **state)
{
    struct gate *g = *state;
    struct gate_request lost = a_write(4096, 4096);
    struct gate_stats st;
    struct worker w;
    struct lun_io io;

    open_local(g);
    lose_write(g, &lost, &io);
    assert_null(lost.orphan); /* the gate has it */
    gate_finish(g, &lost);    /* even though the VM got its answer */
    gate_open_peer(g, 0, (struct session *)queue(1));
    assert_true(goes_in(g, a_write(0, 4096)));
    assert_true(goes_in(g, a_write(8192, 4096)));
    assert_true(goes_in(g, a_read(4096, 4096)));
    assert_false(goes_in(g, a_write(0, 4097)));
    gate_get_stats(g, &st);
    assert_int_equal(st.orphans, 1);

    start_held(&w, g, a_write(8191, 512), 1);
    assert_int_equal(gate_settle(g), 1);
    assert_false(atomic_load(&w.entered));
    lun_tally_end(&io);
    assert_int_equal(gate_settle(g), 0);
    assert_int_equal(join(&w), 0);
    leave_and_finish(g, &w.rq);
}

/* The same request, tried again: its answer would allow others to write what
 * the orphan then takes back. */
static void
test_gate_orphan_holds_its_own_next_try(void **state)
{
    struct gate *g = *state;
    struct gate_request lost = a_write(0, 512);

    gate_open_peer(g, 2, (struct session *)queue(1));
    lose_write(g, &lost, NULL);
    gate_open_local(g, 7);
    assert_int_equal(gate_enter(g, &lost, 1), -EIO);
    assert_int_equal(gate_clear(g, 1, 1), 0); /* of another peer */
    assert_int_equal(gate_enter(g, &lost, 1), -EIO);
    assert_int_equal(gate_clear(g, 2, gate_serial(g) - 1), 0);
    lost.begun_ms = clock_ms();
    assert_int_equal(gate_enter(g, &lost, PATIENCE_MS), 0);
    leave_and_finish(g, &lost);
}

/* A peer's word is about what was sent before it was asked. */
static void
test_gate_clear_spares_later_openings(void **state)
{
    struct gate *g = *state;
    struct gate_request first = a_write(0, 512), second = a_write(4096, 512);

    gate_open_peer(g, 2, (struct session *)queue(1));
    lose_write(g, &first, NULL);
    gate_finish(g, &first);
    gate_open_peer(g, 2, (struct session *)queue(1));
    lose_write(g, &second, NULL);
    gate_finish(g, &second);
    gate_open_local(g, 7);
    assert_int_equal(gate_clear(g, 2, 1), 1);
    assert_true(goes_in(g, a_write(0, 512)));
    assert_false(goes_in(g, a_write(4096, 512)));
}

/* It came back, with an error of the paths: nothing is under way. */
static void
test_gate_write_that_came_back_is_no_orphan(void **state)
{
    struct gate *g = *state;
    struct gate_request failed = a_write(0, 512);

    open_local(g);
    lose_write(g, &failed, NULL);
    assert_non_null(failed.orphan); /* for the next one */
    orphan_destroy(failed.orphan);
    assert_true(gate_dirty(g));
    gate_finish(g, &failed);
    gate_open_local(g, 8);
    assert_true(goes_in(g, a_write(0, 512)));
}

/* ---- all at once -------------------------------------------------------- */

#define BLOCKS  16
#define WORKERS 8
#define ROUNDS  2000

struct crowd {
    struct gate g;
    atomic_int writers[BLOCKS]; /* between gate_enter and gate_finish */
    atomic_int lost[BLOCKS];    /* orphans that were not cleared */
    atomic_ulong inside;        /* of the present opening */
    atomic_ulong broken;        /* a rule was */
    atomic_uint working;        /* workers that have not ended */
    atomic_ulong rounds;
};

static void
check(struct crowd *c, bool holds)
{
    if (!holds)
        atomic_fetch_add(&c->broken, 1);
}

/* Every other write that a peer does not answer leaves its range behind. */
static void
perhaps_lost(struct crowd *c, struct gate_request *rq, unsigned *seed)
{
    if (rq->route.where != GATE_PEER || rand_r(seed) % 2)
        return;
    rq->orphan = orphan_create();
    for (uint64_t b = rq->offset; b < rq->offset + rq->count; b++)
        atomic_fetch_add(&c->lost[b], 1);
}

/* One request; the first tries of some fail, as on a route that is left. */
static void
one_request(struct crowd *c, unsigned *seed)
{
    unsigned first = (unsigned)rand_r(seed) % BLOCKS;
    unsigned n = 1 + (unsigned)rand_r(seed) % (BLOCKS - first);
    struct gate_request rq = a_write(first, n);
    unsigned tries = 1 + (unsigned)rand_r(seed) % 2;

    for (unsigned i = 0; i < tries; i++) {
        check(c, gate_enter(&c->g, &rq, 0) == 0);
        atomic_fetch_add(&c->inside, 1);
        for (unsigned b = first; i == 0 && b < first + n; b++)
            check(c, atomic_fetch_add(&c->writers[b], 1) == 0);
        for (unsigned b = first; b < first + n; b++)
            check(c, atomic_load(&c->lost[b]) == 0);
        gate_wait_on(&c->g, &rq, queue(1));
        if (i + 1 < tries)
            perhaps_lost(c, &rq, seed);
        atomic_fetch_sub(&c->inside, 1);
        gate_leave(&c->g, &rq, i + 1 < tries);
    }
    for (unsigned b = first; b < first + n; b++)
        atomic_fetch_sub(&c->writers[b], 1);
    gate_finish(&c->g, &rq);
}

static void *
crowd_worker(void *opaque)
{
    struct crowd *c = opaque;
    unsigned seed = (unsigned)atomic_fetch_add(&c->working, 1);

    for (int i = 0; i < ROUNDS; i++)
        one_request(c, &seed);
    atomic_fetch_add(&c->rounds, ROUNDS);
    return NULL;
}

/* Open, let them in, leave, and look that nobody stayed behind. */
static void
move_route(struct crowd *c, unsigned turn)
{
    if (turn % 2)
        gate_open_peer(&c->g, 0, NULL);
    else
        gate_open_local(&c->g, turn);
    sched_yield();
    if (turn % 3)
        gate_hold(&c->g);
    else
        gate_cut(&c->g);
    check(c, gate_drain(&c->g, clock_ms() + PATIENCE_MS));
    check(c, atomic_load(&c->inside) == 0);
    if (turn % 4)
        return;
    for (unsigned b = 0; b < BLOCKS; b++)
        atomic_store(&c->lost[b], 0);
    check(c, gate_clear(&c->g, 0, gate_serial(&c->g)) == 0);
}

static void
test_gate_a_crowd_keeps_the_rules(void **state)
{
    static struct crowd c;
    pthread_t threads[WORKERS];
    unsigned turn = 0;

    (void)state;
    gate_init(&c.g);
    for (int i = 0; i < WORKERS; i++)
        pthread_create(&threads[i], NULL, crowd_worker, &c);
    while (atomic_load(&c.rounds) < WORKERS * ROUNDS)
        move_route(&c, turn++);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&c.broken), 0);
    assert_int_equal(c.g.answered, WORKERS * ROUNDS);
    assert_null(c.g.first);
    assert_null(c.g.wlast);
    gate_fini(&c.g);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_gate_holds_until_it_is_opened),
        TEST(test_gate_each_opening_has_its_own_serial),
        TEST(test_gate_held_too_long_fails),
        TEST(test_gate_comes_back_to_look),
        TEST(test_gate_closed_refuses_those_who_wait_and_come),
        TEST(test_gate_sealed_keeps_those_who_wait_and_come),
        TEST(test_gate_sealed_lets_those_inside_finish),
        TEST(test_gate_only_one_report_holds_an_opening),
        TEST(test_gate_overlapping_write_waits_for_the_answer),
        TEST(test_gate_neighbours_and_reads_do_not_wait),
        TEST(test_gate_write_does_not_wait_for_reads),
        TEST(test_gate_held_writes_go_in_order_of_age),
        TEST(test_gate_a_waiting_write_is_waited_for),
        TEST(test_gate_drains_when_the_last_has_left),
        TEST(test_gate_cut_interrupts_who_waits_inside),
        TEST(test_gate_cut_spares_who_has_not_begun_to_wait),
        TEST(test_gate_held_route_takes_no_new_start),
        TEST(test_gate_remembers_an_unanswered_write),
        TEST(test_gate_tells_the_oldest_on_own_paths),
        TEST(test_gate_orphan_holds_what_overlaps_it),
        TEST(test_gate_orphan_holds_its_own_next_try),
        TEST(test_gate_clear_spares_later_openings),
        TEST(test_gate_write_that_came_back_is_no_orphan),
        TEST(test_gate_a_crowd_keeps_the_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
