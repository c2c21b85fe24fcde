/* SPDX-License-Identifier: BSD-3-Clause */
/* Performing the route's decisions: orders to redirect and to return. */
#include "tests/unit/router_parts.h"

static void
test_router_order_connects_to_the_peer_it_names(void **state)
{
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect("c", err, sizeof err), -EHOSTUNREACH);
    assert_non_null(strstr(err, "c is not ready to serve LUN vm"));
    eventually(kept() == 1u << 1);
    LOCKED(t.ready[1] = true);
    news();
    eventually(redirect("c", err, sizeof err) == 0);
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.peer, 1);
    assert_int_equal(redirect("x", err, sizeof err), -ENOENT);
}

/* What the status tells of the route under key. */
static double
told_of_route(const char *key)
{
    json_t *status = router_status(router);
    const json_t *v = json_object_get(json_object_get(status, "route"), key);
    double told = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);

    json_decref(status);
    return told;
}

static bool
manual(void)
{
    return told_of_route("manual") != 0;
}

/* The order ends what another order began, also when nothing else can be done
 * about it yet. */
static void
test_router_return_without_paths_waits_for_them(void **state)
{
    char err[256];

    (void)state;
    lun.timers.failback_after = 50;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect(NULL, err, sizeof err), 0);
    eventually(manual() && where() == GATE_PEER);
    LOCKED(t.local_usable = false);
    news();
    router_return(router);
    eventually(!manual());
    assert_int_equal(where(), GATE_PEER);
    LOCKED(t.local_usable = true);
    news();
    eventually(where() == GATE_LOCAL);
}

static double
manual_left_s(void)
{
    return told_of_route("manual_left_s");
}

/* Nobody has to give a second order, nor to wait for the time. */
static void
test_router_order_for_a_time_ends_by_itself(void **state)
{
    const struct router_order hour = {.for_ms = 3600000};
    const struct router_order moment = {.for_ms = 50};
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    eventually(router_redirect(router, &hour, err, sizeof err) == 0);
    eventually(manual() && where() == GATE_PEER);
    assert_true(manual_left_s() > 3500 && manual_left_s() <= 3600);
    assert_int_equal(router_redirect(router, &moment, err, sizeof err), 0);
    eventually(where() == GATE_LOCAL);
    assert_false(manual());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_router_order_connects_to_the_peer_it_names),
        TEST(test_router_return_without_paths_waits_for_them),
        TEST(test_router_order_for_a_time_ends_by_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
