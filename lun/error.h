/* SPDX-License-Identifier: BSD-3-Clause */
/* What an I/O error means for the route: docs/design.md section 8. */
#ifndef DETOUR_LUN_ERROR_H
#define DETOUR_LUN_ERROR_H

#include <stdbool.h>

enum lun_class {
    LUN_CLASS_OK,
    LUN_CLASS_PATH,    /* may be the path's: try another route */
    LUN_CLASS_FENCED,  /* reservation conflict: we were cut off */
    LUN_CLASS_LUN,     /* the LUN itself says so */
    LUN_CLASS_REQUEST, /* the request is wrong */
};

/* lun_error_class - the class of -errno (0 is OK).
 *
 * An errno that is not listed is LUN_CLASS_PATH, since that loses nothing.
 *
 * source:  Linux block/blk-core.c blk_errors[], docs/design.md section 8
 */
enum lun_class lun_error_class(int error);

/* lun_error_doubtful - may the LUN itself have said this LUN_CLASS_PATH error?
 *
 * True for EIO and its like.  False for what only a path, or our own host,
 * says: a write that ended so may still take effect.
 * The plugin and the proxy must agree, or such a request goes round for ever.
 */
bool lun_error_doubtful(int error);
const char *lun_class_name(enum lun_class c);

#endif
