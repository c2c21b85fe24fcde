/* SPDX-License-Identifier: BSD-3-Clause */
/* The data path of one connection: every way it ends. */
#include "tests/unit/transmit_bench.h"

static void
test_transmit_disconnect_waits_for_answers(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_FLUSH, 0, 1, 0, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    await_submitted(1);
    finish(0, 0);
    expect(b, 1, 0);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_client_gone_waits_for_the_device(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    await_submitted(1);
    shutdown(b->fd, SHUT_RDWR);
    finish(0, 0);
    assert_int_equal(ended(b), TRANSMIT_BROKEN);
    assert_int_equal(fake.abandoned, 0);
}

static void
test_transmit_told_to_finish_submits_nothing_more(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 2 * MAX_IO);
    await_submitted(1);
    order(b, SESSION_FINISH);
    expect_closed(b);
    finish(0, 0);
    assert_int_equal(ended(b), TRANSMIT_ORDERED);
    assert_int_equal(fake.submitted, 1);
    assert_int_equal(fake.abandoned, 0);
}

static void
test_transmit_told_to_abandon_does_not_wait(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    await_submitted(1);
    order(b, SESSION_ABANDON);
    assert_int_equal(ended(b), TRANSMIT_ORDERED);
    assert_int_equal(fake.abandoned, 1);
}

static void
test_transmit_abandon_ends_a_hung_finish(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    await_submitted(1);
    order(b, SESSION_FINISH);
    expect_closed(b);
    order(b, SESSION_ABANDON);
    assert_int_equal(ended(b), TRANSMIT_ORDERED);
    assert_int_equal(fake.abandoned, 1);
}

static void
test_transmit_drain_refuses_new_and_answers_old(void **state)
{
    struct bench *b = *state;
    char data[512] = {0};

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    await_submitted(1);
    order(b, SESSION_DRAIN);
    ask(b, NBD_CMD_WRITE, 0, 2, 512, 512);
    send_all(b, data, 512);
    expect(b, 2, NBD_ESHUTDOWN);
    finish(0, 0);
    expect(b, 1, 0);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DRAINED);
    assert_int_equal(fake.submitted, 1);
}

static void
test_transmit_drain_taken_back_goes_on(void **state)
{
    struct bench *b = *state;

    begin(b);
    order(b, SESSION_DRAIN);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    expect(b, 1, NBD_ESHUTDOWN);
    order(b, SESSION_RUN);
    fake.at_once = true;
    ask(b, NBD_CMD_TRIM, 0, 2, 0, 512);
    expect(b, 2, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_bad_magic_ends_it(void **state)
{
    struct bench *b = *state;
    char rubbish[NBD_REQUEST_SIZE] = "GET / HTTP/1.1";

    begin(b);
    send_all(b, rubbish, sizeof rubbish);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_BROKEN);
}

static void
test_transmit_enormous_write_ends_it(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_WRITE, 0, 1, 0, REQUEST_PAYLOAD_MAX + 512);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_BROKEN);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_transmit_disconnect_waits_for_answers),
        TEST(test_transmit_client_gone_waits_for_the_device),
        TEST(test_transmit_told_to_finish_submits_nothing_more),
        TEST(test_transmit_told_to_abandon_does_not_wait),
        TEST(test_transmit_abandon_ends_a_hung_finish),
        TEST(test_transmit_drain_refuses_new_and_answers_old),
        TEST(test_transmit_drain_taken_back_goes_on),
        TEST(test_transmit_bad_magic_ends_it),
        TEST(test_transmit_enormous_write_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
