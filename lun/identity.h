/* SPDX-License-Identifier: BSD-3-Clause */
/* What makes a LUN the same LUN on every host. */
#ifndef DETOUR_LUN_IDENTITY_H
#define DETOUR_LUN_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

#include "lun/lun.h"

/* identity_from_vpd83 - the best name in a Device Identification page.
 *
 * Of those that belong to the LUN: NAA of type 6, 5, 3 and 2 ("naa.<hex>"),
 * EUI-64 ("eui.<hex>"), SCSI name string ("naa.", "eui." or "iqn." as it
 * is), T10 vendor id ("t10.<text>").  In a t10 name runs of blanks become one
 * '_' and what is not printable becomes '_': udev's scsi_id does so, and
 * multipathd takes its names from there.
 *
 * shapes:  page is len bytes from the target, not to be trusted
 * errors:  -EINVAL not such a page; -ENOENT no name in it
 * source:  SPC-4 7.8.6
 */
int identity_from_vpd83(const uint8_t *page, size_t len, char id[LUN_ID_MAX]);

/* identity_from_dm_uuid - from a dm-multipath map's uuid, "mpath-3600...".
 *
 * errors:  -ENOENT not multipath's, or a name that cannot be compared
 */
int identity_from_dm_uuid(const char *uuid, char id[LUN_ID_MAX]);

/* identity_from_wwid - from the kernel's sysfs wwid: the same but for t10.
 *
 * errors:  -ENOENT it is empty
 */
int identity_from_wwid(const char *wwid, char id[LUN_ID_MAX]);

/* identity_of_fd - the identity of an open block device or regular file.
 *
 * May block as the device does.
 *
 * errors:  -errno
 */
int identity_of_fd(int fd, char id[LUN_ID_MAX]);

#endif
