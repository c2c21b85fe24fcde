/* SPDX-License-Identifier: BSD-3-Clause */
/* NBD option negotiation, both sides of STARTTLS, as a pure parser: bytes in,
 * events and reply bytes out.  Everything parsed here came from a peer. */
#ifndef DETOUR_PROXY_NEGOTIATE_H
#define DETOUR_PROXY_NEGOTIATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/export.h"
#include "proxy/buffer.h"

/* A longer option ends the connection: name, its length, and some queries. */
#define NEGOTIATE_OPTION_MAX 16384
#define NEGOTIATE_INPUT_MAX  (16 + NEGOTIATE_OPTION_MAX)
/* Options before TLS, and in one minute inside it (a parked connection asks
 * INFO once a second; nbdinfo --list takes four for each export). */
#define NEGOTIATE_PLAIN_OPTIONS  16
#define NEGOTIATE_MINUTE_OPTIONS 6000

enum negotiate_event {
    NEGOTIATE_MORE,     /* nothing whole is there: read more */
    NEGOTIATE_ANSWERED, /* the reply is in out: go on */
    NEGOTIATE_STARTTLS, /* the reply is in out: send it, then TLS */
    NEGOTIATE_ABORT,    /* the reply is in out: send it, then close */
    NEGOTIATE_BROKEN,   /* close without an answer; n->reason says why */
    /* The rest wants an answer from the caller: negotiate_list, _grant,
     * _meta or _refuse. */
    NEGOTIATE_LIST,
    NEGOTIATE_INFO,
    NEGOTIATE_GO,   /* also NBD_OPT_EXPORT_NAME */
    NEGOTIATE_META, /* LIST_META_CONTEXT and SET_META_CONTEXT */
};

struct negotiate {
    bool tls;       /* inside TLS now */
    bool greeted;   /* the client's flags have been read */
    bool no_zeroes; /* the client does without padding */
    bool structured;
    bool base_allocation; /* selected for context_name */
    char context_name[EXPORT_NAME_MAX];
    size_t context_name_len;
    unsigned options; /* since minute_ms, or since the start before TLS */
    uint64_t minute_ms;

    /* of the last event */
    uint32_t option;
    const uint8_t *name; /* in the input, name_len bytes; never NULL for
                            INFO, GO and META */
    size_t name_len;
    unsigned infos;        /* bit set of NBD_INFO_* the client asked for */
    bool wants_allocation; /* META: a query matches base:allocation */
    const char *reason;    /* BROKEN */
};

/* What INFO and GO tell about an export. */
struct negotiate_export {
    uint64_t size;
    uint16_t flags; /* without SEND_DF, which structured replies bring */
    uint32_t block_min, block_preferred, block_max;
    const char *name, *description;
};

/* negotiate_greet - append the server's first words to out. */
void negotiate_greet(struct buffer *out);

/* negotiate_secure - TLS is up: all that was said before it is forgotten. */
void negotiate_secure(struct negotiate *n, uint64_t now_ms);

/* negotiate_step - look at the next thing the client said.
 *
 * Consumes *used of the len bytes at in; a whole option never needs more
 * than NEGOTIATE_INPUT_MAX of them.  n begins as all zeroes.
 */
enum negotiate_event negotiate_step(struct negotiate *n, const uint8_t *in,
                                    size_t len, size_t *used,
                                    struct buffer *out, uint64_t now_ms);

/* negotiate_list - answer LIST with one name; then again; then ack. */
void negotiate_list(struct negotiate *n, struct buffer *out, const char *name);
void negotiate_ack(struct negotiate *n, struct buffer *out);

/* negotiate_grant - answer INFO or GO (EXPORT_NAME too) with the export.
 *
 * Contexts that were selected for another name are given up by GO. */
void negotiate_grant(struct negotiate *n, struct buffer *out,
                     const struct negotiate_export *x);

/* negotiate_meta - answer META; the caller has found the export. */
void negotiate_meta(struct negotiate *n, struct buffer *out);

/* negotiate_refuse - answer the last option with an error and a text.
 *
 * returns: false when the option knows no error reply (EXPORT_NAME): close
 */
bool negotiate_refuse(struct negotiate *n, struct buffer *out, uint32_t type,
                      const char *text);

#endif
