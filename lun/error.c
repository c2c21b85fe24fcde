/* SPDX-License-Identifier: BSD-3-Clause */
/* The table from errno to what it means for the route. */
#include "lun/error.h"

#include <errno.h>

/* Everything that is not named here may be the path's own trouble, or our
 * host's (ENOMEM, EBUSY, EAGAIN): another route may do better. */
enum lun_class
lun_error_class(int error)
{
    switch (-error) {
    case 0:
        return LUN_CLASS_OK;

    case EBADE: /* BLK_STS_RESV_CONFLICT */
        return LUN_CLASS_FENCED;

    case ENODATA:   /* BLK_STS_MEDIUM */
    case EREMOTEIO: /* BLK_STS_TARGET */
    case EILSEQ:    /* BLK_STS_PROTECTION */
    case ENOSPC:    /* BLK_STS_NOSPC */
    case EDQUOT:    /* a file's way to be out of space */
        return LUN_CLASS_LUN;

    case EINVAL:     /* BLK_STS_INVAL, misaligned */
    case EOPNOTSUPP: /* BLK_STS_NOTSUPP */
    case ERANGE:
    case EOVERFLOW:
    case EFBIG: /* out of range, for a file */
    case EROFS:
    case EPERM: /* NBD's word for a write to a read-only export */
        return LUN_CLASS_REQUEST;

    default:
        return LUN_CLASS_PATH;
    }
}

bool
lun_error_doubtful(int error)
{
    switch (-error) {
    case ENOLINK: /* BLK_STS_TRANSPORT */
    case ETIMEDOUT:
    case ENODEV:
    case ENXIO:
    case EAGAIN:
    case EBUSY:
    case ESTALE:
    case ENOTCONN:
    case ENOMEM:
        return false;
    default:
        return lun_error_class(error) == LUN_CLASS_PATH;
    }
}

const char *
lun_class_name(enum lun_class c)
{
    switch (c) {
    case LUN_CLASS_OK:
        return "ok";
    case LUN_CLASS_PATH:
        return "path";
    case LUN_CLASS_FENCED:
        return "fenced";
    case LUN_CLASS_LUN:
        return "lun";
    case LUN_CLASS_REQUEST:
        return "request";
    }
    return "unknown";
}
