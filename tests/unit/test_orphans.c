/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranges of lost writes: what they overlap, and what ends them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lun/backend.h"
#include "plugin/orphans.h"
#include "plugin/route.h"

#define KiB 1024u

static int
setup(void **state)
{
    static struct orphans set;

    set = (struct orphans){0};
    *state = &set;
    return 0;
}

static int
teardown(void **state)
{
    orphans_fini(*state);
    return 0;
}

static struct orphan *
add(struct orphans *set, uint64_t offset, uint64_t count, int carrier,
    uint64_t serial)
{
    struct orphan *o = orphan_create();

    assert_non_null(o);
    o->offset = offset;
    o->count = count;
    o->carrier = carrier;
    o->serial = serial;
    orphans_add(set, o);
    return o;
}

static void
test_orphans_overlap_by_the_byte(void **state)
{
    struct orphans *set = *state;

    assert_false(orphans_overlap(set, 0, UINT64_MAX));
    add(set, 8 * KiB, 4 * KiB, 0, 1);
    assert_false(orphans_overlap(set, 0, 8 * KiB));
    assert_true(orphans_overlap(set, 0, 8 * KiB + 1));
    assert_true(orphans_overlap(set, 9 * KiB, KiB));
    assert_true(orphans_overlap(set, 0, 64 * KiB));
    assert_true(orphans_overlap(set, 12 * KiB - 1, 1));
    assert_false(orphans_overlap(set, 12 * KiB, KiB));
    add(set, 20 * KiB, KiB, 0, 1);
    assert_true(orphans_overlap(set, 20 * KiB, KiB));
    assert_true(orphans_overlap(set, 8 * KiB, KiB)); /* the first as well */
}

/* At both ends of what 64 bits can tell. */
static void
test_orphans_overlap_at_the_ends(void **state)
{
    struct orphans *set = *state;

    add(set, UINT64_MAX - 1023, 1023, 0, 1);
    assert_true(orphans_overlap(set, UINT64_MAX - 1023, 1));
    assert_false(orphans_overlap(set, 0, UINT64_MAX - 1023));
    add(set, 0, 512, 0, 1);
    assert_true(orphans_overlap(set, 0, 1));
    assert_false(orphans_overlap(set, 512, 512));
}

/* A write in two pieces, of which one came back. */
static void
test_orphans_settle_when_all_of_it_has_come_back(void **state)
{
    struct orphans *set = *state;
    struct orphan *o = add(set, 0, KiB, ROUTE_SELF, 1);
    struct lun_io one = {.op = LUN_WRITE, .tally = o->tally}, two = one;

    lun_tally_begin(&one);
    lun_tally_begin(&two);
    assert_int_equal(orphans_settle(set), 0);
    lun_tally_end(&one);
    assert_int_equal(orphans_settle(set), 0);
    assert_true(orphans_overlap(set, 0, 512));
    lun_tally_end(&two);
    assert_int_equal(orphans_settle(set), 1);
    assert_false(orphans_overlap(set, 0, 512));
    assert_int_equal(set->n, 0);
}

/* What was sent to a peer is nothing that our own paths could return. */
static void
test_orphans_settle_leaves_those_of_peers(void **state)
{
    struct orphans *set = *state;

    add(set, 0, KiB, 0, 1);
    add(set, 0, KiB, ROUTE_SELF, 1); /* nothing of it under way */
    add(set, 0, KiB, 5, 1);
    assert_int_equal(orphans_settle(set), 1);
    assert_int_equal(orphans_count(set, 0), 1);
    assert_int_equal(orphans_count(set, 5), 1);
    assert_int_equal(orphans_count(set, ROUTE_SELF), 0);
}

static void
test_orphans_clear_by_carrier_and_opening(void **state)
{
    struct orphans *set = *state;

    add(set, 0, KiB, 2, 3);
    add(set, 8 * KiB, KiB, 2, 4);
    add(set, 16 * KiB, KiB, 2, 5); /* left after the question was asked */
    add(set, 24 * KiB, KiB, 1, 2);
    assert_int_equal(orphans_clear(set, 2, 4), 2);
    assert_false(orphans_overlap(set, 0, 16 * KiB));
    assert_true(orphans_overlap(set, 16 * KiB, KiB));
    assert_true(orphans_overlap(set, 24 * KiB, KiB));
    assert_int_equal(set->n, 2);
    assert_int_equal(orphans_clear(set, ROUTE_SELF, 9), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_orphans_overlap_by_the_byte),
        TEST(test_orphans_overlap_at_the_ends),
        TEST(test_orphans_settle_when_all_of_it_has_come_back),
        TEST(test_orphans_settle_leaves_those_of_peers),
        TEST(test_orphans_clear_by_carrier_and_opening),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
