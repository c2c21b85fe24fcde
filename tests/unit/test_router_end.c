/* SPDX-License-Identifier: BSD-3-Clause */
/* The router's end: whatever hangs or waits, and what the successor learns. */
#include "tests/unit/router_parts.h"

static void
stop_in_time(void)
{
    uint64_t begun = clock_ms();

    router_stop(router);
    router = NULL;
    assert_true(clock_ms() - begun < (getenv("VALGRIND") ? 10000 : 2000));
}

static void
test_router_stops_while_registering_hangs(void **state)
{
    (void)state;
    t.register_hangs = true;
    start();
    eventually(count(&t.registers) == 1);
    stop_in_time();
}

static void *
enter_and_fail(void *opaque)
{
    struct gate_request rq = {.count = 512};
    struct gate *g = router_gate(router);
    int *result = opaque;

    *result = gate_enter(g, &rq, 0);
    gate_finish(g, &rq);
    return NULL;
}

static void
test_router_close_lets_go_of_who_waits(void **state)
{
    struct gate_stats st;
    pthread_t thread;
    int result = 0;

    (void)state;
    t.register_result = -ENOLINK;
    start();
    pthread_create(&thread, NULL, enter_and_fail, &result);
    do
        gate_get_stats(router_gate(router), &st);
    while (st.held == 0);
    router_close(router);
    pthread_join(thread, NULL);
    assert_int_equal(result, -ESHUTDOWN);
    stop_in_time();
}

static void
test_router_successor_learns_of_orphans(void **state)
{
    (void)state;
    start();
    eventually(where() == GATE_LOCAL);
    LOCKED(t.lun.orphans = 1);
    stop_in_time();
    assert_true(t.on_disk.local);
}

static void
test_router_clean_end_leaves_no_suspicion(void **state)
{
    (void)state;
    start();
    eventually(where() == GATE_LOCAL);
    assert_true(saved_local());
    stop_in_time();
    assert_false(t.on_disk.local);
    assert_int_equal(t.on_disk.npeers, 0);
    assert_string_equal(t.on_disk.id, "naa.6001");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_router_stops_while_registering_hangs),
        TEST(test_router_close_lets_go_of_who_waits),
        TEST(test_router_successor_learns_of_orphans),
        TEST(test_router_clean_end_leaves_no_suspicion),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
