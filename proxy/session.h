/* SPDX-License-Identifier: BSD-3-Clause */
/* Who has this LUN open through us, and under which generation.
 *
 * A client is (certificate's host, client's name); its highest generation is
 * remembered as long as the process lives.  A session is one generation of a
 * client with connections open or writes not come back; each connection is a
 * member.  Plain NBD clients, without a generation, have a session each.
 *
 * No I/O and no clock.  The owner's lock guards a table and all in it.
 */
#ifndef DETOUR_PROXY_SESSION_H
#define DETOUR_PROXY_SESSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lun/lun.h"

/* Names that one host's clients may use up in a process' life. */
#define SESSION_CLIENTS_MAX 4096

/* What a connection is told to do, each stronger than the one before. */
enum session_order {
    SESSION_RUN,
    SESSION_DRAIN,   /* ESHUTDOWN to new requests, close when idle */
    SESSION_FINISH,  /* reset now, submit nothing, let what is under way end */
    SESSION_ABANDON, /* reset now, abandon what is under way */
};

/* One connection, as others see it. */
struct session_member {
    /* Must not block; called under the owner's lock. */
    void (*order)(struct session_member *m, enum session_order o);
    const char *address;
    uint64_t since_ms;
    _Atomic unsigned inflight;    /* requests not answered */
    _Atomic uint64_t oldest_ms;   /* when the oldest of them came; 0: none */
    _Atomic uint64_t answered_ms; /* when one was last answered; 0: never */
    _Atomic uint64_t requests, bytes_read, bytes_written;
    /* the table's */
    struct session *session;
    struct session_member *next;
};

/* What was done for somebody. */
struct session_work {
    uint64_t requests, bytes_read, bytes_written;
};

struct session_client {
    char *host, *client;      /* client "": all plain ones of host */
    uint64_t generation;      /* the highest one seen */
    struct session_work past; /* on connections that have ended */
    struct session_client *next;
};

struct session {
    struct session_client *of; /* NULL: a plain client */
    const char *host;          /* of the certificate */
    uint64_t generation;       /* 0: plain */
    uint64_t since_ms;
    struct lun_tally *tally; /* its writes, trims and zeroes under way */
    struct session_member *members;
    unsigned pins; /* waiters that hold on to tally */
    struct session *next;
};

/* All zeroes is an empty one. */
struct session_table {
    struct session_client *clients;
    struct session_client *plain; /* one for each host that had any */
    struct session *sessions;
};

/* session_table_fini - forget everything; no member must be left. */
void session_table_fini(struct session_table *t);

/* session_claim - a client asks for a generation.
 *
 * Remembers it and tells the members of lower ones to finish.
 *
 * errors:  -ESTALE  *seen, a higher one, was claimed before
 *          -ENOSPC  too many clients of this host; -ENOMEM
 */
int session_claim(struct session_table *t, const char *host, const char *client,
                  uint64_t generation, uint64_t *seen);

/* session_older - a session of that client below generation that still has
 * members or writes under way; NULL: none is left. */
struct session *session_older(struct session_table *t, const char *host,
                              const char *client, uint64_t generation);

/* session_join - m becomes a member.
 *
 * client "": a plain one with a session of its own.
 *
 * errors:  -ESTALE  a higher generation was claimed meanwhile; -ENOMEM
 */
int session_join(struct session_table *t, const char *host, const char *client,
                 uint64_t generation, struct session_member *m);

/* session_leave - m has submitted its last request. */
void session_leave(struct session_table *t, struct session_member *m);

/* session_each_work - what was done for each client there has been, on all its
 * connections, which only ever grows. */
void session_each_work(const struct session_table *t,
                       void (*fn)(void *opaque, const struct session_client *c,
                                  const struct session_work *w),
                       void *opaque);

/* session_order_all - tell every member. */
void session_order_all(struct session_table *t, enum session_order o);

/* session_sweep - free the sessions that have ended; counts the others. */
struct session_counts {
    unsigned sessions; /* with members */
    unsigned members;
    unsigned inflight;
    unsigned pending;     /* writes under way, orphans included */
    uint64_t oldest_ms;   /* of the members'; 0: none */
    uint64_t answered_ms; /* the latest of the members'; 0: never */
};
struct session_counts session_sweep(struct session_table *t);

#endif
