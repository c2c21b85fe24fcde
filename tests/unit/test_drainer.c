/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking a proxy aside: the answer, none, and an end while it is awaited;
 * against the small server of link_peer.h. */
#include "plugin/drainer.h"
#include "tests/unit/link_peer.h"

struct fixture {
    struct peer *peer;
    struct link_options opt;
    struct drainer *drainer;
};

static atomic_uint told;

static void
tell(void *opaque)
{
    (void)opaque;
    atomic_fetch_add(&told, 1);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->peer = peer_create();
    f->opt = options_for(f->peer->port);
    peer_start(f->peer);
    atomic_store(&told, 0);
    f->drainer = drainer_create(tell, NULL);
    assert_non_null(f->drainer);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    drainer_destroy(f->drainer);
    peer_stop(f->peer);
    free(f);
    return 0;
}

static struct link *
parked_link(struct fixture *f)
{
    struct link *k = link_at(&f->opt);

    eventually(state_of(k) == LINK_PARKED);
    return k;
}

static int
answer_of(struct fixture *f)
{
    int result = 1;

    eventually(atomic_load(&told) > 0);
    atomic_store(&told, 0);
    assert_true(drainer_take(f->drainer, &result));
    assert_false(drainer_busy(f->drainer));
    return result;
}

static void
test_drainer_go_that_is_granted_is_the_answer(void **state)
{
    struct fixture *f = *state;
    int result;

    assert_false(drainer_take(f->drainer, &result));
    assert_int_equal(drainer_ask(f->drainer, parked_link(f), "vm?generation=7",
                                 clock_ms() + PATIENCE_MS),
                     0);
    assert_true(drainer_busy(f->drainer));
    assert_int_equal(answer_of(f), 0);
    assert_string_equal(f->peer->go_name, "vm?generation=7");
    eventually(atomic_load(&f->peer->disconnects) == 1); /* and it is left */
    assert_int_equal(atomic_load(&f->peer->commands), 0);
}

static void
test_drainer_refusal_is_no_answer_and_it_may_be_asked_again(void **state)
{
    struct fixture *f = *state;

    f->peer->refusal = "requests have not come back";
    atomic_store(&f->peer->on_go, PEER_REFUSES);
    assert_int_equal(
        drainer_ask(f->drainer, parked_link(f), "a", clock_ms() + PATIENCE_MS),
        0);
    assert_int_equal(answer_of(f), -EACCES);
    atomic_store(&f->peer->on_go, PEER_ANSWERS);
    assert_int_equal(
        drainer_ask(f->drainer, parked_link(f), "b", clock_ms() + PATIENCE_MS),
        0);
    assert_int_equal(answer_of(f), 0);
}

static void
test_drainer_silence_ends_at_the_deadline(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->peer->on_go, PEER_SILENT);
    assert_int_equal(
        drainer_ask(f->drainer, parked_link(f), "a", clock_ms() + 50), 0);
    assert_int_equal(answer_of(f), -ETIMEDOUT);
}

static void
test_drainer_one_question_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct link *k = parked_link(f);

    atomic_store(&f->peer->on_go, PEER_SILENT);
    assert_int_equal(drainer_ask(f->drainer, k, "a", clock_ms() + PATIENCE_MS),
                     0);
    eventually(atomic_load(&f->peer->gos) == 1);
    f->opt.port = 1; /* nobody's */
    assert_int_equal(
        drainer_ask(f->drainer, link_at(&f->opt), "b", clock_ms() + 50),
        -EBUSY);
    drainer_interrupt(f->drainer);
    assert_true(answer_of(f) < 0);
}

static void
test_drainer_interrupted_asks_nobody(void **state)
{
    struct fixture *f = *state;
    struct link *k = parked_link(f);

    drainer_interrupt(f->drainer);
    assert_int_equal(drainer_ask(f->drainer, k, "a", clock_ms() + PATIENCE_MS),
                     -ESHUTDOWN);
    assert_int_equal(atomic_load(&f->peer->gos), 0);
}

/* The teardown ends it while it waits. */
static void
test_drainer_ends_while_it_waits(void **state)
{
    struct fixture *f = *state;
    uint64_t begun;

    atomic_store(&f->peer->on_go, PEER_SILENT);
    assert_int_equal(drainer_ask(f->drainer, parked_link(f), "a",
                                 clock_ms() + 4 * PATIENCE_MS),
                     0);
    eventually(atomic_load(&f->peer->gos) == 1);
    begun = clock_ms();
    drainer_destroy(f->drainer);
    f->drainer = NULL;
    assert_true(clock_ms() < begun + PATIENCE_MS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_drainer_go_that_is_granted_is_the_answer),
        TEST(test_drainer_refusal_is_no_answer_and_it_may_be_asked_again),
        TEST(test_drainer_silence_ends_at_the_deadline),
        TEST(test_drainer_one_question_at_a_time),
        TEST(test_drainer_interrupted_asks_nobody),
        TEST(test_drainer_ends_while_it_waits),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
