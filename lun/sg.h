/* SPDX-License-Identifier: BSD-3-Clause */
/* SCSI commands to a kernel device through SG_IO. */
#ifndef DETOUR_LUN_SG_H
#define DETOUR_LUN_SG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* sg_read - send a command that brings data; blocks.
 *
 * Repeats it a few times on UNIT ATTENTION.
 *
 * errors:  bytes that came; -ENOTTY   not a SCSI device
 *          -EBADE   reservation conflict
 *          -EOPNOTSUPP  ILLEGAL REQUEST: the device does not know it
 *          -ENOLINK  the transport failed;  -EIO  anything else
 * source:  Linux SCSI Generic HOWTO, struct sg_io_hdr
 */
int sg_read(int fd, const uint8_t *cdb, uint8_t cdb_len, void *buf,
            unsigned len);

/* sg_reset_lun - LOGICAL UNIT RESET and nothing larger; blocks.
 *
 * dry: send nothing, only ask whether the driver knows resets.
 *
 * errors:  -EOPNOTSUPP it cannot be done here; -errno of SG_SCSI_RESET
 */
int sg_reset_lun(int fd, bool dry);

#endif
