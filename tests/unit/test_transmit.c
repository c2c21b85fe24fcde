/* SPDX-License-Identifier: BSD-3-Clause */
/* The data path of one connection: requests and their answers. */
#include "tests/unit/transmit_bench.h"

static void
test_transmit_read_brings_the_data(void **state)
{
    struct bench *b = *state;
    static const uint32_t counts[] = {512, 16384, 65536};
    char data[65536];

    begin(b);
    fake.at_once = true;
    for (size_t i = 0; i < 3; i++) {
        ask(b, NBD_CMD_READ, 0, i, 4096, counts[i]);
        expect(b, i, 0);
        receive(b, data, counts[i]);
        for (uint32_t k = 0; k < counts[i]; k++)
            assert_int_equal(data[k], (char)((4096 + k) >> 9));
    }
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(b->member.bytes_read, 512 + 16384 + 65536);
}

static void
test_transmit_many_large_reads_at_once(void **state)
{
    struct bench *b = *state;
    char *data = malloc(MAX_IO);

    begin(b);
    fake.at_once = true;
    for (unsigned i = 0; i < 40; i++)
        ask(b, NBD_CMD_READ, 0, i, i * 512ull, i % 2 ? MAX_IO : 512);
    for (unsigned i = 0; i < 40; i++) {
        uint8_t wire[16];
        uint64_t cookie;

        receive(b, wire, sizeof wire);
        cookie = nbd_get64(wire + 8);
        receive(b, data, cookie % 2 ? MAX_IO : 512);
        assert_int_equal(data[0], (char)cookie);
        assert_int_equal(data[511], (char)cookie);
    }
    free(data);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_write_carries_payload_flags_and_registration(void **state)
{
    struct bench *b = *state;
    char *data = malloc(MAX_IO);
    struct lun_io *io;

    begin(b);
    for (unsigned i = 0; i < MAX_IO; i++)
        data[i] = (char)(i * 7);
    ask(b, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 5, 8192, MAX_IO);
    send_all(b, data, MAX_IO);
    await_submitted(1);
    io = &fake.first->io;
    assert_int_equal(io->op, LUN_WRITE);
    assert_int_equal(io->flags, LUN_FUA);
    assert_int_equal(io->registration_no, 3);
    assert_memory_equal(io->data, data, MAX_IO);
    assert_true(atomic_load(&b->member.oldest_ms) > 0);
    finish(8192, 0);
    expect(b, 5, 0);
    free(data);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_answers_as_requests_finish(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    ask(b, NBD_CMD_TRIM, 0, 2, 512, 512);
    await_submitted(2);
    finish(512, 0);
    expect(b, 2, 0);
    finish(0, -ENOSPC);
    expect(b, 1, NBD_ENOSPC);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_long_trim_goes_in_parts(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 512, 2 * MAX_IO + 512);
    for (unsigned i = 0; i < 3; i++) {
        await_submitted(i + 1);
        assert_int_equal(fake.first->io.count, i < 2 ? MAX_IO : 512);
        finish(512 + i * (uint64_t)MAX_IO, 0);
    }
    expect(b, 1, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(fake.submitted, 3);
}

static void
test_transmit_takes_no_more_than_it_may(void **state)
{
    struct bench *b = *state;

    begin(b);
    for (unsigned i = 0; i < REQUESTS + 3; i++)
        ask(b, NBD_CMD_TRIM, 0, i, i * 512ull, 512);
    await_submitted(REQUESTS);
    finish(0, 0);
    expect(b, 0, 0);
    await_submitted(REQUESTS + 1);
    assert_int_equal(fake.most, REQUESTS);
    fake.at_once = true;
    for (unsigned i = 1; i <= REQUESTS; i++)
        finish(i * 512ull, 0);
    for (unsigned i = 1; i < REQUESTS + 3; i++) {
        uint8_t wire[16];

        receive(b, wire, sizeof wire);
    }
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(fake.submitted, REQUESTS + 3);
}

static void
test_transmit_one_request_when_its_host_holds_much(void **state)
{
    struct bench *b = *state;
    char data[512];

    b->held_by_others = 256u << 20;
    for (unsigned i = 0; i < 3; i++)
        ask(b, NBD_CMD_READ, 0, i, i * 512ull, 512);
    begin(b);
    for (unsigned i = 0; i < 3; i++) {
        await_submitted(i + 1);
        finish(i * 512ull, 0);
        expect(b, i, 0);
        receive(b, data, sizeof data);
    }
    assert_int_equal(fake.most, 1);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_ends_when_its_host_holds_too_much(void **state)
{
    struct bench *b = *state;

    b->held_by_others = 1u << 30;
    begin(b);
    ask(b, NBD_CMD_FLUSH, 0, 1, 0, 0);
    await_submitted(1);
    finish(0, 0);
    expect(b, 1, 0);
    ask(b, NBD_CMD_WRITE, 0, 2, 0, 512);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_RESOURCE);
    assert_string_equal(b->why, "its host has more than 1024 MiB under way");
    assert_int_equal(fake.submitted, 1);
}

static void
test_transmit_block_status_in_chunks(void **state)
{
    struct bench *b = *state;
    uint8_t wire[24 + 16];

    b->opt.export.structured = b->opt.export.base_allocation = true;
    begin(b);
    ask(b, NBD_CMD_BLOCK_STATUS, 0, 9, 0, 4096);
    receive(b, wire, sizeof wire);
    assert_int_equal(nbd_get32(wire), NBD_STRUCTURED_MAGIC);
    assert_int_equal(nbd_get64(wire + 8), 9);
    assert_int_equal(nbd_get32(wire + 24), 512);
    assert_int_equal(nbd_get32(wire + 28), NBD_STATE_HOLE | NBD_STATE_ZERO);
    assert_int_equal(nbd_get32(wire + 32), 4096 - 512);
    assert_int_equal(nbd_get32(wire + 36), 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_requests_byte_by_byte(void **state)
{
    struct bench *b = *state;
    uint8_t wire[NBD_REQUEST_SIZE + 512] = {0};

    begin(b);
    fake.at_once = true;
    nbd_put32(wire, NBD_REQUEST_MAGIC);
    nbd_put16(wire + 6, NBD_CMD_WRITE);
    nbd_put64(wire + 8, 77);
    nbd_put32(wire + 24, 512);
    for (size_t i = 0; i < sizeof wire; i++)
        send_all(b, wire + i, 1);
    expect(b, 77, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_early_bytes_are_used(void **state)
{
    struct bench *b = *state;
    uint8_t wire[NBD_REQUEST_SIZE] = {0};

    nbd_put32(wire, NBD_REQUEST_MAGIC);
    nbd_put16(wire + 6, NBD_CMD_CACHE);
    nbd_put64(wire + 8, 77);
    nbd_put32(wire + 24, 512);
    b->opt.early = wire;
    b->opt.early_len = sizeof wire;
    begin(b);
    expect(b, 77, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

/* All of them at hand, more than there is room for: what makes room must not
 * be waited for. */
static void
test_transmit_buffered_requests_go_on_when_there_is_room(void **state)
{
    struct bench *b = *state;
    uint8_t wire[5 * REQUESTS][NBD_REQUEST_SIZE] = {0};

    for (unsigned i = 0; i < 5 * REQUESTS; i++) {
        nbd_put32(wire[i], NBD_REQUEST_MAGIC);
        nbd_put16(wire[i] + 6, NBD_CMD_CACHE);
        nbd_put64(wire[i] + 8, i);
        nbd_put32(wire[i] + 24, 512);
    }
    send_all(b, wire, sizeof wire);
    begin(b);
    for (unsigned i = 0; i < 5 * REQUESTS; i++)
        expect(b, i, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_transmit_read_brings_the_data),
        TEST(test_transmit_many_large_reads_at_once),
        TEST(test_transmit_write_carries_payload_flags_and_registration),
        TEST(test_transmit_answers_as_requests_finish),
        TEST(test_transmit_long_trim_goes_in_parts),
        TEST(test_transmit_takes_no_more_than_it_may),
        TEST(test_transmit_one_request_when_its_host_holds_much),
        TEST(test_transmit_ends_when_its_host_holds_too_much),
        TEST(test_transmit_block_status_in_chunks),
        TEST(test_transmit_requests_byte_by_byte),
        TEST(test_transmit_early_bytes_are_used),
        TEST(test_transmit_buffered_requests_go_on_when_there_is_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
