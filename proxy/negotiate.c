/* SPDX-License-Identifier: BSD-3-Clause */
/* NBD option negotiation as a pure parser.
 *
 * Before TLS only STARTTLS and ABORT do anything; every other option is
 * answered NBD_REP_ERR_TLS_REQD, and EXPORT_NAME, which knows no error
 * reply, ends the connection (proto.md, "FORCEDTLS mode").
 */
#include "proxy/negotiate.h"

#include "proxy/nbd.h"

#define CONTEXT    "base:allocation"
#define CONTEXT_ID 1u

/* The head of a reply; len bytes are to be appended behind it. */
static void
reply_head(struct negotiate *n, struct buffer *out, uint32_t type, size_t len)
{
    uint8_t *p = buffer_add(out, NBD_REP_HEADER);

    if (!p)
        return;
    p = nbd_put64(p, NBD_REP_MAGIC);
    p = nbd_put32(p, n->option);
    p = nbd_put32(p, type);
    nbd_put32(p, (uint32_t)len);
}

static void
reply(struct negotiate *n, struct buffer *out, uint32_t type, const void *data,
      size_t len)
{
    reply_head(n, out, type, len);
    buffer_append(out, data, len);
}

static enum negotiate_event
broken(struct negotiate *n, const char *reason)
{
    n->reason = reason;
    return NEGOTIATE_BROKEN;
}

static enum negotiate_event
refused(struct negotiate *n, struct buffer *out, uint32_t type,
        const char *text)
{
    reply(n, out, type, text, strlen(text));
    return NEGOTIATE_ANSWERED;
}

void
negotiate_greet(struct buffer *out)
{
    uint8_t *p = buffer_add(out, 18);

    if (!p)
        return;
    p = nbd_put64(p, NBD_MAGIC);
    p = nbd_put64(p, NBD_OPTION_MAGIC);
    nbd_put16(p, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
}

void
negotiate_secure(struct negotiate *n, uint64_t now_ms)
{
    bool no_zeroes = n->no_zeroes;

    *n = (struct negotiate){
        .tls = true,
        .greeted = true, /* the client's flags are not sent again */
        .no_zeroes = no_zeroes,
        .minute_ms = now_ms,
    };
}

static enum negotiate_event
client_flags(struct negotiate *n, const uint8_t *in, size_t len, size_t *used)
{
    uint32_t flags;

    if (len < 4)
        return NEGOTIATE_MORE;
    flags = nbd_get32(in);
    *used = 4;
    if (flags & ~(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
        return broken(n, "unknown client flags");
    if (!(flags & NBD_FIXED_NEWSTYLE))
        return broken(n, "not a fixed newstyle client");
    n->no_zeroes = flags & NBD_NO_ZEROES;
    n->greeted = true;
    return NEGOTIATE_ANSWERED;
}

/* A string with its 32-bit length before it; false: it does not fit. */
static bool
take_string(const uint8_t **p, size_t *left, const uint8_t **s, size_t *len)
{
    if (*left < 4)
        return false;
    *len = nbd_get32(*p);
    if (*len > *left - 4)
        return false;
    *s = *p + 4;
    *p += 4 + *len;
    *left -= 4 + *len;
    return true;
}

static enum negotiate_event
take_info(struct negotiate *n, const uint8_t *p, size_t left,
          struct buffer *out)
{
    unsigned requests;

    if (!take_string(&p, &left, &n->name, &n->name_len) || left < 2)
        return refused(n, out, NBD_REP_ERR_INVALID, "malformed option");
    requests = nbd_get16(p);
    if (left != 2 + 2 * (size_t)requests)
        return refused(n, out, NBD_REP_ERR_INVALID, "malformed option");
    if (n->name_len > EXPORT_NAME_MAX)
        return refused(n, out, NBD_REP_ERR_TOO_BIG, "export name too long");
    n->infos = 0;
    for (unsigned i = 0; i < requests; i++) {
        unsigned info = nbd_get16(p + 2 + 2 * (size_t)i);

        if (info <= NBD_INFO_BLOCK_SIZE)
            n->infos |= 1u << info;
    }
    return n->option == NBD_OPT_GO ? NEGOTIATE_GO : NEGOTIATE_INFO;
}

static bool
query_matches(uint32_t option, const uint8_t *query, size_t len)
{
    if (len == strlen(CONTEXT) && memcmp(query, CONTEXT, len) == 0)
        return true;
    /* "base:" lists the namespace, and selects nothing. */
    return option == NBD_OPT_LIST_META_CONTEXT && len == 5 &&
           memcmp(query, "base:", 5) == 0;
}

static enum negotiate_event
take_meta(struct negotiate *n, const uint8_t *p, size_t left,
          struct buffer *out)
{
    uint32_t queries;

    if (n->option == NBD_OPT_SET_META_CONTEXT)
        n->base_allocation = false;
    if (!n->structured)
        return refused(n, out, NBD_REP_ERR_INVALID,
                       "structured replies come first");
    if (!take_string(&p, &left, &n->name, &n->name_len) || left < 4)
        return refused(n, out, NBD_REP_ERR_INVALID, "malformed option");
    if (n->name_len > EXPORT_NAME_MAX)
        return refused(n, out, NBD_REP_ERR_TOO_BIG, "export name too long");
    queries = nbd_get32(p);
    p += 4;
    left -= 4;
    n->wants_allocation =
        queries == 0 && n->option == NBD_OPT_LIST_META_CONTEXT;
    /* Each turn uses up at least 4 of left. */
    for (; queries > 0; queries--) {
        const uint8_t *query;
        size_t len;

        if (!take_string(&p, &left, &query, &len))
            return refused(n, out, NBD_REP_ERR_INVALID, "malformed option");
        if (query_matches(n->option, query, len))
            n->wants_allocation = true;
    }
    if (left > 0)
        return refused(n, out, NBD_REP_ERR_INVALID, "malformed option");
    return NEGOTIATE_META;
}

static enum negotiate_event
plain_option(struct negotiate *n, size_t len, struct buffer *out)
{
    switch (n->option) {
    case NBD_OPT_STARTTLS:
        if (len > 0)
            return refused(n, out, NBD_REP_ERR_INVALID, "malformed option");
        reply(n, out, NBD_REP_ACK, NULL, 0);
        return NEGOTIATE_STARTTLS;
    case NBD_OPT_ABORT:
        reply(n, out, NBD_REP_ACK, NULL, 0);
        return NEGOTIATE_ABORT;
    case NBD_OPT_EXPORT_NAME:
        return broken(n, "asked for an export without TLS");
    default:
        return refused(n, out, NBD_REP_ERR_TLS_REQD, "TLS is required");
    }
}

static enum negotiate_event
secure_option(struct negotiate *n, const uint8_t *data, size_t len,
              struct buffer *out)
{
    switch (n->option) {
    case NBD_OPT_STARTTLS:
        return refused(n, out, NBD_REP_ERR_INVALID, "TLS is in use already");
    case NBD_OPT_ABORT:
        reply(n, out, NBD_REP_ACK, NULL, 0);
        return NEGOTIATE_ABORT;
    case NBD_OPT_EXPORT_NAME:
        if (len > EXPORT_NAME_MAX)
            return broken(n, "export name too long");
        n->name = data;
        n->name_len = len;
        return NEGOTIATE_GO;
    case NBD_OPT_LIST:
        if (len > 0)
            return refused(n, out, NBD_REP_ERR_INVALID, "malformed option");
        return NEGOTIATE_LIST;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return take_info(n, data, len, out);
    case NBD_OPT_STRUCTURED_REPLY:
        if (len > 0)
            return refused(n, out, NBD_REP_ERR_INVALID, "malformed option");
        n->structured = true;
        reply(n, out, NBD_REP_ACK, NULL, 0);
        return NEGOTIATE_ANSWERED;
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return take_meta(n, data, len, out);
    default:
        return refused(n, out, NBD_REP_ERR_UNSUP, "unknown option");
    }
}

/* Has the client said more than is decent? */
static bool
too_many(struct negotiate *n, uint64_t now_ms)
{
    if (!n->tls)
        return ++n->options > NEGOTIATE_PLAIN_OPTIONS;
    if (now_ms - n->minute_ms >= 60000) {
        n->minute_ms = now_ms;
        n->options = 0;
    }
    return ++n->options > NEGOTIATE_MINUTE_OPTIONS;
}

enum negotiate_event
negotiate_step(struct negotiate *n, const uint8_t *in, size_t len, size_t *used,
               struct buffer *out, uint64_t now_ms)
{
    size_t option_len;

    *used = 0;
    if (!n->greeted)
        return client_flags(n, in, len, used);
    if (len < NBD_OPTION_HEADER)
        return NEGOTIATE_MORE;
    if (nbd_get64(in) != NBD_OPTION_MAGIC)
        return broken(n, "bad option magic");
    option_len = nbd_get32(in + 12);
    if (option_len > NEGOTIATE_OPTION_MAX)
        return broken(n, "option too long");
    if (len < NBD_OPTION_HEADER + option_len)
        return NEGOTIATE_MORE;
    *used = NBD_OPTION_HEADER + option_len;
    if (too_many(n, now_ms))
        return broken(n, "too many options");
    n->option = nbd_get32(in + 8);
    if (!n->tls)
        return plain_option(n, option_len, out);
    return secure_option(n, in + NBD_OPTION_HEADER, option_len, out);
}

void
negotiate_list(struct negotiate *n, struct buffer *out, const char *name)
{
    size_t len = strlen(name);
    uint8_t prefix[4];

    nbd_put32(prefix, (uint32_t)len);
    reply_head(n, out, NBD_REP_SERVER, 4 + len);
    buffer_append(out, prefix, 4);
    buffer_append(out, name, len);
}

void
negotiate_ack(struct negotiate *n, struct buffer *out)
{
    reply(n, out, NBD_REP_ACK, NULL, 0);
}

static void
export_name_reply(struct negotiate *n, struct buffer *out, uint64_t size,
                  uint16_t flags)
{
    uint8_t *p = buffer_add(out, n->no_zeroes ? 10 : 10 + 124);

    if (!p)
        return;
    p = nbd_put64(p, size);
    p = nbd_put16(p, flags);
    if (!n->no_zeroes)
        memset(p, 0, 124);
}

static void
info_text(struct negotiate *n, struct buffer *out, uint16_t info,
          const char *text)
{
    uint8_t prefix[2];

    if (!(n->infos & 1u << info))
        return;
    nbd_put16(prefix, info);
    reply_head(n, out, NBD_REP_INFO, 2 + strlen(text));
    buffer_append(out, prefix, 2);
    buffer_append(out, text, strlen(text));
}

void
negotiate_grant(struct negotiate *n, struct buffer *out,
                const struct negotiate_export *x)
{
    uint16_t flags = x->flags;
    uint8_t info[14], *p;

    if (n->structured)
        flags |= NBD_FLAG_SEND_DF;
    if (n->option != NBD_OPT_INFO &&
        (n->name_len != n->context_name_len ||
         memcmp(n->name, n->context_name, n->name_len) != 0))
        n->base_allocation = false;
    if (n->option == NBD_OPT_EXPORT_NAME) {
        export_name_reply(n, out, x->size, flags);
        return;
    }
    p = nbd_put16(info, NBD_INFO_EXPORT);
    p = nbd_put64(p, x->size);
    nbd_put16(p, flags);
    reply(n, out, NBD_REP_INFO, info, 12);
    p = nbd_put16(info, NBD_INFO_BLOCK_SIZE);
    p = nbd_put32(p, x->block_min);
    p = nbd_put32(p, x->block_preferred);
    nbd_put32(p, x->block_max);
    reply(n, out, NBD_REP_INFO, info, 14);
    info_text(n, out, NBD_INFO_NAME, x->name);
    info_text(n, out, NBD_INFO_DESCRIPTION, x->description);
    reply(n, out, NBD_REP_ACK, NULL, 0);
}

void
negotiate_meta(struct negotiate *n, struct buffer *out)
{
    if (n->wants_allocation) {
        bool set = n->option == NBD_OPT_SET_META_CONTEXT;
        uint8_t id[4];

        nbd_put32(id, set ? CONTEXT_ID : 0);
        reply_head(n, out, NBD_REP_META_CONTEXT, 4 + strlen(CONTEXT));
        buffer_append(out, id, 4);
        buffer_append(out, CONTEXT, strlen(CONTEXT));
        if (set) {
            n->base_allocation = true;
            memcpy(n->context_name, n->name, n->name_len);
            n->context_name_len = n->name_len;
        }
    }
    reply(n, out, NBD_REP_ACK, NULL, 0);
}

bool
negotiate_refuse(struct negotiate *n, struct buffer *out, uint32_t type,
                 const char *text)
{
    if (n->option == NBD_OPT_EXPORT_NAME)
        return false;
    reply(n, out, type, text, strlen(text));
    return true;
}
