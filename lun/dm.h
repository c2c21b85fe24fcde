/* SPDX-License-Identifier: BSD-3-Clause */
/* A dm-multipath map as the kernel has it: its paths, and whether it queues. */
#ifndef DETOUR_LUN_DM_H
#define DETOUR_LUN_DM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "lun/lun.h"

/* One path of a map.  The kernel sends I/O over active ones only. */
struct dm_path {
    dev_t dev;
    bool active;
    unsigned failures; /* since the table was loaded */
    unsigned group;    /* of priority, from 1; what it is worth, others know */
};

struct dm_map {
    char name[LUN_MAP_NAME_MAX]; /* as below /dev/mapper; it may change */
    bool queues; /* without an active path I/O waits, and is not failed */
    size_t npaths;
    struct dm_path paths[LUN_PATH_MAX]; /* more than fit are left out */
};

/* dm_parse_status, dm_parse_table - fill m's paths, and m's queues, from the
 * two lines the kernel writes for a multipath target; pure.
 *
 * errors:  -EBADMSG the line is not as it should be; m's part is then empty
 * source:  multipath_status() in drivers/md/dm-mpath.c: STATUSTYPE_INFO and
 *          STATUSTYPE_TABLE
 */
int dm_parse_status(const char *text, struct dm_map *m);
int dm_parse_table(const char *text, struct dm_map *m);

/* dm_read - what the kernel knows of the map that is device number dev.
 *
 * Goes by number, which is the map's as long as somebody holds it open: its
 * name may change.  Touches no path, but may wait for dm's own locks.
 *
 * errors:  -errno; -ENXIO no such map; -ENODEV it is no multipath map
 */
int dm_read(dev_t dev, struct dm_map *m);

/* dm_fail_queued - fail what waits in map dev for a path, and queue no more.
 *
 * multipathd, which is not told by this, may put queueing back any time.
 * May block as dm_read does.
 *
 * errors:  as dm_read
 */
int dm_fail_queued(dev_t dev);

#endif
