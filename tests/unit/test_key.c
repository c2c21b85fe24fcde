/* SPDX-License-Identifier: BSD-3-Clause */
/* Reservation keys: their bits, and whose are not ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lun/key.h"

static void
test_key_has_its_place_for_each_part(void **state)
{
    (void)state;
    assert_true(key_pack((struct key){1, 2, 3}) == 0xDE70001002000003);
    assert_true(key_pack((struct key){4095, 4095, KEY_EPOCH_MAX}) ==
                0xDE70FFFFFFFFFFFF);
}

static void
test_key_parts_never_spill(void **state)
{
    (void)state;
    assert_true(key_pack((struct key){0x1000, 0x1001, 0x1000002}) ==
                0xDE70000001000002);
}

static void
test_key_survives_a_round_trip(void **state)
{
    static const struct key keys[] = {
        {0, 1, 1}, {4095, 4095, KEY_EPOCH_MAX}, {7, 300, 70000}};

    (void)state;
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        struct key k = {0};

        assert_true(key_unpack(key_pack(keys[i]), &k));
        assert_int_equal(k.cluster, keys[i].cluster);
        assert_int_equal(k.host, keys[i].host);
        assert_int_equal(k.epoch, keys[i].epoch);
    }
}

static void
test_key_of_others_is_left_alone(void **state)
{
    static const uint64_t others[] = {
        0,
        UINT64_MAX,
        0xDE71001002000003, /* another magic number */
        0xDE70001000000003, /* no host */
        0xDE70001002000000, /* no epoch */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        struct key k = {11, 22, 33};

        assert_false(key_unpack(others[i], &k));
        assert_int_equal(k.cluster, 11);
        assert_int_equal(k.host, 22);
        assert_int_equal(k.epoch, 33);
    }
}

static void
test_key_epochs_go_round_without_zero(void **state)
{
    (void)state;
    assert_int_equal(key_next_epoch(0), 1);
    assert_int_equal(key_next_epoch(1), 2);
    assert_int_equal(key_next_epoch(KEY_EPOCH_MAX - 1), KEY_EPOCH_MAX);
    assert_int_equal(key_next_epoch(KEY_EPOCH_MAX), 1);
    assert_int_equal(key_next_epoch(UINT32_MAX), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_has_its_place_for_each_part),
        cmocka_unit_test(test_key_parts_never_spill),
        cmocka_unit_test(test_key_survives_a_round_trip),
        cmocka_unit_test(test_key_of_others_is_left_alone),
        cmocka_unit_test(test_key_epochs_go_round_without_zero),
    };

    return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
