/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of what a process leaves behind at an iscsi target (tgtd) for the next
 * one of its name. */
#include "tests/unit/iscsi_fencing.h"

/* A process that was killed with writes under way, and its successor. */
static void
test_successor_fences_what_was_left(void **state)
{
    struct host h;
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        host_up(&h, 1, 2);
        await_keys(1, 2);
        for (unsigned i = 0; i < MANY; i++)
            lun_submit(h.q, make_io(&h, LUN_WRITE, i * BLOCK, BLOCK));
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    await_keys(1, 2);
    host_up(&h, 1, 2);
    await_keys(1, 2);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(write_byte(&h, i * BLOCK, 0xBB), 0);
    assert_int_equal(host_down(&h), 0);
}

/* Its kernel must not go on sending for a killed process. */
static void
test_killed_process_leaves_no_socket(void **state)
{
    struct host h;
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        host_up(&h, 1, 2);
        san_cut(2);
        san_cut(3);
        for (unsigned i = 0; i < MANY; i++)
            lun_submit(h.q, make_io(&h, LUN_WRITE, i * BLOCK, BLOCK));
        usleep(50000);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    /* what lingers would be in FIN-WAIT-1, sending again and again */
    assert_int_equal(san_run("ss -Htn state fin-wait-1 state last-ack "
                             "state closing 'dport = 3260' | grep -q ."),
                     1);
}

static void
test_clean_end_is_noted_for_the_successor(void **state)
{
    struct host h;
    uint64_t keys[8];

    (void)state;
    host_up(&h, 1, 2);
    assert_int_equal(host_down(&h), 0);
    assert_true(epoch_load_keys(h.state, "t", "test", keys, 8) >= 2);
    assert_int_equal(keys[0], 0);
    assert_int_not_equal(keys[1], 0);
}

/* A process that never reached the target does not know better than the one
 * before it, which was killed. */
static void
test_unclean_end_is_passed_on(void **state)
{
    char device[] = "iscsi://127.0.0.77/" SAN_IQN "/1";
    struct host h;
    struct lun_options opt = host_options(&h, 9, device);
    uint64_t key = key_pack((struct key){7, 9, 1});
    uint64_t keys[8];

    (void)state;
    assert_int_equal(epoch_save_keys(h.state, "t", "test", &key, 1), 0);
    host_open(&h, &opt);
    assert_int_equal(status_of(&h).orphans, 1);
    assert_int_equal(host_down(&h), 0);
    assert_int_equal(epoch_load_keys(h.state, "t", "test", keys, 8), 1);
    assert_int_equal(keys[0], key);
}

static void
open_drain(struct host *h, const char *device)
{
    struct lun_options opt = host_options(h, 5, device);

    opt.fence = LUN_FENCE_DRAIN;
    host_open(h, &opt);
    await(h, st.paths_good == 1);
}

/* Without reservations a killed process' writes are waited for as well. */
static void
test_successor_without_reservations_waits(void **state)
{
    char device[] = "iscsi://127.0.0.30/" SAN_IQN "/1";
    struct hang g;
    struct host h;
    struct lun_io *io;
    pid_t child;

    (void)state;
    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    hang_say(&g, "hold");
    child = fork();
    if (child == 0) {
        open_drain(&h, device);
        assert_int_equal(lun_register(h.lun, soon()), 0);
        io = make_io(&h, LUN_WRITE, 0, BLOCK);
        memset(io->data, 0xAA, BLOCK);
        lun_submit(h.q, io);
        for (;;)
            pause();
    }
    for (uint64_t until_ms = soon(); hang_say(&g, "held") == 0;)
        assert_true(clock_ms() < until_ms);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    open_drain(&h, device);
    assert_int_equal(status_of(&h).orphans, 1);
    assert_int_equal(lun_register(h.lun, clock_ms() + 500), -ETIMEDOUT);
    assert_int_equal(hang_say(&g, "held"), 1);
    hang_say(&g, "go");
    assert_int_equal(lun_register(h.lun, soon()), 0);
    assert_int_equal(status_of(&h).orphans, 0);
    assert_int_equal(write_byte(&h, 0, 0xBB), 0);
    assert_int_equal(read_byte(&h, 0), 0xBB);
    assert_int_equal(host_down(&h), 0);
    /* and one that ended well leaves nothing to wait for */
    open_drain(&h, device);
    assert_int_equal(status_of(&h).orphans, 0);
    assert_int_equal(host_down(&h), 0);
    hang_down(&g);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        iscsi_test(test_successor_fences_what_was_left),
        iscsi_test(test_killed_process_leaves_no_socket),
        iscsi_test(test_clean_end_is_noted_for_the_successor),
        iscsi_test(test_unclean_end_is_passed_on),
        iscsi_test(test_successor_without_reservations_waits),
    };

    (void)argc;
    return iscsi_tests("iscsi_successor", argv[0], tests,
                       sizeof(tests) / sizeof(tests[0]));
}
