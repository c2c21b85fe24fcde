/* SPDX-License-Identifier: BSD-3-Clause */
/* NBD requests and replies: what is refused, and the bytes that are sent. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/nbd.h"
#include "proxy/request.h"

#define SIZE 1048576u

static struct request_export
export_of(bool readonly, bool can)
{
    const struct lun_status st = {
        .known = true,
        .size = SIZE,
        .block_size = 512,
        .max_io = 65536,
        .readonly = readonly,
        .can_trim = can,
        .can_zero = can,
    };
    struct request_export x;

    request_export_init(&x, &st);
    x.structured = x.base_allocation = true;
    return x;
}

static void
assert_check(const struct request_export *x, uint16_t type, unsigned flags,
             uint64_t offset, uint32_t count, int expected)
{
    const struct request r = {.type = type,
                              .flags = (uint16_t)flags,
                              .offset = offset,
                              .count = count};
    int rc = request_check(&r, x);

    if (rc != expected)
        fail_msg("type %u flags %x %llu+%u: %d, not %d", type, flags,
                 (unsigned long long)offset, count, rc, expected);
}

static void
test_request_parse_takes_every_field(void **state)
{
    uint8_t wire[NBD_REQUEST_SIZE];
    struct request r;

    (void)state;
    nbd_put32(wire, NBD_REQUEST_MAGIC);
    nbd_put16(wire + 4, 0x0102);
    nbd_put16(wire + 6, 0x0304);
    nbd_put64(wire + 8, 0x1112131415161718ull);
    nbd_put64(wire + 16, 0x2122232425262728ull);
    nbd_put32(wire + 24, 0x31323334u);
    assert_int_equal(request_parse(wire, &r), 0);
    assert_int_equal(r.flags, 0x0102);
    assert_int_equal(r.type, 0x0304);
    assert_true(r.cookie == 0x1112131415161718ull);
    assert_true(r.offset == 0x2122232425262728ull);
    assert_int_equal(r.count, 0x31323334u);
    wire[0] ^= 1;
    assert_int_equal(request_parse(wire, &r), -EPROTO);
}

static void
test_request_inside_the_lun_is_fine(void **state)
{
    struct request_export x = export_of(false, true);

    (void)state;
    for (uint16_t type = 0; type <= NBD_CMD_BLOCK_STATUS; type++)
        if (type != NBD_CMD_DISC)
            assert_check(&x, type, NBD_CMD_FLAG_FUA, SIZE - 512, 512, 0);
    assert_check(&x, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 65536, 0);
    assert_check(&x, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 0, SIZE, 0);
    assert_check(&x, NBD_CMD_TRIM, 0, 0, SIZE, 0);
    assert_check(&x, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 0, SIZE, 0);
}

static void
test_request_outside_the_lun_is_refused(void **state)
{
    static const struct {
        uint16_t type;
        int error;
    } wanted[] = {
        {NBD_CMD_READ, -EINVAL},         {NBD_CMD_WRITE, -ENOSPC},
        {NBD_CMD_TRIM, -EINVAL},         {NBD_CMD_CACHE, -EINVAL},
        {NBD_CMD_WRITE_ZEROES, -ENOSPC}, {NBD_CMD_BLOCK_STATUS, -EINVAL},
    };
    struct request_export x = export_of(false, true);

    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        uint16_t type = wanted[i].type;
        int error = wanted[i].error;

        assert_check(&x, type, 0, SIZE - 512, 1024, error);
        assert_check(&x, type, 0, SIZE, 512, error);
        assert_check(&x, type, 0, UINT64_MAX - 511, 512, error);
        assert_check(&x, type, 0, UINT64_MAX - 1023, 2048, error);
    }
}

static void
test_request_misaligned_or_empty_is_invalid(void **state)
{
    static const uint16_t types[] = {NBD_CMD_READ,  NBD_CMD_WRITE,
                                     NBD_CMD_TRIM,  NBD_CMD_WRITE_ZEROES,
                                     NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS};
    struct request_export x = export_of(false, true);

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        assert_check(&x, types[i], 0, 1, 512, -EINVAL);
        assert_check(&x, types[i], 0, 512, 511, -EINVAL);
        assert_check(&x, types[i], 0, 512, 0, -EINVAL);
    }
}

static void
test_request_too_large_is_invalid(void **state)
{
    struct request_export x = export_of(false, true);

    (void)state;
    assert_check(&x, NBD_CMD_READ, 0, 0, 65536 + 512, -EINVAL);
    assert_check(&x, NBD_CMD_WRITE, 0, 0, 65536 + 512, -EINVAL);
}

static void
test_request_unknown_or_with_unknown_flags_is_invalid(void **state)
{
    struct request_export x = export_of(false, true);

    (void)state;
    assert_check(&x, 8, 0, 0, 512, -EINVAL);
    assert_check(&x, 0xffff, 0, 0, 512, -EINVAL);
    for (uint16_t type = 0; type <= NBD_CMD_BLOCK_STATUS; type++)
        if (type != NBD_CMD_DISC)
            assert_check(&x, type, 1u << 7, 0, 512, -EINVAL);
    assert_check(&x, NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 512, -EINVAL);
    assert_check(&x, NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 512, -EINVAL);
}

static void
test_request_what_was_not_granted_is_invalid(void **state)
{
    struct request_export x = export_of(false, false);

    (void)state;
    assert_int_equal(
        x.flags & (NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES), 0);
    assert_check(&x, NBD_CMD_TRIM, 0, 0, 512, -EINVAL);
    assert_check(&x, NBD_CMD_WRITE_ZEROES, 0, 0, 512, -EINVAL);
    x.structured = x.base_allocation = false;
    assert_check(&x, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512, -EINVAL);
    assert_check(&x, NBD_CMD_BLOCK_STATUS, 0, 0, 512, -EINVAL);
}

static void
test_request_fast_zero_is_not_supported(void **state)
{
    struct request_export x = export_of(false, true);

    (void)state;
    assert_check(&x, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 512,
                 -EOPNOTSUPP);
}

static void
test_request_change_of_a_readonly_lun_is_not_permitted(void **state)
{
    struct request_export x = export_of(true, true);

    (void)state;
    assert_true(x.flags & NBD_FLAG_READ_ONLY);
    assert_check(&x, NBD_CMD_WRITE, 0, 0, 512, -EPERM);
    assert_check(&x, NBD_CMD_TRIM, 0, 0, 512, -EPERM);
    assert_check(&x, NBD_CMD_WRITE_ZEROES, 0, 0, 512, -EPERM);
    assert_check(&x, NBD_CMD_READ, 0, 0, 512, 0);
    assert_check(&x, NBD_CMD_FLUSH, 0, 0, 0, 0);
}

static void
test_request_export_limits_are_whole_blocks(void **state)
{
    const struct lun_status st = {
        .known = true, .size = SIZE, .block_size = 4096, .max_io = 10000};
    struct request_export x;

    (void)state;
    request_export_init(&x, &st);
    assert_int_equal(x.max_io, 8192);
}

static void
test_request_errors_have_their_numbers(void **state)
{
    static const struct {
        int error;
        uint32_t nbd;
    } wanted[] = {
        {0, 0},
        {-EPERM, NBD_EPERM},
        {-EROFS, NBD_EPERM},
        {-EIO, NBD_EIO},
        {-ENODATA, NBD_EIO},
        {-EREMOTEIO, NBD_EIO},
        {-EILSEQ, NBD_EIO},
        {-ENOMEM, NBD_ENOMEM},
        {-EINVAL, NBD_EINVAL},
        {-ENOSPC, NBD_ENOSPC},
        {-EOVERFLOW, NBD_EOVERFLOW},
        {-EOPNOTSUPP, NBD_ENOTSUP},
        {-ESHUTDOWN, NBD_ESHUTDOWN},
    };

    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        assert_int_equal(request_error(wanted[i].error), wanted[i].nbd);
}

static void
test_reply_simple(void **state)
{
    const struct request r = {.type = NBD_CMD_WRITE, .cookie = 0xabcd};
    struct request_export x = export_of(false, true);
    uint8_t out[REQUEST_REPLY_MAX];

    (void)state;
    assert_int_equal(request_reply(&r, &x, -ENOSPC, out), 16);
    assert_int_equal(nbd_get32(out), NBD_SIMPLE_MAGIC);
    assert_int_equal(nbd_get32(out + 4), NBD_ENOSPC);
    assert_int_equal(nbd_get64(out + 8), 0xabcd);
}

static void
test_reply_to_read_is_one_chunk(void **state)
{
    const struct request r = {
        .type = NBD_CMD_READ, .cookie = 7, .offset = 512, .count = 1024};
    struct request_export x = export_of(false, true);
    uint8_t out[REQUEST_REPLY_MAX];

    (void)state;
    assert_int_equal(request_reply(&r, &x, 0, out), 28);
    assert_int_equal(nbd_get32(out), NBD_STRUCTURED_MAGIC);
    assert_int_equal(nbd_get16(out + 4), NBD_REPLY_FLAG_DONE);
    assert_int_equal(nbd_get16(out + 6), NBD_REPLY_TYPE_OFFSET_DATA);
    assert_int_equal(nbd_get64(out + 8), 7);
    assert_int_equal(nbd_get32(out + 16), 8 + 1024);
    assert_int_equal(nbd_get64(out + 20), 512);
    assert_int_equal(request_reply(&r, &x, -EIO, out), 26);
    assert_int_equal(nbd_get16(out + 6), NBD_REPLY_TYPE_ERROR);
    assert_int_equal(nbd_get32(out + 20), NBD_EIO);
    x.structured = false;
    assert_int_equal(request_reply(&r, &x, 0, out), 16);
}

static void
test_reply_to_block_status_is_cut_to_the_range(void **state)
{
    const struct lun_extent extents[] = {
        {.count = 512}, {.count = 1024, .hole = true}, {.count = 1ull << 40}};
    struct request r = {.type = NBD_CMD_BLOCK_STATUS, .count = 2048};
    uint8_t out[REQUEST_STATUS_MAX];

    (void)state;
    assert_int_equal(request_status(&r, extents, 3, out), 24 + 3 * 8);
    assert_int_equal(nbd_get16(out + 6), NBD_REPLY_TYPE_BLOCK_STATUS);
    assert_int_equal(nbd_get32(out + 16), 4 + 3 * 8);
    assert_int_equal(nbd_get32(out + 24), 512);
    assert_int_equal(nbd_get32(out + 28), 0);
    assert_int_equal(nbd_get32(out + 32), 1024);
    assert_int_equal(nbd_get32(out + 36), NBD_STATE_HOLE | NBD_STATE_ZERO);
    assert_int_equal(nbd_get32(out + 40), 512);
    r.flags = NBD_CMD_FLAG_REQ_ONE;
    assert_int_equal(request_status(&r, extents, 3, out), 24 + 8);
    r.flags = 0;
    r.count = 512;
    assert_int_equal(request_status(&r, extents, 3, out), 24 + 8);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_parse_takes_every_field),
        cmocka_unit_test(test_request_inside_the_lun_is_fine),
        cmocka_unit_test(test_request_outside_the_lun_is_refused),
        cmocka_unit_test(test_request_misaligned_or_empty_is_invalid),
        cmocka_unit_test(test_request_too_large_is_invalid),
        cmocka_unit_test(test_request_unknown_or_with_unknown_flags_is_invalid),
        cmocka_unit_test(test_request_what_was_not_granted_is_invalid),
        cmocka_unit_test(test_request_fast_zero_is_not_supported),
        cmocka_unit_test(
            test_request_change_of_a_readonly_lun_is_not_permitted),
        cmocka_unit_test(test_request_export_limits_are_whole_blocks),
        cmocka_unit_test(test_request_errors_have_their_numbers),
        cmocka_unit_test(test_reply_simple),
        cmocka_unit_test(test_reply_to_read_is_one_chunk),
        cmocka_unit_test(test_reply_to_block_status_is_cut_to_the_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
