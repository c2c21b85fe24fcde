/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of the right to write over iscsi, against a real target (tgtd), while
 * writes hang inside the target or get lost in its resets. */
#include "tests/unit/iscsi_fencing.h"

/* A loses its paths with a write that hangs in the target. */
static void
hang_write(struct hang *g, struct host *a)
{
    struct lun_io *io = make_io(a, LUN_WRITE, 0, BLOCK);

    memset(io->data, 0xAA, BLOCK);
    hang_say(g, "hold");
    lun_submit(a->q, io);
    for (uint64_t until_ms = soon(); hang_say(g, "held") == 0;)
        assert_true(clock_ms() < until_ms);
    san_mute(30);
    san_mute(31);
    assert_int_equal(lun_reap(a->q, &io, 1, soon()), 1);
    assert_int_equal(io->error, -ENOLINK);
    lun_io_put(io);
}

struct fencing {
    struct host *by;
    atomic_int result; /* 1: not yet */
};

static void *
fence_host_1(void *opaque)
{
    struct fencing *f = opaque;

    f->result = lun_fence(f->by->lun, 1, soon());
    return NULL;
}

/* A fence may not be over while the write hangs, not even one that finds the
 * key gone because an earlier fence has got half way. */
static void
fence_while_held(int halfway)
{
    struct hang g;
    struct host a;
    struct host b;
    struct fencing f = {.by = &b, .result = 1};
    pthread_t thread;

    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    host_up(&a, 1, 30);
    host_up(&b, 2, 32);
    hang_write(&g, &a);
    if (halfway) {
        assert_int_equal(lun_fence(b.lun, 1, clock_ms() + 500), -ETIMEDOUT);
        assert_int_equal(keys_over(32, 1), 0);
    }
    pthread_create(&thread, NULL, fence_host_1, &f);
    usleep(500000);
    assert_int_equal(f.result, 1);
    assert_int_equal(hang_say(&g, "held"), 1);
    hang_say(&g, "go");
    pthread_join(thread, NULL);
    assert_int_equal(f.result, 0);
    assert_int_equal(write_byte(&b, 0, 0xBB), 0);
    san_heal();
    assert_int_equal(read_byte(&b, 0), 0xBB);
    assert_int_equal(lun_register(a.lun, soon()), 0);
    assert_int_equal(status_of(&a).orphans, 0);
    assert_int_equal(read_byte(&a, 0), 0xBB);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
    hang_down(&g);
}

static void
test_fence_waits_for_writes_in_the_target(void **state)
{
    (void)state;
    fence_while_held(false);
}

static void
test_second_fence_waits_as_the_first_did(void **state)
{
    (void)state;
    fence_while_held(true);
}

/* The same for ourselves: a path dies with a write that hangs in the target.
 * It may not be acknowledged, nor a newer one, before that has ended. */
static void
test_no_write_passes_one_that_hangs_on_a_dead_path(void **state)
{
    struct hang g;
    struct host a;
    struct lun_io *io;
    struct lun_io *ios[4];
    int fd;

    (void)state;
    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    host_up(&a, 1, 30);
    hang_write(&g, &a);
    san_heal();
    await(&a, st.paths_good == 2);
    hang_say(&g, "hold");
    io = make_io(&a, LUN_WRITE, 0, BLOCK);
    memset(io->data, 0xBB, BLOCK);
    lun_submit(a.q, io);
    fd = lun_queue_fd(a.q);
    assert_true(fd >= 0);
    assert_int_equal(lun_reap(a.q, ios, 4, clock_ms() + 500), 0);
    assert_in_range(status_of(&a).orphans, 1, 2); /* perhaps a REGISTER */
    assert_int_equal(hang_say(&g, "held"), 1);
    hang_say(&g, "go");
    assert_int_equal(lun_reap(a.q, ios, 4, soon()), 1);
    assert_int_equal(ios[0]->error, 0);
    lun_io_put(ios[0]);
    assert_int_equal(read_byte(&a, 0), 0xBB);
    assert_int_equal(status_of(&a).registration_no, 1);
    assert_int_equal(host_down(&a), 0);
    hang_down(&g);
}

/* A write that was given up is in the target, and its path is fine: whoever
 * registers may write again only when it has ended. */
static void
test_registering_waits_for_what_was_abandoned(void **state)
{
    struct hang g;
    struct host h;
    struct lun_io *io;

    (void)state;
    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    host_up(&h, 1, 30);
    hang_say(&g, "hold");
    io = make_io(&h, LUN_WRITE, 0, BLOCK);
    memset(io->data, 0xAA, BLOCK);
    assert_false(lun_run(h.q, io, clock_ms() + 200));
    assert_int_equal(lun_register(h.lun, clock_ms() + 1000), -ETIMEDOUT);
    assert_int_equal(hang_say(&g, "held"), 1);
    hang_say(&g, "go");
    assert_int_equal(lun_register(h.lun, soon()), 0);
    assert_int_equal(status_of(&h).registration_no, 1);
    assert_int_equal(status_of(&h).orphans, 0);
    assert_int_equal(write_byte(&h, 0, 0xBB), 0);
    assert_int_equal(read_byte(&h, 0), 0xBB);
    assert_int_equal(host_down(&h), 0);
    hang_down(&g);
}

/* What a reset has dropped without an answer is found missing, also when more
 * resets follow without a pause. */
static void
test_command_lost_in_one_of_many_resets(void **state)
{
    char device[] = "iscsi://127.0.0.30/" SAN_IQN "/1";
    struct hang g;
    struct host h;
    struct lun_options opt = host_options(&h, 6, device);
    struct lun_path path = {.since_ms = 0};
    uint64_t begin_ms;
    struct lun_io *io;

    (void)state;
    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    host_open(&h, &opt);
    await(&h, st.paths_good == 1);
    assert_int_equal(lun_register(h.lun, soon()), 0);
    hang_say(&g, "hold");
    io = make_io(&h, LUN_WRITE, 0, BLOCK);
    memset(io->data, 0xAA, BLOCK);
    lun_submit(h.q, io);
    for (uint64_t until_ms = soon(); hang_say(&g, "held") == 0;)
        assert_true(clock_ms() < until_ms);
    begin_ms = clock_ms();
    always_reset = true;
    while (path.since_ms < begin_ms) {
        assert_true(clock_ms() < begin_ms + PATIENT_MS);
        lun_check_registration(h.lun, soon());
        usleep(100000);
        lun_get_paths(h.lun, &path, 1);
    }
    always_reset = false;
    hang_say(&g, "go");
    assert_int_equal(host_down(&h), 0);
    hang_down(&g);
}

/* Nor are our own commands waited for longer than a VM's. */
static void
test_own_command_lost_in_a_reset(void **state)
{
    struct host h;
    struct lun_path path = {.since_ms = 0};
    uint64_t begin_ms;

    (void)state;
    host_up(&h, 9, 2);
    await_joined(&h, 9, 2);
    deaf = "127.0.0.2";
    assert_int_equal(lun_check_registration(h.lun, clock_ms() + 3000), 0);
    begin_ms = clock_ms();
    always_reset = true;
    for (int i = 0; i < 2; i++) /* one on each path */
        (void)read_byte(&h, 0);
    always_reset = false;
    while (path.since_ms < begin_ms) {
        assert_true(clock_ms() < begin_ms + ISCSI_KEEPER_MS - 1000);
        usleep(10000);
        lun_get_paths(h.lun, &path, 1);
    }
    assert_string_equal(path.error, "a command was lost in a reset");
    deaf = NULL;
    assert_int_equal(host_down(&h), 0);
}

static atomic_bool reading;

static void *
read_on(void *opaque)
{
    struct host *h = opaque;

    while (reading) {
        struct lun_io *io[16], *got;

        for (size_t i = 0; i < 16; i++) {
            io[i] = make_io(h, LUN_READ, i * BLOCK, BLOCK);
            lun_submit(h->q, io[i]);
        }
        for (size_t n = 0; n < 16; n++) {
            assert_int_equal(lun_reap(h->q, &got, 1, soon()), 1);
            assert_int_equal(got->error, 0);
            lun_io_put(got);
        }
    }
    return NULL;
}

/* A reset drops the commands of the nexus that sends it, on some targets
 * without an answer: it has none then. */
static void
test_a_nexus_rests_before_it_resets(void **state)
{
    struct host a;
    struct host b;
    pthread_t thread;

    (void)state;
    host_up(&a, 10, 2);
    host_up(&b, 11, 4);
    resets = sent_at_resets = 0;
    reading = true;
    assert_int_equal(pthread_create(&thread, NULL, read_on, &a), 0);
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(lun_fence(a.lun, 11, soon()), 0);
        assert_true(resets >= i);
        assert_int_equal(lun_check_registration(b.lun, soon()), -EBADE);
        assert_int_equal(lun_register(b.lun, soon()), 0);
    }
    reading = false;
    pthread_join(thread, NULL);
    assert_int_equal(sent_at_resets, 0);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        iscsi_test(test_fence_waits_for_writes_in_the_target),
        iscsi_test(test_second_fence_waits_as_the_first_did),
        iscsi_test(test_no_write_passes_one_that_hangs_on_a_dead_path),
        iscsi_test(test_registering_waits_for_what_was_abandoned),
        iscsi_test(test_command_lost_in_one_of_many_resets),
        iscsi_test(test_own_command_lost_in_a_reset),
        iscsi_test(test_a_nexus_rests_before_it_resets),
    };

    (void)argc;
    return iscsi_tests("iscsi_held", argv[0], tests,
                       sizeof(tests) / sizeof(tests[0]));
}
