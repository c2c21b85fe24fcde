/* SPDX-License-Identifier: BSD-3-Clause */
/* The data path of one connection: what is refused, and what fails. */
#include "tests/unit/transmit_bench.h"

static void
test_transmit_refused_write_skips_its_payload(void **state)
{
    struct bench *b = *state;
    char data[1024] = {0};

    begin(b);
    ask(b, NBD_CMD_WRITE, 0, 1, SIZE, 1024);
    send_all(b, data, 700);
    send_all(b, data, 324);
    ask(b, NBD_CMD_WRITE, 0, 2, 1, 512);
    send_all(b, data, 512);
    ask(b, 99, 0, 3, 0, 512);
    ask(b, NBD_CMD_CACHE, 0, 4, 0, 512);
    expect(b, 1, NBD_ENOSPC);
    expect(b, 2, NBD_EINVAL);
    expect(b, 3, NBD_EINVAL);
    expect(b, 4, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(fake.submitted, 0);
}

static void
test_transmit_out_of_memory_is_answered(void **state)
{
    struct bench *b = *state;
    char data[512] = {0};

    fake.no_memory = true;
    begin(b);
    ask(b, NBD_CMD_WRITE, 0, 1, 0, 512);
    send_all(b, data, 512);
    expect(b, 1, NBD_ENOMEM);
    ask(b, NBD_CMD_READ, 0, 2, 0, 512);
    expect(b, 2, NBD_ENOMEM);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_path_error_is_never_answered(void **state)
{
    static const int errors[] = {-ENOLINK, -ENODEV, -ETIMEDOUT, -EBADE};
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        begin(b);
        ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
        await_submitted(1);
        finish(0, errors[i]);
        expect_closed(b);
        assert_int_equal(ended(b), TRANSMIT_DEVICE);
        assert_int_equal(b->path_error, errors[i]);
        teardown(state);
        assert_int_equal(setup(state), 0);
        b = *state;
    }
}

/* An EIO came back; now the first block is read, to see who is to blame. */
static void
doubt(struct bench *b)
{
    const struct lun_io *io;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 4096, 512);
    await_submitted(1);
    finish(4096, -EIO);
    await_submitted(2);
    io = &fake.first->io;
    assert_int_equal(io->op, LUN_READ);
    assert_int_equal(io->offset, 0);
    assert_int_equal(io->count, 512);
    assert_int_equal(io->registration_no, 0);
}

static void
test_transmit_doubtful_error_is_answered_when_paths_work(void **state)
{
    static const int errors[] = {0, -ENODATA}; /* both came from the device */
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        doubt(b);
        finish(0, errors[i]);
        expect(b, 1, NBD_EIO);
        ask(b, NBD_CMD_TRIM, 0, 2, 4096, 512);
        await_submitted(3);
        finish(4096, 0);
        expect(b, 2, 0);
        ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
        assert_int_equal(ended(b), TRANSMIT_DISC);
        assert_int_equal(b->path_error, 0);
        teardown(state);
        assert_int_equal(setup(state), 0);
        b = *state;
    }
}

static void
test_transmit_doubtful_error_of_dead_paths_is_not_answered(void **state)
{
    struct bench *b = *state;

    doubt(b);
    finish(0, -ENOLINK);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DEVICE);
    assert_int_equal(b->path_error, -EIO);
}

static void
test_transmit_doubtful_error_without_memory_is_not_answered(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 4096, 512);
    await_submitted(1);
    fake.no_memory = true;
    finish(4096, -EIO);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DEVICE);
}

static void
test_transmit_doubt_that_hangs_is_abandoned(void **state)
{
    struct bench *b = *state;

    doubt(b);
    order(b, SESSION_ABANDON);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_ORDERED);
    assert_int_equal(fake.abandoned, 1);
}

static void
test_transmit_lun_error_is_answered(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_READ, 0, 1, 0, 512);
    await_submitted(1);
    finish(0, -ENODATA);
    expect(b, 1, NBD_EIO);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(b->path_error, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_transmit_refused_write_skips_its_payload),
        TEST(test_transmit_out_of_memory_is_answered),
        TEST(test_transmit_path_error_is_never_answered),
        TEST(test_transmit_doubtful_error_is_answered_when_paths_work),
        TEST(test_transmit_doubtful_error_of_dead_paths_is_not_answered),
        TEST(test_transmit_doubtful_error_without_memory_is_not_answered),
        TEST(test_transmit_doubt_that_hangs_is_abandoned),
        TEST(test_transmit_lun_error_is_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
