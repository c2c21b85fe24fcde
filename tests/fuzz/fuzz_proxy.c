/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz entry for all that the proxy parses from peers: options before and
 * inside TLS, requests, export names and descriptions.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE \
 *     tests/fuzz/fuzz_proxy.c proxy/negotiate.c proxy/request.c \
 *     proxy/buffer.c common/export.c -o /tmp/fuzz_proxy
 *   /tmp/fuzz_proxy -max_len=20000 tests/fuzz/proxy
 *
 * The first byte of an input chooses the parser.  A wrong answer aborts, so
 * that the corpus is a test as well: tests/unit/test_fuzz_proxy.c.
 */
#include <stdlib.h>
#include <string.h>

#include "common/export.h"
#include "proxy/nbd.h"
#include "proxy/negotiate.h"
#include "proxy/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
must(bool ok)
{
    if (!ok)
        abort();
}

/* Whole replies and nothing else. */
static void
check_replies(const struct buffer *out)
{
    size_t at = 0;

    while (at < out->len) {
        must(out->len - at >= NBD_REP_HEADER);
        must(nbd_get64(out->data + at) == NBD_REP_MAGIC);
        at += NBD_REP_HEADER + nbd_get32(out->data + at + 16);
        must(at <= out->len);
    }
}

static void
answer(struct negotiate *n, enum negotiate_event event, struct buffer *out)
{
    static const struct negotiate_export export = {
        .size = 1 << 20, .block_min = 512, .name = "x", .description = "y"};

    must(event < NEGOTIATE_LIST || n->tls);
    switch (event) {
    case NEGOTIATE_LIST:
        negotiate_list(n, out, "x");
        negotiate_ack(n, out);
        break;
    case NEGOTIATE_GO:
    case NEGOTIATE_INFO:
        must(n->name_len <= EXPORT_NAME_MAX);
        if (n->name_len % 2)
            negotiate_refuse(n, out, NBD_REP_ERR_UNKNOWN, "no");
        else
            negotiate_grant(n, out, &export);
        break;
    case NEGOTIATE_META:
        must(n->structured && n->name_len <= EXPORT_NAME_MAX);
        negotiate_meta(n, out);
        break;
    default:
        break;
    }
    /* all but the answer to EXPORT_NAME, which has no head */
    if (event != NEGOTIATE_GO || n->option != NBD_OPT_EXPORT_NAME)
        check_replies(out);
}

static void
options(const uint8_t *data, size_t len, bool tls)
{
    struct negotiate n = {0};
    struct buffer out = {0};
    enum negotiate_event event = NEGOTIATE_ANSWERED;

    if (tls)
        negotiate_secure(&n, 1);
    while (event != NEGOTIATE_MORE && event != NEGOTIATE_BROKEN &&
           event != NEGOTIATE_STARTTLS && event != NEGOTIATE_ABORT) {
        size_t used;

        buffer_clear(&out);
        event = negotiate_step(&n, data, len, &used, &out, 1);
        must(used <= len);
        must(event != NEGOTIATE_MORE || used == 0);
        must(used > 0 || event == NEGOTIATE_MORE || event == NEGOTIATE_BROKEN);
        answer(&n, event, &out);
        data += used;
        len -= used;
    }
    buffer_fini(&out);
}

static void
requests(const uint8_t *data, size_t len)
{
    const struct request_export x = {
        .size = 1 << 20,
        .block_size = 512,
        .max_io = 65536,
        .flags = NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES,
        .structured = len % 2,
        .base_allocation = len % 3,
    };

    for (; len >= NBD_REQUEST_SIZE; data += NBD_REQUEST_SIZE) {
        uint8_t head[REQUEST_REPLY_MAX];
        struct request r;
        int error;

        len -= NBD_REQUEST_SIZE;
        if (request_parse(data, &r) < 0)
            continue;
        error = request_check(&r, &x);
        must(error <= 0);
        must(request_reply(&r, &x, error, head) <= sizeof head);
        if (error || r.type == NBD_CMD_FLUSH)
            continue;
        must(r.count > 0 && r.offset % 512 == 0 && r.count % 512 == 0);
        must(r.offset < x.size && r.count <= x.size - r.offset);
        must(r.type > NBD_CMD_WRITE || r.count <= x.max_io);
    }
}

/* What was parsed is written and parsed again as the same. */
static void
name(const uint8_t *data, size_t len)
{
    char buf[EXPORT_NAME_MAX + 1], err[128];
    struct export_name e, again;

    if (len > EXPORT_NAME_MAX ||
        export_name_parse((const char *)data, len, &e, err, sizeof err))
        return;
    must(e.nfence <= EXPORT_FENCE_MAX);
    if (export_name_format(&e, buf))
        return;
    must(!export_name_parse(buf, strlen(buf), &again, err, sizeof err));
    must(strcmp(e.lun, again.lun) == 0 && strcmp(e.client, again.client) == 0);
    must(strcmp(e.id, again.id) == 0 && e.generation == again.generation);
    must(e.nfence == again.nfence);
}

static void
description(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 1);
    struct export_info i;

    must(text);
    memcpy(text, data, len);
    text[len] = '\0';
    export_info_parse(text, &i);
    free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    switch (data[0]) {
    case '0':
        options(data + 1, len - 1, false);
        break;
    case '1':
        options(data + 1, len - 1, true);
        break;
    case '2':
        requests(data + 1, len - 1);
        break;
    case '3':
        name(data + 1, len - 1);
        break;
    case '4':
        description(data + 1, len - 1);
        break;
    default:
        break;
    }
    return 0;
}
