/* SPDX-License-Identifier: BSD-3-Clause */
/* The NBD protocol's numbers and its byte order, as the proxy uses them.
 *
 * source: NetworkBlockDevice/nbd, doc/proto.md
 */
#ifndef DETOUR_PROXY_NBD_H
#define DETOUR_PROXY_NBD_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* ---- handshake --------------------------------------------------------- */

#define NBD_MAGIC          0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC   0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_REP_MAGIC      0x0003e889045565a9ull
#define NBD_FIXED_NEWSTYLE 1u /* handshake and client flags alike */
#define NBD_NO_ZEROES      2u
#define NBD_OPTION_HEADER  16 /* magic, option, length */
#define NBD_REP_HEADER     20 /* magic, option, type, length */

#define NBD_OPT_EXPORT_NAME       1u
#define NBD_OPT_ABORT             2u
#define NBD_OPT_LIST              3u
#define NBD_OPT_STARTTLS          5u
#define NBD_OPT_INFO              6u
#define NBD_OPT_GO                7u
#define NBD_OPT_STRUCTURED_REPLY  8u
#define NBD_OPT_LIST_META_CONTEXT 9u
#define NBD_OPT_SET_META_CONTEXT  10u

#define NBD_REP_ACK          1u
#define NBD_REP_SERVER       2u
#define NBD_REP_INFO         3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERROR(n)     (0x80000000u | (n))
#define NBD_REP_ERR_UNSUP    NBD_REP_ERROR(1u)
#define NBD_REP_ERR_POLICY   NBD_REP_ERROR(2u)
#define NBD_REP_ERR_INVALID  NBD_REP_ERROR(3u)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERROR(5u)
#define NBD_REP_ERR_UNKNOWN  NBD_REP_ERROR(6u)
#define NBD_REP_ERR_SHUTDOWN NBD_REP_ERROR(7u)
#define NBD_REP_ERR_TOO_BIG  NBD_REP_ERROR(9u)

#define NBD_INFO_EXPORT      0u
#define NBD_INFO_NAME        1u
#define NBD_INFO_DESCRIPTION 2u
#define NBD_INFO_BLOCK_SIZE  3u

/* ---- transmission ------------------------------------------------------ */

#define NBD_FLAG_HAS_FLAGS         (1u << 0)
#define NBD_FLAG_READ_ONLY         (1u << 1)
#define NBD_FLAG_SEND_FLUSH        (1u << 2)
#define NBD_FLAG_SEND_FUA          (1u << 3)
#define NBD_FLAG_SEND_TRIM         (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_SEND_DF           (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN    (1u << 8)
#define NBD_FLAG_SEND_CACHE        (1u << 10)

#define NBD_REQUEST_MAGIC    0x25609513u
#define NBD_SIMPLE_MAGIC     0x67446698u
#define NBD_STRUCTURED_MAGIC 0x668e33efu
#define NBD_REQUEST_SIZE     28 /* magic, flags, type, cookie, offset, count */

#define NBD_CMD_READ         0u
#define NBD_CMD_WRITE        1u
#define NBD_CMD_DISC         2u
#define NBD_CMD_FLUSH        3u
#define NBD_CMD_TRIM         4u
#define NBD_CMD_CACHE        5u
#define NBD_CMD_WRITE_ZEROES 6u
#define NBD_CMD_BLOCK_STATUS 7u

#define NBD_CMD_FLAG_FUA       (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE   (1u << 1)
#define NBD_CMD_FLAG_DF        (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE   (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO (1u << 4)

#define NBD_REPLY_FLAG_DONE         1u
#define NBD_REPLY_TYPE_OFFSET_DATA  1u
#define NBD_REPLY_TYPE_BLOCK_STATUS 5u
#define NBD_REPLY_TYPE_ERROR        0x8001u

#define NBD_STATE_HOLE 1u
#define NBD_STATE_ZERO 2u

#define NBD_EPERM     1u
#define NBD_EIO       5u
#define NBD_ENOMEM    12u
#define NBD_EINVAL    22u
#define NBD_ENOSPC    28u
#define NBD_EOVERFLOW 75u
#define NBD_ENOTSUP   95u
#define NBD_ESHUTDOWN 108u

/* ---- byte order -------------------------------------------------------- */

/* nbd_get*, nbd_put* - numbers as they travel, big-endian and unaligned;
 * put returns the place behind what it wrote. */
static inline uint16_t
nbd_get16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof v);
    return be16toh(v);
}

static inline uint32_t
nbd_get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return be32toh(v);
}

static inline uint64_t
nbd_get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

static inline uint8_t *
nbd_put16(uint8_t *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static inline uint8_t *
nbd_put32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static inline uint8_t *
nbd_put64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

#endif
