/* SPDX-License-Identifier: BSD-3-Clause */
/* One NBD request and its reply on the wire. */
#include "proxy/request.h"

#include <errno.h>

#include "lun/error.h"
#include "proxy/nbd.h"

#define CONTEXT_ID 1u /* the one that negotiate.c gave out */

void
request_export_init(struct request_export *x, const struct lun_status *st)
{
    /* NBD numbers are 32 bits, and nobody needs more in one request. */
    uint32_t most = REQUEST_PAYLOAD_MAX / 2;
    unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_CAN_MULTI_CONN |
                     NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_SEND_CACHE;

    if (st->readonly)
        flags |= NBD_FLAG_READ_ONLY;
    if (st->can_trim && !st->readonly)
        flags |= NBD_FLAG_SEND_TRIM;
    if (st->can_zero && !st->readonly)
        flags |= NBD_FLAG_SEND_WRITE_ZEROES;
    if (st->max_io < most)
        most = st->max_io;
    *x = (struct request_export){
        .size = st->size,
        .block_size = st->block_size,
        .max_io = most - most % st->block_size,
        .flags = (uint16_t)flags,
    };
}

int
request_parse(const uint8_t *p, struct request *r)
{
    if (nbd_get32(p) != NBD_REQUEST_MAGIC)
        return -EPROTO;
    r->flags = nbd_get16(p + 4);
    r->type = nbd_get16(p + 6);
    r->cookie = nbd_get64(p + 8);
    r->offset = nbd_get64(p + 16);
    r->count = nbd_get32(p + 24);
    return 0;
}

static int
check_range(const struct request *r, const struct request_export *x, int beyond)
{
    if (r->count == 0 || r->offset % x->block_size != 0 ||
        r->count % x->block_size != 0)
        return -EINVAL;
    if (r->offset > x->size || r->count > x->size - r->offset)
        return beyond;
    return 0;
}

static int
check_change(const struct request *r, const struct request_export *x,
             unsigned flag, unsigned granted)
{
    if (r->flags & ~flag)
        return -EINVAL;
    if (x->flags & NBD_FLAG_READ_ONLY)
        return -EPERM;
    if (!(x->flags & granted))
        return -EINVAL;
    return check_range(r, x, r->type == NBD_CMD_TRIM ? -EINVAL : -ENOSPC);
}

static int
check_read(const struct request *r, const struct request_export *x)
{
    unsigned flags = NBD_CMD_FLAG_FUA | (x->structured ? NBD_CMD_FLAG_DF : 0);

    if (r->flags & ~flags || r->count > x->max_io)
        return -EINVAL;
    return check_range(r, x, -EINVAL);
}

int
request_check(const struct request *r, const struct request_export *x)
{
    const unsigned fua = NBD_CMD_FLAG_FUA;

    switch (r->type) {
    case NBD_CMD_READ:
        return check_read(r, x);
    case NBD_CMD_WRITE:
        if (r->count > x->max_io)
            return -EINVAL;
        return check_change(r, x, fua, NBD_FLAG_HAS_FLAGS);
    case NBD_CMD_FLUSH:
        /* offset and count are reserved; some clients leave rubbish there */
        return r->flags & ~fua ? -EINVAL : 0;
    case NBD_CMD_TRIM:
        return check_change(r, x, fua, NBD_FLAG_SEND_TRIM);
    case NBD_CMD_WRITE_ZEROES:
        if (r->flags & NBD_CMD_FLAG_FAST_ZERO)
            return -EOPNOTSUPP; /* nobody knows whether it would be */
        return check_change(r, x, fua | NBD_CMD_FLAG_NO_HOLE,
                            NBD_FLAG_SEND_WRITE_ZEROES);
    case NBD_CMD_CACHE:
        return r->flags & ~fua ? -EINVAL : check_range(r, x, -EINVAL);
    case NBD_CMD_BLOCK_STATUS:
        if (!x->base_allocation || r->flags & ~(fua | NBD_CMD_FLAG_REQ_ONE))
            return -EINVAL;
        return check_range(r, x, -EINVAL);
    default:
        return -EINVAL;
    }
}

uint32_t
request_payload(const struct request *r)
{
    return r->type == NBD_CMD_WRITE ? r->count : 0;
}

uint32_t
request_error(int error)
{
    switch (-error) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
    case EACCES:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

/* plugin/request.c doubts the same ones of its own paths: one that it doubts
 * and we never answer would go round for ever. */
static uint8_t *
chunk(const struct request *r, uint16_t type, size_t len, uint8_t *p)
{
    p = nbd_put32(p, NBD_STRUCTURED_MAGIC);
    p = nbd_put16(p, NBD_REPLY_FLAG_DONE);
    p = nbd_put16(p, type);
    p = nbd_put64(p, r->cookie);
    return nbd_put32(p, (uint32_t)len);
}

size_t
request_reply(const struct request *r, const struct request_export *x,
              int error, uint8_t *out)
{
    uint8_t *p = out;

    /* Only READ and BLOCK_STATUS must be answered in chunks. */
    if (!x->structured ||
        (r->type != NBD_CMD_READ && r->type != NBD_CMD_BLOCK_STATUS)) {
        p = nbd_put32(p, NBD_SIMPLE_MAGIC);
        p = nbd_put32(p, request_error(error));
        p = nbd_put64(p, r->cookie);
    } else if (error) {
        p = chunk(r, NBD_REPLY_TYPE_ERROR, 6, p);
        p = nbd_put32(p, request_error(error));
        p = nbd_put16(p, 0); /* no text */
    } else {
        p = chunk(r, NBD_REPLY_TYPE_OFFSET_DATA, 8 + (size_t)r->count, p);
        p = nbd_put64(p, r->offset);
    }
    return (size_t)(p - out);
}

size_t
request_status(const struct request *r, const struct lun_extent *extents,
               size_t n, uint8_t *out)
{
    uint64_t left = r->count;
    uint8_t *p = out + 20;

    if (n > REQUEST_EXTENTS)
        n = REQUEST_EXTENTS;
    if (r->flags & NBD_CMD_FLAG_REQ_ONE)
        n = 1;
    p = nbd_put32(p, CONTEXT_ID);
    for (size_t i = 0; i < n && left > 0; i++) {
        uint64_t count = extents[i].count < left ? extents[i].count : left;

        p = nbd_put32(p, (uint32_t)count);
        p = nbd_put32(p, extents[i].hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0);
        left -= count;
    }
    chunk(r, NBD_REPLY_TYPE_BLOCK_STATUS, (size_t)(p - out) - 20, out);
    return (size_t)(p - out);
}
