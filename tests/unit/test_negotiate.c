/* SPDX-License-Identifier: BSD-3-Clause */
/* NBD option negotiation, byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/nbd.h"
#include "proxy/negotiate.h"

#define NAME "vm1"

/* A conversation: what the client says, what it was answered. */
struct talk {
    struct negotiate n;
    struct buffer in, out;
    size_t used;
};

static void
put32(struct buffer *b, uint32_t v)
{
    nbd_put32(buffer_add(b, 4), v);
}

static void
put16(struct buffer *b, uint16_t v)
{
    nbd_put16(buffer_add(b, 2), v);
}

static void
put_text(struct buffer *b, const char *s)
{
    put32(b, (uint32_t)strlen(s));
    buffer_append(b, s, strlen(s));
}

static void
head(struct talk *t, uint32_t option, size_t len)
{
    nbd_put64(buffer_add(&t->in, 8), NBD_OPTION_MAGIC);
    put32(&t->in, option);
    put32(&t->in, (uint32_t)len);
}

static void
say(struct talk *t, uint32_t option, const struct buffer *data)
{
    head(t, option, data ? data->len : 0);
    if (data)
        buffer_append(&t->in, data->data, data->len);
}

static enum negotiate_event
step_at(struct talk *t, uint64_t now_ms)
{
    size_t used;
    enum negotiate_event e =
        negotiate_step(&t->n, t->in.data + t->used, t->in.len - t->used, &used,
                       &t->out, now_ms);

    t->used += used;
    assert_true(t->used <= t->in.len);
    return e;
}

static enum negotiate_event
step(struct talk *t)
{
    return step_at(t, 1);
}

/* The next reply's type; its data from *data on. */
static uint32_t
reply(struct talk *t, size_t *at, const uint8_t **data, size_t *len)
{
    const uint8_t *p = t->out.data + *at;

    assert_true(t->out.len - *at >= NBD_REP_HEADER);
    assert_true(nbd_get64(p) == NBD_REP_MAGIC);
    assert_int_equal(nbd_get32(p + 8), t->n.option);
    *len = nbd_get32(p + 16);
    assert_true(*len <= t->out.len - *at - NBD_REP_HEADER);
    *data = p + NBD_REP_HEADER;
    *at += NBD_REP_HEADER + *len;
    return nbd_get32(p + 12);
}

static uint32_t
only_reply(struct talk *t)
{
    const uint8_t *data;
    size_t at = 0, len;
    uint32_t type = reply(t, &at, &data, &len);

    assert_int_equal(at, t->out.len);
    buffer_clear(&t->out);
    return type;
}

static void
flags(struct talk *t, uint32_t client_flags)
{
    put32(&t->in, client_flags);
}

static void
begin_plain(struct talk *t)
{
    *t = (struct talk){0};
    flags(t, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    assert_int_equal(step(t), NEGOTIATE_ANSWERED);
}

static void
begin_secure(struct talk *t)
{
    begin_plain(t);
    negotiate_secure(&t->n, 1);
}

static void
end(struct talk *t)
{
    buffer_fini(&t->in);
    buffer_fini(&t->out);
}

/* The data of INFO and GO. */
static struct buffer
go_data(const char *name, unsigned infos, const uint16_t *info)
{
    struct buffer b = {0};

    put_text(&b, name);
    put16(&b, (uint16_t)infos);
    for (unsigned i = 0; i < infos; i++)
        put16(&b, info[i]);
    return b;
}

static enum negotiate_event
say_go(struct talk *t, uint32_t option, const char *name)
{
    struct buffer b = go_data(name, 0, NULL);

    say(t, option, &b);
    buffer_fini(&b);
    return step(t);
}

static enum negotiate_event
say_meta(struct talk *t, uint32_t option, const char *name, const char *query)
{
    struct buffer b = {0};

    put_text(&b, name);
    put32(&b, query ? 1 : 0);
    if (query)
        put_text(&b, query);
    say(t, option, &b);
    buffer_fini(&b);
    return step(t);
}

static void
say_structured(struct talk *t)
{
    say(t, NBD_OPT_STRUCTURED_REPLY, NULL);
    assert_int_equal(step(t), NEGOTIATE_ANSWERED);
    assert_int_equal(only_reply(t), NBD_REP_ACK);
}

static const struct negotiate_export export = {
    .size = 1 << 20,
    .flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH,
    .block_min = 512,
    .block_preferred = 4096,
    .block_max = 1 << 25,
    .name = NAME,
    .description = "about it",
};

/* ---- before TLS -------------------------------------------------------- */

static void
test_greeting_is_fixed_newstyle(void **state)
{
    struct buffer out = {0};

    (void)state;
    negotiate_greet(&out);
    assert_int_equal(out.len, 18);
    assert_memory_equal(out.data, "NBDMAGICIHAVEOPT\0\3", 18);
    buffer_fini(&out);
}

static void
test_client_flags_unknown_or_old_end_it(void **state)
{
    static const uint32_t bad[] = {0, NBD_NO_ZEROES, 4 | NBD_FIXED_NEWSTYLE,
                                   0x80000001u};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct talk t = {0};

        flags(&t, bad[i]);
        assert_int_equal(step(&t), NEGOTIATE_BROKEN);
        assert_non_null(t.n.reason);
        end(&t);
    }
}

static void
test_plain_options_need_tls(void **state)
{
    static const uint32_t options[] = {NBD_OPT_LIST,
                                       NBD_OPT_INFO,
                                       NBD_OPT_GO,
                                       NBD_OPT_STRUCTURED_REPLY,
                                       NBD_OPT_LIST_META_CONTEXT,
                                       NBD_OPT_SET_META_CONTEXT,
                                       4,
                                       99};
    struct talk t;

    (void)state;
    begin_plain(&t);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        say(&t, options[i], NULL);
        assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
        assert_int_equal(only_reply(&t), NBD_REP_ERR_TLS_REQD);
    }
    assert_false(t.n.structured);
    end(&t);
}

static void
test_plain_export_name_ends_it(void **state)
{
    struct talk t;

    (void)state;
    begin_plain(&t);
    say(&t, NBD_OPT_EXPORT_NAME, NULL);
    assert_int_equal(step(&t), NEGOTIATE_BROKEN);
    assert_int_equal(t.out.len, 0);
    end(&t);
}

static void
test_starttls_is_acknowledged_once(void **state)
{
    struct talk t;

    (void)state;
    begin_plain(&t);
    say(&t, NBD_OPT_STARTTLS, NULL);
    assert_int_equal(step(&t), NEGOTIATE_STARTTLS);
    assert_int_equal(only_reply(&t), NBD_REP_ACK);
    negotiate_secure(&t.n, 1);
    say(&t, NBD_OPT_STARTTLS, NULL);
    assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
    assert_int_equal(only_reply(&t), NBD_REP_ERR_INVALID);
    end(&t);
}

static void
test_starttls_with_data_is_invalid(void **state)
{
    struct buffer b = go_data("x", 0, NULL);
    struct talk t;

    (void)state;
    begin_plain(&t);
    say(&t, NBD_OPT_STARTTLS, &b);
    assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
    assert_int_equal(only_reply(&t), NBD_REP_ERR_INVALID);
    buffer_fini(&b);
    end(&t);
}

static void
test_starttls_leaves_what_is_behind_it(void **state)
{
    struct talk t;

    (void)state;
    begin_plain(&t);
    say(&t, NBD_OPT_STARTTLS, NULL);
    say(&t, NBD_OPT_LIST, NULL);
    assert_int_equal(step(&t), NEGOTIATE_STARTTLS);
    assert_int_equal(t.in.len - t.used, NBD_OPTION_HEADER);
    end(&t);
}

static void
test_plain_options_are_counted(void **state)
{
    struct talk t;

    (void)state;
    begin_plain(&t);
    for (unsigned i = 0; i < NEGOTIATE_PLAIN_OPTIONS; i++) {
        say(&t, NBD_OPT_LIST, NULL);
        assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
    }
    say(&t, NBD_OPT_LIST, NULL);
    assert_int_equal(step(&t), NEGOTIATE_BROKEN);
    end(&t);
}

/* ---- the frame --------------------------------------------------------- */

static void
test_option_in_pieces_waits_for_the_last_byte(void **state)
{
    struct talk t;
    size_t used;

    (void)state;
    begin_secure(&t);
    t.in.len = t.used = 0;
    say_go(&t, NBD_OPT_GO, NAME);
    for (size_t len = 0; len < t.in.len; len++) {
        assert_int_equal(negotiate_step(&t.n, t.in.data, len, &used, &t.out, 1),
                         NEGOTIATE_MORE);
        assert_int_equal(used, 0);
    }
    end(&t);
}

static void
test_bad_magic_ends_it(void **state)
{
    struct talk t;

    (void)state;
    begin_secure(&t);
    say(&t, NBD_OPT_LIST, NULL);
    t.in.data[t.used] ^= 1;
    assert_int_equal(step(&t), NEGOTIATE_BROKEN);
    end(&t);
}

static void
test_long_option_ends_it_before_its_data(void **state)
{
    struct talk t;

    (void)state;
    begin_secure(&t);
    head(&t, NBD_OPT_INFO, NEGOTIATE_OPTION_MAX + 1);
    assert_int_equal(step(&t), NEGOTIATE_BROKEN);
    end(&t);
}

static void
test_longest_option_fits_the_input(void **state)
{
    struct talk t;

    (void)state;
    begin_secure(&t);
    t.in.len = t.used = 0;
    head(&t, 77, NEGOTIATE_OPTION_MAX);
    memset(buffer_add(&t.in, NEGOTIATE_OPTION_MAX), 0, NEGOTIATE_OPTION_MAX);
    assert_int_equal(t.in.len, NEGOTIATE_INPUT_MAX);
    assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
    assert_int_equal(only_reply(&t), NBD_REP_ERR_UNSUP);
    end(&t);
}

static void
test_options_of_a_minute_are_counted(void **state)
{
    struct talk t;

    (void)state;
    begin_secure(&t);
    for (unsigned i = 0; i < NEGOTIATE_MINUTE_OPTIONS; i++) {
        say(&t, 77, NULL);
        assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
        buffer_clear(&t.out);
    }
    say(&t, 77, NULL);
    say(&t, 77, NULL);
    assert_int_equal(step_at(&t, 60000), NEGOTIATE_BROKEN);
    assert_int_equal(step_at(&t, 60001), NEGOTIATE_ANSWERED);
    end(&t);
}

/* ---- inside TLS -------------------------------------------------------- */

static void
test_info_with_a_wrong_length_is_invalid(void **state)
{
    struct buffer good = go_data(NAME, 0, NULL);

    (void)state;
    for (size_t len = 0; len < good.len + 3; len++) {
        struct buffer b = {0};
        struct talk t;

        if (len == good.len)
            continue;
        begin_secure(&t);
        memset(buffer_add(&b, len + 1), 0, len + 1);
        b.len = len;
        memcpy(b.data, good.data, len < good.len ? len : good.len);
        say(&t, NBD_OPT_INFO, &b);
        assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
        assert_int_equal(only_reply(&t), NBD_REP_ERR_INVALID);
        buffer_fini(&b);
        end(&t);
    }
    buffer_fini(&good);
}

static void
test_info_name_length_beyond_the_option_is_invalid(void **state)
{
    struct buffer b = go_data(NAME, 0, NULL);
    struct talk t;

    (void)state;
    begin_secure(&t);
    nbd_put32(b.data, 0xfffffffeu);
    say(&t, NBD_OPT_GO, &b);
    assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
    assert_int_equal(only_reply(&t), NBD_REP_ERR_INVALID);
    buffer_fini(&b);
    end(&t);
}

static void
test_info_name_too_long_is_too_big(void **state)
{
    char name[EXPORT_NAME_MAX + 2];
    struct talk t;

    (void)state;
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    begin_secure(&t);
    assert_int_equal(say_go(&t, NBD_OPT_INFO, name), NEGOTIATE_ANSWERED);
    assert_int_equal(only_reply(&t), NBD_REP_ERR_TOO_BIG);
    end(&t);
}

static void
test_go_grant_tells_what_was_asked_for(void **state)
{
    const uint16_t infos[] = {NBD_INFO_NAME, NBD_INFO_DESCRIPTION, 7777};
    struct buffer b = go_data(NAME, 3, infos);
    const uint8_t *d;
    size_t at = 0, len;
    struct talk t;

    (void)state;
    begin_secure(&t);
    say(&t, NBD_OPT_GO, &b);
    assert_int_equal(step(&t), NEGOTIATE_GO);
    assert_memory_equal(t.n.name, NAME, t.n.name_len);
    negotiate_grant(&t.n, &t.out, &export);
    assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_INFO);
    assert_int_equal(len, 12);
    assert_int_equal(nbd_get16(d), NBD_INFO_EXPORT);
    assert_int_equal(nbd_get64(d + 2), 1 << 20);
    assert_int_equal(nbd_get16(d + 10), export.flags);
    assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_INFO);
    assert_int_equal(nbd_get16(d), NBD_INFO_BLOCK_SIZE);
    assert_int_equal(nbd_get32(d + 2), 512);
    assert_int_equal(nbd_get32(d + 6), 4096);
    assert_int_equal(nbd_get32(d + 10), 1 << 25);
    assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_INFO);
    assert_memory_equal(d, "\0\1" NAME, len);
    assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_INFO);
    assert_memory_equal(d, "\0\2about it", len);
    assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_ACK);
    assert_int_equal(at, t.out.len);
    buffer_fini(&b);
    end(&t);
}

static void
test_df_is_granted_with_structured_replies_only(void **state)
{
    const uint8_t *d;
    size_t at = 0, len;
    struct talk t;

    (void)state;
    begin_secure(&t);
    say_structured(&t);
    say_go(&t, NBD_OPT_INFO, NAME);
    negotiate_grant(&t.n, &t.out, &export);
    reply(&t, &at, &d, &len);
    assert_int_equal(nbd_get16(d + 10), export.flags | NBD_FLAG_SEND_DF);
    end(&t);
}

static void
test_export_name_is_answered_with_and_without_zeroes(void **state)
{
    (void)state;
    for (uint32_t no_zeroes = 0; no_zeroes < 2; no_zeroes++) {
        struct talk t = {0};

        flags(&t, NBD_FIXED_NEWSTYLE | (no_zeroes ? NBD_NO_ZEROES : 0));
        step(&t);
        negotiate_secure(&t.n, 1);
        head(&t, NBD_OPT_EXPORT_NAME, 3);
        buffer_append(&t.in, NAME, 3);
        assert_int_equal(step(&t), NEGOTIATE_GO);
        negotiate_grant(&t.n, &t.out, &export);
        assert_int_equal(t.out.len, no_zeroes ? 10 : 134);
        assert_int_equal(nbd_get64(t.out.data), 1 << 20);
        assert_int_equal(nbd_get16(t.out.data + 8), export.flags);
        end(&t);
    }
}

static void
test_export_name_refusal_ends_it(void **state)
{
    struct talk t;

    (void)state;
    begin_secure(&t);
    head(&t, NBD_OPT_EXPORT_NAME, 0);
    assert_int_equal(step(&t), NEGOTIATE_GO);
    assert_false(negotiate_refuse(&t.n, &t.out, NBD_REP_ERR_UNKNOWN, "no"));
    assert_int_equal(t.out.len, 0);
    end(&t);
}

static void
test_refusal_carries_its_text(void **state)
{
    const uint8_t *d;
    size_t at = 0, len;
    struct talk t;

    (void)state;
    begin_secure(&t);
    say_go(&t, NBD_OPT_GO, NAME);
    assert_true(negotiate_refuse(&t.n, &t.out, NBD_REP_ERR_POLICY, "not you"));
    assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_ERR_POLICY);
    assert_int_equal(len, 7);
    assert_memory_equal(d, "not you", 7);
    end(&t);
}

static void
test_list_names_and_acknowledges(void **state)
{
    const uint8_t *d;
    size_t at = 0, len;
    struct talk t;

    (void)state;
    begin_secure(&t);
    say(&t, NBD_OPT_LIST, NULL);
    assert_int_equal(step(&t), NEGOTIATE_LIST);
    negotiate_list(&t.n, &t.out, NAME);
    negotiate_ack(&t.n, &t.out);
    assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_SERVER);
    assert_memory_equal(d, "\0\0\0\3" NAME, len);
    assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_ACK);
    end(&t);
}

/* ---- contexts ---------------------------------------------------------- */

static void
test_meta_needs_structured_replies(void **state)
{
    struct talk t;

    (void)state;
    begin_secure(&t);
    assert_int_equal(
        say_meta(&t, NBD_OPT_SET_META_CONTEXT, NAME, "base:allocation"),
        NEGOTIATE_ANSWERED);
    assert_int_equal(only_reply(&t), NBD_REP_ERR_INVALID);
    end(&t);
}

static bool
selected(struct talk *t, const char *query, const char *set, const char *go)
{
    say_structured(t);
    assert_int_equal(say_meta(t, NBD_OPT_SET_META_CONTEXT, set, query),
                     NEGOTIATE_META);
    negotiate_meta(&t->n, &t->out);
    assert_int_equal(say_go(t, NBD_OPT_GO, go), NEGOTIATE_GO);
    negotiate_grant(&t->n, &t->out, &export);
    return t->n.base_allocation;
}

static void
test_meta_set_lasts_for_its_own_name_only(void **state)
{
    struct talk t;

    (void)state;
    begin_secure(&t);
    assert_true(selected(&t, "base:allocation", NAME, NAME));
    end(&t);
    begin_secure(&t);
    assert_false(selected(&t, "base:allocation", "vm2", NAME));
    end(&t);
    begin_secure(&t);
    assert_false(selected(&t, "base:allocation", "vm", NAME));
    end(&t);
}

static void
test_meta_set_of_others_selects_nothing(void **state)
{
    static const char *const queries[] = {"base:", "base:alloc", "qemu:x", ""};

    (void)state;
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        struct talk t;

        begin_secure(&t);
        assert_false(selected(&t, queries[i], NAME, NAME));
        end(&t);
    }
}

static void
test_meta_second_set_takes_the_first_back(void **state)
{
    struct talk t;

    (void)state;
    begin_secure(&t);
    selected(&t, "base:allocation", NAME, NAME);
    say_meta(&t, NBD_OPT_SET_META_CONTEXT, NAME, NULL);
    negotiate_meta(&t.n, &t.out);
    assert_false(t.n.base_allocation);
    end(&t);
}

static void
test_meta_list_offers_and_selects_nothing(void **state)
{
    static const char *const queries[] = {NULL, "base:", "base:allocation"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *d;
        size_t at = 0, len;
        struct talk t;

        begin_secure(&t);
        say_structured(&t);
        assert_int_equal(
            say_meta(&t, NBD_OPT_LIST_META_CONTEXT, NAME, queries[i]),
            NEGOTIATE_META);
        negotiate_meta(&t.n, &t.out);
        assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_META_CONTEXT);
        assert_int_equal(len, 19);
        assert_memory_equal(d + 4, "base:allocation", 15);
        assert_int_equal(reply(&t, &at, &d, &len), NBD_REP_ACK);
        assert_false(t.n.base_allocation);
        end(&t);
    }
}

static void
test_meta_with_more_queries_than_bytes_is_invalid(void **state)
{
    struct buffer b = {0};
    struct talk t;

    (void)state;
    begin_secure(&t);
    say_structured(&t);
    put_text(&b, NAME);
    put32(&b, 0xffffffffu);
    say(&t, NBD_OPT_SET_META_CONTEXT, &b);
    assert_int_equal(step(&t), NEGOTIATE_ANSWERED);
    assert_int_equal(only_reply(&t), NBD_REP_ERR_INVALID);
    buffer_fini(&b);
    end(&t);
}

static void
test_tls_forgets_what_was_said_before(void **state)
{
    struct negotiate n = {.structured = true,
                          .base_allocation = true,
                          .greeted = true,
                          .no_zeroes = true};

    (void)state;
    negotiate_secure(&n, 1);
    assert_true(n.tls && n.greeted && n.no_zeroes);
    assert_false(n.structured || n.base_allocation);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting_is_fixed_newstyle),
        cmocka_unit_test(test_client_flags_unknown_or_old_end_it),
        cmocka_unit_test(test_plain_options_need_tls),
        cmocka_unit_test(test_plain_export_name_ends_it),
        cmocka_unit_test(test_starttls_is_acknowledged_once),
        cmocka_unit_test(test_starttls_with_data_is_invalid),
        cmocka_unit_test(test_starttls_leaves_what_is_behind_it),
        cmocka_unit_test(test_plain_options_are_counted),
        cmocka_unit_test(test_option_in_pieces_waits_for_the_last_byte),
        cmocka_unit_test(test_bad_magic_ends_it),
        cmocka_unit_test(test_long_option_ends_it_before_its_data),
        cmocka_unit_test(test_longest_option_fits_the_input),
        cmocka_unit_test(test_options_of_a_minute_are_counted),
        cmocka_unit_test(test_info_with_a_wrong_length_is_invalid),
        cmocka_unit_test(test_info_name_length_beyond_the_option_is_invalid),
        cmocka_unit_test(test_info_name_too_long_is_too_big),
        cmocka_unit_test(test_go_grant_tells_what_was_asked_for),
        cmocka_unit_test(test_df_is_granted_with_structured_replies_only),
        cmocka_unit_test(test_export_name_is_answered_with_and_without_zeroes),
        cmocka_unit_test(test_export_name_refusal_ends_it),
        cmocka_unit_test(test_refusal_carries_its_text),
        cmocka_unit_test(test_list_names_and_acknowledges),
        cmocka_unit_test(test_meta_needs_structured_replies),
        cmocka_unit_test(test_meta_set_lasts_for_its_own_name_only),
        cmocka_unit_test(test_meta_set_of_others_selects_nothing),
        cmocka_unit_test(test_meta_second_set_takes_the_first_back),
        cmocka_unit_test(test_meta_list_offers_and_selects_nothing),
        cmocka_unit_test(test_meta_with_more_queries_than_bytes_is_invalid),
        cmocka_unit_test(test_tls_forgets_what_was_said_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
