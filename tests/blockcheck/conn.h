/* SPDX-License-Identifier: BSD-3-Clause */
/* A libnbd connection that is opened with a deadline. */
#ifndef BLOCKCHECK_CONN_H
#define BLOCKCHECK_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libnbd.h>

/* What the server says of an export. */
struct conn_info {
    uint64_t size;
    uint32_t unit; /* the smallest request, at least UNIT_MIN */
    bool flush, fua, zero, trim, multi, read_only;
};

/* conn_open - connect and negotiate.
 *
 * units:   deadline_ns on CLOCK_MONOTONIC
 * errors:  NULL, with the reason in why
 * threads: each connection belongs to one
 */
struct nbd_handle *conn_open(const char *uri, uint64_t deadline_ns, char *why,
                             size_t why_size);

/* conn_ask - read what the server said.
 *
 * errors:  -EIO: the export cannot be used
 */
int conn_ask(struct nbd_handle *nbd, struct conn_info *info);

/* conn_lost - is it dead, or closed by the server? */
bool conn_lost(struct nbd_handle *nbd);

/* conn_part - say goodbye, and wait a second at most until it is heard; the
 * connection must then be closed. */
void conn_part(struct nbd_handle *nbd);

/* conn_now_ns - CLOCK_MONOTONIC, which all processes of a machine share. */
uint64_t conn_now_ns(void);

/* conn_nap - sleep for ms milliseconds. */
void conn_nap(unsigned ms);

#endif
