/* SPDX-License-Identifier: BSD-3-Clause */
/* Stamps are recognised, and histories survive being saved, merged, damaged. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/blockcheck/stamp.h"
#include "tests/blockcheck/summary.h"
#include "tests/blockcheck/trace.h"

#define UNIT 4096

static char unit[UNIT], note[120];

/* ---- stamps
 * ------------------------------------------------------------------ */

static void
test_stamp_whole_and_in_place(void **state)
{
    uint64_t value = value_make(7, 15);

    (void)state;
    stamp_fill(unit, UNIT, value, 8192, 1);
    assert_int_equal(stamp_read(unit, UNIT, 8192, NULL, 0), value);
    memset(unit, 0, UNIT);
    assert_int_equal(stamp_read(unit, UNIT, 8192, NULL, 0), VALUE_ZERO);
}

static void
test_stamp_every_bit_counts(void **state)
{
    (void)state;
    stamp_fill(unit, UNIT, value_make(7, 15), 0, 1);
    for (size_t bit = 0; bit < UNIT * 8; bit++) {
        unit[bit / 8] = (char)(unit[bit / 8] ^ 1 << bit % 8);
        assert_true(value_is_strange(stamp_read(unit, UNIT, 0, NULL, 0)));
        unit[bit / 8] = (char)(unit[bit / 8] ^ 1 << bit % 8);
    }
}

static void
test_stamp_strange_ones_are_described(void **state)
{
    char other[UNIT];

    (void)state;
    stamp_fill(unit, UNIT, value_make(0xa, 15), 0, 1);
    assert_true(
        value_is_strange(stamp_read(unit, UNIT, 512, note, sizeof note)));
    assert_string_equal(note, "elsewhere: a:15 as at 0");
    stamp_fill(other, UNIT, value_make(0xb, 16), 0, 2);
    memcpy(unit + 512, other + 512, UNIT - 512);
    stamp_read(unit, UNIT, 0, note, sizeof note);
    assert_string_equal(note, "torn: a:15 up to byte 512, ends as b:16");
    stamp_fill(unit, UNIT, value_make(0xa, 15), 0, 1);
    memset(unit, 0, 1024);
    stamp_read(unit, UNIT, 0, note, sizeof note);
    assert_string_equal(note, "torn: zeroes up to byte 1024");
    stamp_fill(unit, UNIT, value_make(0xa, 15), 0, 1);
    unit[80] ^= 1;
    stamp_read(unit, UNIT, 0, note, sizeof note);
    assert_string_equal(note, "damaged: a:15 but for byte 80");
    memset(unit, 'x', UNIT);
    stamp_read(unit, UNIT, 0, note, sizeof note);
    assert_string_equal(note, "");
}

/* ---- text
 * ---------------------------------------------------------------------- */

static int
load(struct trace *t, const char *text, unsigned *line)
{
    char copy[1024];
    FILE *from;
    int r;

    snprintf(copy, sizeof copy, "%s", text);
    from = fmemopen(copy, strlen(copy), "r");
    assert_non_null(from);
    r = trace_load(t, from, line);
    fclose(from);
    return r;
}

static char *
save(const struct trace *t)
{
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);

    assert_int_equal(trace_save(t, to), 0);
    fclose(to);
    return text;
}

static const char example[] = "unit 512\n"
                              "read ab.1 1 2 ok 0+2048 0*2 ab:7 ?0000beef\n"
                              "read ab.1 3 - lost 0+512\n"
                              "write,fua ab.2 5 6 28 512+1024 ab:8\n"
                              "zero,fua ab.2 7 8 ok 0+512\n"
                              "trim cd.1 9 10 lost 0+512\n"
                              "flush cd.1 11 12 ok 0+0\n"
                              "note ?0000beef torn: somehow\n";

static void
test_trace_saved_is_what_was_loaded(void **state)
{
    struct trace t;
    unsigned line;
    char *text;

    (void)state;
    trace_init(&t, 0);
    assert_int_equal(load(&t, example, &line), 0);
    text = save(&t);
    assert_string_equal(text, example);
    assert_int_equal(trace_value(&t, &t.requests[0], 512), 0);
    assert_int_equal(trace_value(&t, &t.requests[0], 1024),
                     value_make(0xab, 7));
    free(text);
    trace_fini(&t);
}

static void
test_trace_merged_keeps_both(void **state)
{
    struct trace a, b;
    unsigned line;
    char *text;

    (void)state;
    trace_init(&a, 0);
    trace_init(&b, 0);
    assert_int_equal(load(&a, "unit 512\nread 1.1 1 2 ok 0+512 1:1\n", &line),
                     0);
    assert_int_equal(load(&b, "unit 512\nread 2.1 1 2 ok 0+512 2:1\n", &line),
                     0);
    assert_int_equal(trace_merge(&a, &b), 0);
    text = save(&a);
    assert_string_equal(text, "unit 512\nread 1.1 1 2 ok 0+512 1:1\n"
                              "read 2.1 1 2 ok 0+512 2:1\n");
    b.unit = 4096;
    assert_int_equal(trace_merge(&a, &b), -EINVAL);
    free(text);
    trace_fini(&a);
    trace_fini(&b);
}

static void
test_trace_wrong_lines_are_refused(void **state)
{
    static const char *const wrong[] = {
        "unit 512\nunit 4096",
        "unit 100",
        "read 1.1 1 2 ok 0+512 0", /* before the unit is known */
        "unit 512\nwrote 1.1 1 2 ok 0+512 1:1",
        "unit 512\nread,now 1.1 1 2 ok 0+512 0",
        "unit 512\nread 1 1 2 ok 0+512 0",
        "unit 512\nread 1.1 2 1 ok 0+512 0",
        "unit 512\nread 1.1 1 2 fine 0+512 0",
        "unit 512\nread 1.1 1 2 ok 0+100 0",
        "unit 512\nread 1.1 1 2 ok 0+1024 0",
        "unit 512\nread 1.1 1 2 ok 0+512 0*2",
        "unit 512\nread 1.1 1 2 5 0+512 0",
        "unit 512\nread 1.1 1 2 ok 0+512 x:1",
        "unit 512\nwrite 1.1 1 2 ok 0+512",
        "unit 512\nwrite 1.1 1 2 ok 0+512 1:1 1:2",
        "unit 512\nwrite 1.1 1 2 ok 0+512 -1:1",
        "unit 512\nnote 0",
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct trace t;
        unsigned line = 0;

        trace_init(&t, 0);
        assert_int_equal(load(&t, wrong[i], &line), -EINVAL);
        assert_int_equal(line, strchr(wrong[i], '\n') ? 2 : 1);
        trace_fini(&t);
    }
}

/* ---- summary
 * ------------------------------------------------------------------- */

static void
summary_of(const char *text, struct summary *s)
{
    struct trace t;
    unsigned line;

    trace_init(&t, 0);
    assert_int_equal(load(&t, text, &line), 0);
    assert_int_equal(summary_make(&t, s), 0);
    trace_fini(&t);
}

static void
test_summary_counts_ends(void **state)
{
    struct summary s;

    (void)state;
    summary_of(example, &s);
    assert_int_equal(s.requests, 6);
    assert_int_equal(s.errors, 1);
    assert_int_equal(s.by_errno[28], 1);
    assert_int_equal(s.lost, 1);
    assert_int_equal(s.unanswered, 1);
}

/* Idle from 20 to 1000, and waiting from 1000 to 1500: one answer at 1200 was
 * an error. */
static void
test_summary_stall_is_time_without_success(void **state)
{
    const struct summary_pause pauses[] = {{900, 1100}, {1400, 2000}};
    struct summary s;

    (void)state;
    summary_of("unit 512\n"
               "flush 1.1 10 20 ok 0+0\n"
               "flush 1.1 1000 1200 5 0+0\n"
               "flush 1.1 1300 1500 ok 0+0\n",
               &s);
    assert_int_equal(s.stall_ns, 500);
    assert_int_equal(s.stall_begin_ns, 1000);
    assert_int_equal(s.slowest_ns, 200);
    assert_int_equal(summary_machine_ns(&s, pauses, 2), 200);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stamp_whole_and_in_place),
        cmocka_unit_test(test_stamp_every_bit_counts),
        cmocka_unit_test(test_stamp_strange_ones_are_described),
        cmocka_unit_test(test_trace_saved_is_what_was_loaded),
        cmocka_unit_test(test_trace_merged_keeps_both),
        cmocka_unit_test(test_trace_wrong_lines_are_refused),
        cmocka_unit_test(test_summary_counts_ends),
        cmocka_unit_test(test_summary_stall_is_time_without_success),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
