/* SPDX-License-Identifier: BSD-3-Clause */
/* Histories that are possible and histories that are not, written by hand. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/blockcheck/ruling.h"

static struct trace trace;
static struct ruling ruling;

/* Judges "unit 512" and these lines; the number of units with a fault. */
static unsigned
faults(const char *lines)
{
    char text[4096];
    unsigned line;
    FILE *from;
    int len = snprintf(text, sizeof text, "unit 512\n%s", lines);

    assert_in_range(len, 1, sizeof text - 1);
    trace_fini(&trace);
    trace_init(&trace, 0);
    from = fmemopen(text, (size_t)len, "r");
    assert_non_null(from);
    assert_int_equal(trace_load(&trace, from, &line), 0);
    fclose(from);
    assert_int_equal(ruling_make(&trace, &ruling), 0);
    return (unsigned)ruling.nfaults;
}

#define possible(...) assert_int_equal(faults(__VA_ARGS__), 0)
#define impossible(which, ...)                                                 \
    do {                                                                       \
        assert_int_equal(faults(__VA_ARGS__), 1);                              \
        assert_int_equal(ruling.faults[0].kind, which);                        \
    } while (0)

static int
teardown(void **state)
{
    (void)state;
    trace_fini(&trace);
    return 0;
}

/* Every history begins so: the first read tells what was there. */
#define ZEROES "read 1.0 1 2 ok 0+512 0\n"

static void
test_ruling_empty_history(void **state)
{
    (void)state;
    possible("");
}

static void
test_ruling_own_write_is_read(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                    "read 1.1 30 40 ok 0+512 1:1\n");
    assert_int_equal(ruling.units, 1);
    assert_int_equal(ruling.reads, 2);
}

static void
test_ruling_lost_write(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                                 "read 1.1 30 40 ok 0+512 0\n");
    assert_int_equal(ruling.faults[0].request, 2);
    assert_int_equal(ruling.faults[0].value, 0);
}

static void
test_ruling_read_beside_a_write_finds_either(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                    "read 1.2 15 16 ok 0+512 0\n"
                    "read 1.2 17 18 ok 0+512 1:1\n");
}

static void
test_ruling_seen_new_then_old(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                                 "read 1.2 14 15 ok 0+512 1:1\n"
                                 "read 1.2 16 17 ok 0+512 0\n");
}

static void
test_ruling_ghost(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                                 "write 1.1 30 40 ok 0+512 1:2\n"
                                 "read 1.1 50 60 ok 0+512 1:2\n"
                                 "read 1.1 70 80 ok 0+512 1:1\n");
}

static void
test_ruling_writes_at_once_end_either_way(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 40 ok 0+512 1:1\n"
                    "write 2.1 20 30 ok 0+512 2:1\n"
                    "read 1.1 50 60 ok 0+512 1:1\n");
    possible(ZEROES "write 1.1 10 40 ok 0+512 1:1\n"
                    "write 2.1 20 30 ok 0+512 2:1\n"
                    "read 1.1 50 60 ok 0+512 2:1\n");
}

static void
test_ruling_writes_at_once_do_not_flicker_afterwards(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 40 ok 0+512 1:1\n"
                                 "write 2.1 20 30 ok 0+512 2:1\n"
                                 "read 1.1 50 60 ok 0+512 2:1\n"
                                 "read 1.1 70 80 ok 0+512 1:1\n");
}

/* Two hosts read at once: no order of these two reads is right. */
static void
test_ruling_readers_must_agree(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 40 ok 0+512 1:1\n"
                                 "write 2.1 10 40 ok 0+512 2:1\n"
                                 "read 1.1 50 60 ok 0+512 2:1\n"
                                 "read 2.1 50 60 ok 0+512 1:1\n");
}

static void
test_ruling_write_sent_again_before_its_answer(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 90 ok 0+512 1:1\n"
                    "read 2.1 20 25 ok 0+512 1:1\n"
                    "write 2.1 30 40 ok 0+512 2:1\n"
                    "read 2.1 50 60 ok 0+512 2:1\n"
                    "read 2.1 70 80 ok 0+512 1:1\n");
}

static void
test_ruling_failed_write_may_come_late_or_never(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 20 5 0+512 1:1\n"
                    "read 1.1 30 40 ok 0+512 0\n"
                    "read 1.1 50 60 ok 0+512 1:1\n");
    possible(ZEROES "write 1.1 10 20 lost 0+512 1:1\n"
                    "read 1.1 30 40 ok 0+512 0\n"
                    "write 1.1 50 60 ok 0+512 1:2\n"
                    "read 1.1 70 80 ok 0+512 1:2\n");
    possible(ZEROES "write 1.1 10 - ok 0+512 1:1\n"
                    "write 1.1 50 60 ok 0+512 1:2\n"
                    "read 1.1 70 80 ok 0+512 1:1\n");
}

static void
test_ruling_failed_write_then_undone(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 20 5 0+512 1:1\n"
                                 "read 1.1 30 40 ok 0+512 1:1\n"
                                 "read 1.1 50 60 ok 0+512 0\n");
}

static void
test_ruling_failed_write_after_a_newer_one(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 20 lost 0+512 1:1\n"
                                 "write 1.1 30 40 ok 0+512 1:2\n"
                                 "read 1.1 50 60 ok 0+512 1:1\n");
}

/* The newer one began before the failure was told: nobody could wait. */
static void
test_ruling_failed_write_beside_a_newer_one(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 30 lost 0+512 1:1\n"
                    "write 1.2 20 40 ok 0+512 1:2\n"
                    "read 1.1 50 60 ok 0+512 1:1\n");
}

/* Nobody ends what a client left behind before it is served again. */
static void
test_ruling_failed_write_beside_another_client(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 20 lost 0+512 1:1\n"
                    "write 2.1 30 40 ok 0+512 2:1\n"
                    "read 2.1 50 60 ok 0+512 2:1\n"
                    "read 2.1 70 80 ok 0+512 1:1\n");
    /* it was served again, but the other one had begun before */
    possible(ZEROES "write 1.1 10 20 lost 0+512 1:1\n"
                    "read 1.2 25 35 ok 0+512 0\n"
                    "write 2.1 30 40 ok 0+512 2:1\n"
                    "read 2.1 50 60 ok 0+512 1:1\n");
    /* what it had asked for before the failure says nothing */
    possible(ZEROES "read 1.2 15 25 ok 0+512 0\n"
                    "write 1.1 10 20 lost 0+512 1:1\n"
                    "write 2.1 30 40 ok 0+512 2:1\n"
                    "read 2.1 50 60 ok 0+512 1:1\n");
}

static void
test_ruling_failed_write_of_a_client_served_again(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 20 lost 0+512 1:1\n"
                                 "read 1.2 22 25 ok 0+512 0\n"
                                 "write 2.1 30 40 ok 0+512 2:1\n"
                                 "read 2.1 50 60 ok 0+512 1:1\n");
    /* wherever it was served */
    impossible(FAULT_OLD, "read 1.0 1 2 ok 0+1024 0*2\n"
                          "write 1.1 10 20 lost 0+512 1:1\n"
                          "write 1.1 22 25 ok 512+512 1:2\n"
                          "write 2.1 30 40 ok 0+512 2:1\n"
                          "read 2.1 50 60 ok 0+512 1:1\n");
}

static void
test_ruling_newer_failure_ends_no_older_one(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 20 lost 0+512 1:1\n"
                    "write 1.1 30 40 5 0+512 1:2\n"
                    "read 1.1 50 60 ok 0+512 1:2\n"
                    "read 1.1 70 80 ok 0+512 1:1\n");
}

static void
test_ruling_zero_that_does_not_zero(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                                 "zero 1.1 30 40 ok 0+512\n"
                                 "read 1.1 50 60 ok 0+512 1:1\n");
}

static void
test_ruling_trim_may_do_nothing(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                    "trim 1.1 30 40 ok 0+512\n"
                    "read 1.1 50 60 ok 0+512 1:1\n");
    possible(ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                    "trim 1.1 30 40 ok 0+512\n"
                    "read 1.1 50 60 ok 0+512 0\n");
}

static void
test_ruling_trim_that_comes_late(void **state)
{
    (void)state;
    impossible(FAULT_OLD, ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                                 "trim 1.1 30 40 ok 0+512\n"
                                 "read 1.1 50 60 ok 0+512 1:1\n"
                                 "read 1.1 70 80 ok 0+512 0\n");
}

/* Each unit is judged by itself: half a write is a fault of the other half. */
static void
test_ruling_half_a_write(void **state)
{
    (void)state;
    impossible(FAULT_OLD, "read 1.0 1 2 ok 0+1024 0*2\n"
                          "write 1.1 10 20 ok 0+1024 1:1\n"
                          "read 1.1 30 40 ok 0+1024 1:1 0\n");
}

static void
test_ruling_torn_unit(void **state)
{
    (void)state;
    impossible(FAULT_TORN, ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                                  "read 1.1 30 40 ok 0+512 ?1234\n"
                                  "note ?1234 torn: 1:1 up to byte 256\n");
}

static void
test_ruling_unit_of_another_place(void **state)
{
    (void)state;
    impossible(FAULT_ELSEWHERE,
               ZEROES "read 1.1 30 40 ok 0+512 ?1234\n"
                      "note ?1234 elsewhere: 1:1 as at 4096\n");
}

static void
test_ruling_value_of_nobody(void **state)
{
    (void)state;
    impossible(FAULT_NOBODY, ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                                    "read 1.1 30 40 ok 0+512 1:2\n");
    /* it was written, but not here */
    impossible(FAULT_NOBODY, "read 1.0 1 2 ok 0+1024 0*2\n"
                             "write 1.1 10 20 ok 512+512 1:1\n"
                             "read 1.1 30 40 ok 0+512 1:1\n");
}

static void
test_ruling_value_before_its_write(void **state)
{
    (void)state;
    impossible(FAULT_FUTURE, ZEROES "read 1.1 10 20 ok 0+512 1:1\n"
                                    "write 1.1 30 40 ok 0+512 1:1\n");
}

static void
test_ruling_what_was_there_at_first(void **state)
{
    (void)state;
    possible("read 1.0 1 2 ok 0+512 ?77\n"
             "read 1.0 3 4 ok 0+512 ?77\n"
             "write 1.1 10 20 ok 0+512 1:1\n");
    impossible(FAULT_OLD, "read 1.0 1 2 ok 0+512 ?77\n"
                          "write 1.1 10 20 ok 0+512 1:1\n"
                          "read 1.0 30 40 ok 0+512 ?77\n");
    /* nobody looked before */
    possible("write 1.1 10 20 lost 0+512 1:1\n"
             "read 1.0 30 40 ok 0+512 9:9\n");
}

static void
test_ruling_failed_reads_say_nothing(void **state)
{
    (void)state;
    possible(ZEROES "write 1.1 10 20 ok 0+512 1:1\n"
                    "read 1.1 30 40 5 0+512\n"
                    "read 1.1 30 - ok 0+512\n"
                    "flush 1.1 50 60 ok 0+0\n");
    assert_int_equal(ruling.reads, 1);
}

/* Units far apart and requests across the judge's own chunks. */
static void
test_ruling_requests_across_chunks(void **state)
{
    (void)state;
    possible("read 1.0 1 2 ok 65024+1024 0*2\n"
             "write 1.1 10 20 ok 65024+1024 1:1\n"
             "read 1.1 30 40 ok 65024+1024 1:1*2\n"
             "write 1.1 50 60 ok 1073741824+512 1:2\n"
             "read 1.1 70 80 ok 1073741824+512 1:2\n");
    assert_int_equal(ruling.units, 3);
    impossible(FAULT_OLD, "read 1.0 1 2 ok 65024+1024 0*2\n"
                          "write 1.1 10 20 ok 65024+1024 1:1\n"
                          "read 1.1 30 40 ok 65024+1024 1:1 0\n");
    assert_int_equal(ruling.faults[0].offset, 65536);
}

static void
test_ruling_story_tells_it_in_order(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);
    const char *first, *second, *found;

    (void)state;
    assert_int_equal(faults(ZEROES "write 1.1 30 40 ok 0+512 1:2\n"
                                   "write 1.1 10 20 ok 0+512 1:1\n"
                                   "read 1.1 50 60 ok 0+512 1:1\n"),
                     1);
    ruling_story(&trace, &ruling.faults[0], 3, to);
    fclose(to);
    assert_non_null(strstr(text, "older value after a newer one: found 1:1"));
    first = strstr(text, "1:1   ");
    second = strstr(text, "1:2   ");
    found = strstr(text, "<== impossible");
    assert_true(first && second && found && first < second && second < found);
    assert_non_null(strstr(text, "1 requests before these left out"));
    free(text);
}

/* Whatever else is wrong, the torn unit at the end is told. */
static void
test_ruling_tells_of_each_kind(void **state)
{
    (void)state;
    assert_int_equal(faults("read 1.0 1 2 ok 0+4096 0*8\n"
                            "write 1.1 10 20 ok 0+4096 1:1\n"
                            "read 1.1 30 40 ok 0+4096 0*7 ?1\n"
                            "note ?1 torn: 1:1 up to byte 256\n"),
                     8);
    assert_int_equal(ruling.of_kind[FAULT_OLD], 7);
    assert_int_equal(ruling.of_kind[FAULT_TORN], 1);
    assert_int_equal(ruling.ntold, RULING_OF_KIND + 1);
    assert_int_equal(ruling.faults[RULING_OF_KIND].kind, FAULT_TORN);
    assert_int_equal(ruling.faults[RULING_OF_KIND].offset, 3584);
}

static void
test_ruling_refuses_half_units(void **state)
{
    struct request r = {.kind = REQUEST_ZERO, .offset = 256, .count = 512};

    (void)state;
    trace_fini(&trace);
    trace_init(&trace, 512);
    assert_int_equal(trace_add(&trace, &r), 0);
    assert_int_equal(ruling_make(&trace, &ruling), -EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ruling_empty_history),
        cmocka_unit_test(test_ruling_own_write_is_read),
        cmocka_unit_test(test_ruling_lost_write),
        cmocka_unit_test(test_ruling_read_beside_a_write_finds_either),
        cmocka_unit_test(test_ruling_seen_new_then_old),
        cmocka_unit_test(test_ruling_ghost),
        cmocka_unit_test(test_ruling_writes_at_once_end_either_way),
        cmocka_unit_test(test_ruling_writes_at_once_do_not_flicker_afterwards),
        cmocka_unit_test(test_ruling_readers_must_agree),
        cmocka_unit_test(test_ruling_write_sent_again_before_its_answer),
        cmocka_unit_test(test_ruling_failed_write_may_come_late_or_never),
        cmocka_unit_test(test_ruling_failed_write_then_undone),
        cmocka_unit_test(test_ruling_failed_write_after_a_newer_one),
        cmocka_unit_test(test_ruling_failed_write_beside_a_newer_one),
        cmocka_unit_test(test_ruling_failed_write_beside_another_client),
        cmocka_unit_test(test_ruling_failed_write_of_a_client_served_again),
        cmocka_unit_test(test_ruling_newer_failure_ends_no_older_one),
        cmocka_unit_test(test_ruling_zero_that_does_not_zero),
        cmocka_unit_test(test_ruling_trim_may_do_nothing),
        cmocka_unit_test(test_ruling_trim_that_comes_late),
        cmocka_unit_test(test_ruling_half_a_write),
        cmocka_unit_test(test_ruling_torn_unit),
        cmocka_unit_test(test_ruling_unit_of_another_place),
        cmocka_unit_test(test_ruling_value_of_nobody),
        cmocka_unit_test(test_ruling_value_before_its_write),
        cmocka_unit_test(test_ruling_what_was_there_at_first),
        cmocka_unit_test(test_ruling_failed_reads_say_nothing),
        cmocka_unit_test(test_ruling_requests_across_chunks),
        cmocka_unit_test(test_ruling_story_tells_it_in_order),
        cmocka_unit_test(test_ruling_tells_of_each_kind),
        cmocka_unit_test(test_ruling_refuses_half_units),
    };

    return cmocka_run_group_tests(tests, NULL, teardown);
}
