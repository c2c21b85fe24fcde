/* SPDX-License-Identifier: BSD-3-Clause */
/* One NBD request and its reply on the wire: parsing, checking, encoding.
 * Pure functions; everything parsed here came from a peer. */
#ifndef DETOUR_PROXY_REQUEST_H
#define DETOUR_PROXY_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lun/lun.h"

/* A write with more payload than this ends the connection. */
#define REQUEST_PAYLOAD_MAX (64u << 20)
#define REQUEST_REPLY_MAX   64  /* the longest header or whole small reply */
#define REQUEST_EXTENTS     512 /* in one answer to BLOCK_STATUS */
#define REQUEST_STATUS_MAX  (24 + 8 * REQUEST_EXTENTS)

struct request {
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t count;
};

/* What was granted: fixed while the connection lives. */
struct request_export {
    uint64_t size;
    uint32_t block_size, max_io; /* bytes */
    uint16_t flags;              /* NBD_FLAG_*, as told to the client */
    bool structured, base_allocation;
};

/* request_export_init - what can be granted of a LUN; no structured replies
 * and no contexts yet. */
void request_export_init(struct request_export *x, const struct lun_status *st);

/* request_parse - NBD_REQUEST_SIZE bytes at p.
 *
 * errors:  -EPROTO bad magic: the stream is lost
 */
int request_parse(const uint8_t *p, struct request *r);

/* request_check - may r be carried out?
 *
 * errors:  -EINVAL unknown, not granted, misaligned, out of range, too large
 *          -EPERM  a change of a read-only LUN; -ENOSPC a write past the end
 *          -EOPNOTSUPP a zero that must be fast
 */
int request_check(const struct request *r, const struct request_export *x);

/* request_payload - bytes that follow r on the wire. */
uint32_t request_payload(const struct request *r);

/* request_error - -errno as NBD's number. */
uint32_t request_error(int error);

/* request_reply - the reply to r when nothing but error is to be said, or
 * with error 0 for READ, the header that goes before the data.
 *
 * shapes:  out holds REQUEST_REPLY_MAX bytes
 * returns: how many of them were used
 */
size_t request_reply(const struct request *r, const struct request_export *x,
                     int error, uint8_t *out);

/* request_status - the reply to BLOCK_STATUS, cut to the request's range.
 *
 * shapes:  n >= 1 extents from r->offset on; out holds REQUEST_STATUS_MAX
 * returns: how many bytes were used
 */
size_t request_status(const struct request *r, const struct lun_extent *extents,
                      size_t n, uint8_t *out);

#endif
