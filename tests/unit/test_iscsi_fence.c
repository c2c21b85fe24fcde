/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of the right to write over iscsi, against a real target (tgtd):
 * registering, fencing and being fenced. */
#include "tests/unit/iscsi_fencing.h"

/* ---- the right to write ------------------------------------------------- */

static void
test_write_needs_the_present_registration(void **state)
{
    struct host h;
    struct lun_io *io;

    (void)state;
    host_up(&h, 1, 2);
    assert_int_equal(lun_register(h.lun, soon()), 0); /* kept as it is */
    assert_int_equal(status_of(&h).registration_no, 1);
    io = make_io(&h, LUN_WRITE, 0, BLOCK);
    memset(io->data, 0, BLOCK);
    io->registration_no = 2;
    assert_int_equal(run_io(&h, io), -EBADE);
    assert_int_equal(lun_fence(h.lun, 1, soon()), -EINVAL);
    assert_int_equal(host_down(&h), 0);
}

static void
test_fenced_host_stops_and_registers_anew(void **state)
{
    struct host a;
    struct host b;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    assert_int_equal(write_byte(&a, 0, 1), 0);
    assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
    assert_int_equal(keys_of(1), 0);
    assert_int_equal(write_byte(&a, 0, 2), -EBADE);
    await(&a, st.registration == LUN_FENCED);
    assert_int_equal(read_byte(&a, 0), 1);
    assert_int_equal(lun_fence(a.lun, 2, soon()), -EBADE);
    assert_int_equal(lun_register(a.lun, soon()), 0);
    assert_int_equal(status_of(&a).registration_no, 2);
    assert_int_equal(write_byte(&a, 0, 3), 0);
    assert_int_equal(read_byte(&b, 0), 3);
    assert_int_equal(status_of(&b).registration_no, 1);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

static void
test_check_finds_a_fence(void **state)
{
    struct host a;
    struct host b;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    assert_int_equal(lun_check_registration(a.lun, soon()), 0);
    assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
    assert_int_equal(lun_check_registration(a.lun, soon()), -EBADE);
    assert_int_equal(status_of(&a).registration, LUN_FENCED);
    assert_int_equal(lun_check_registration(b.lun, soon()), 0);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

/* The first path's portal answers probes and no command; the other one does
 * what is asked, and is asked first from then on. */
static void
test_check_goes_on_to_another_path(void **state)
{
    struct host a;
    uint64_t begin_ms;

    (void)state;
    host_up(&a, 1, 2);
    await_joined(&a, 1, 2);
    deaf = "127.0.0.2";
    assert_int_equal(lun_check_registration(a.lun, clock_ms() + 3000), 0);
    begin_ms = clock_ms();
    assert_int_equal(lun_check_registration(a.lun, begin_ms + 10000), 0);
    assert_in_range(clock_ms() - begin_ms, 0, 4000);
    deaf = NULL;
    assert_int_equal(host_down(&a), 0);
}

static void
test_fence_goes_on_to_another_path(void **state)
{
    struct host a;
    struct host b;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    await_joined(&a, 1, 2);
    await_joined(&b, 2, 2);
    deaf = "127.0.0.2";
    assert_int_equal(lun_fence(a.lun, 2, clock_ms() + 4000), 0);
    deaf = NULL;
    assert_int_equal(keys_of(2), 0);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

/* Who asked us to fence has other peers to ask. */
static void
test_fence_is_given_up_when_no_path_is_left(void **state)
{
    uint64_t begun_ms;
    struct host a;

    (void)state;
    host_up(&a, 1, 2);
    await_keys(1, 2);
    san_cut(2);
    san_cut(3);
    begun_ms = clock_ms();
    assert_int_equal(lun_fence(a.lun, 2, clock_ms() + PATIENT_MS), -ENOLINK);
    assert_int_equal(status_of(&a).paths_good, 0);
    assert_true(clock_ms() - begun_ms < PATIENT_MS / 2);
    san_heal();
    await(&a, st.paths_good == 2);
    assert_int_equal(host_down(&a), 0);
}

/* tgtd refuses PREEMPT AND ABORT, and here LUN RESET as well: nothing can
 * end what a lost session has sent.  It is not asked for all the time. */
static void
test_refused_resets_are_not_asked_for_all_the_time(void **state)
{
    struct host a;
    struct lun_tally *t = lun_tally_create();
    unsigned n;

    (void)state;
    host_up(&a, 1, 2);
    await_keys(1, 2);
    refuses_reset = true;
    refusals = 0;
    san_mute(2);
    san_mute(3);
    lose_writes(&a, t, 0xAA);
    san_heal();
    for (uint64_t until_ms = soon(); refusals == 0; usleep(1000))
        assert_true(clock_ms() < until_ms);
    usleep(1200000);
    n = refusals;
    assert_in_range(n, 1, 4);
    assert_true(status_of(&a).orphans > 0);
    refuses_reset = false;
    await(&a, st.orphans == 0);
    assert_int_equal(lun_tally_count(t), 0);
    lun_tally_put(t);
    assert_int_equal(host_down(&a), 0);
}

static void
test_host_fenced_while_cut_off_finds_out(void **state)
{
    struct host a;
    struct host b;
    struct lun_tally *t = lun_tally_create();

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    san_mute(2);
    san_mute(3);
    lose_writes(&a, t, 0xAA);
    assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(write_byte(&b, i * BLOCK, 0xBB), 0);
    san_heal();
    await(&a, st.registration == LUN_FENCED && st.paths_good == 2);
    assert_int_equal(write_byte(&a, 0, 0xCC), -EBADE);
    assert_int_equal(lun_register(a.lun, soon()), 0);
    assert_int_equal(status_of(&a).orphans, 0);
    assert_int_equal(lun_tally_count(t), 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(read_byte(&a, i * BLOCK), 0xBB);
    lun_tally_put(t);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

/* One path has lost a write and the other is idle: what looks after the dead
 * session's key learns that there is none of ours any more. */
static void
test_fenced_with_a_dead_path_and_an_idle_one(void **state)
{
    struct host a;
    struct host b;
    struct lun_io *io = NULL;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    await_keys(1, 2);
    san_mute(2);
    for (int i = 0; i < 2 && !io; i++) { /* they take turns */
        struct lun_io *done;

        io = make_io(&a, LUN_WRITE, 0, BLOCK);
        memset(io->data, 0xAA, BLOCK);
        lun_submit(a.q, io);
        if (lun_reap(a.q, &done, 1, clock_ms() + 50) == 1) {
            lun_io_put(done);
            io = NULL;
        }
    }
    assert_non_null(io);
    assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
    assert_int_equal(lun_reap(a.q, &io, 1, soon()), 1);
    assert_int_equal(io->error, -EBADE);
    lun_io_put(io);
    assert_int_equal(status_of(&a).registration, LUN_FENCED);
    san_heal();
    assert_int_equal(lun_register(a.lun, soon()), 0);
    assert_int_equal(status_of(&a).orphans, 0);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

static struct host fencer;

static void
fence_from_aside(void)
{
    if (lun_fence(fencer.lun, 1, soon()) != 0 ||
        write_byte(&fencer, 0, 0xBB) != 0)
        abort();
}

/* The whole fence fits between a look at the keys and the REGISTER that
 * follows: the new key is there afterwards, but proves nothing. */
static void
test_register_behind_a_fence_does_not_join(void **state)
{
    struct host a;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&fencer, 2, 4);
    await_keys(1, 2);
    before_register = fence_from_aside;
    san_reset(2);
    await(&a, st.paths_good == 1);
    san_heal();
    await(&a, st.registration == LUN_FENCED);
    assert_null(before_register);
    assert_int_equal(write_byte(&a, 0, 0xAA), -EBADE);
    assert_int_equal(read_byte(&fencer, 0), 0xBB);
    assert_int_equal(lun_register(a.lun, soon()), 0);
    await_keys(1, 2);
    assert_int_equal(status_of(&a).registration_no, 2);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&fencer), 0);
}

static void
reset_lun_by(unsigned done)
{
    static struct host b;

    if (done == 100)
        host_up(&b, 2, 4);
    /* no such host has a key: only a LUN RESET proves that it is cut off */
    if (done % 100 == 50 && done > 100 && done < 1900)
        assert_int_equal(lun_fence(b.lun, 99, soon()), 0);
    if (done == 1950)
        assert_int_equal(host_down(&b), 0);
}

static void
test_reset_by_another_host_is_not_felt(void **state)
{
    struct host a;

    (void)state;
    host_up(&a, 1, 2);
    run_model(&a, 2000, 4, reset_lun_by);
    assert_int_equal(status_of(&a).registration_no, 1);
    assert_int_equal(host_down(&a), 0);
}

static void
test_foreign_reservation_is_not_touched(void **state)
{
    char device[] = "iscsi://127.0.0.2/" SAN_IQN "/1";
    struct host h;
    struct lun_options opt = host_options(&h, 1, device);

    (void)state;
    assert_true(
        san_reserve(4, 0x1234, SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE));
    host_open(&h, &opt);
    await(&h, st.paths_known == 1);
    assert_int_equal(lun_register(h.lun, clock_ms() + 3000), -EBUSY);
    assert_int_equal(status_of(&h).registration, LUN_UNREGISTERED);
    assert_true(san_clear(4, 0x4321));
    assert_int_equal(lun_register(h.lun, soon()), 0);
    assert_int_equal(host_down(&h), 0);
}

/* ---- fence against reconnect -------------------------------------------- */

struct racer {
    struct host h;
    atomic_bool stop;
    atomic_uint written;
    uint64_t number;
};

/* Writes 0xAA under one registration for as long as that is admitted. */
static void *
race_writer(void *opaque)
{
    struct racer *r = opaque;
    struct lun_queue *q = lun_queue_create(r->h.lun);
    int err = 0;

    while (err != -EBADE && !r->stop) {
        struct lun_io *io = lun_io_get(q, BLOCK);

        io->op = LUN_WRITE;
        io->flags = 0;
        io->offset = 0;
        io->count = BLOCK;
        io->tally = NULL;
        io->registration_no = r->number;
        memset(io->data, 0xAA, BLOCK);
        if (!lun_run(q, io, soon()))
            abort();
        err = io->error;
        r->written += err == 0;
        lun_io_put(io);
        if (err == -ENOLINK)
            usleep(500);
    }
    lun_queue_destroy(q);
    return NULL;
}

/* Paths of host A come and go while B fences it and writes.  What A sent
 * before may not show up after what B wrote. */
static void
test_fence_against_reconnect(void **state)
{
    struct racer r = {.written = 0};
    struct host b;
    unsigned seed = 5;

    (void)state;
    host_up(&r.h, 1, 2);
    host_up(&b, 2, 4);
    for (int round = 0; round < 40; round++) {
        pthread_t writer;
        unsigned before = r.written;
        int mark = round % 100;

        r.number = status_of(&r.h).registration_no;
        pthread_create(&writer, NULL, race_writer, &r);
        while (r.written < before + 5)
            usleep(500);
        san_reset(2 + rand_r(&seed) % 2);
        if (round % 3 == 0)
            san_reset(2 + rand_r(&seed) % 2);
        usleep((useconds_t)rand_r(&seed) % 20000);
        if (round % 2)
            san_heal();
        assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
        assert_int_equal(write_byte(&b, 0, mark), 0);
        san_heal();
        for (int i = 0; i < 50; i++) {
            assert_int_equal(read_byte(&b, 0), mark);
            usleep(500);
        }
        await(&r.h, st.registration == LUN_FENCED);
        pthread_join(writer, NULL);
        assert_int_equal(read_byte(&b, 0), mark);
        assert_int_equal(lun_register(r.h.lun, soon()), 0);
        assert_true(status_of(&r.h).registration_no > r.number);
    }
    assert_int_equal(host_down(&r.h), 0);
    assert_int_equal(host_down(&b), 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        iscsi_test(test_write_needs_the_present_registration),
        iscsi_test(test_fenced_host_stops_and_registers_anew),
        iscsi_test(test_check_finds_a_fence),
        iscsi_test(test_check_goes_on_to_another_path),
        iscsi_test(test_fence_goes_on_to_another_path),
        iscsi_test(test_fence_is_given_up_when_no_path_is_left),
        iscsi_test(test_refused_resets_are_not_asked_for_all_the_time),
        iscsi_test(test_host_fenced_while_cut_off_finds_out),
        iscsi_test(test_fenced_with_a_dead_path_and_an_idle_one),
        iscsi_test(test_register_behind_a_fence_does_not_join),
        iscsi_test(test_reset_by_another_host_is_not_felt),
        iscsi_test(test_foreign_reservation_is_not_touched),
        iscsi_test(test_fence_against_reconnect),
    };

    (void)argc;
    return iscsi_tests("iscsi_fence", argv[0], tests,
                       sizeof(tests) / sizeof(tests[0]));
}
