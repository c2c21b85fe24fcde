/* SPDX-License-Identifier: BSD-3-Clause */
/* The paths below a block device, put together from all who know of them. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lun/block.h"
#include "lun/dm.h"
#include "lun/multipathd.h"
#include "lun/nvme.h"

/* What the SCSI layer (device/state: running, offline, transport-offline,
 * blocked, ...) or NVMe (live, connecting, ...) thinks of a path.  sysfs is
 * memory: reading it does not touch the device. */
static enum lun_path_state
path_state(const char *name, char *why, size_t len)
{
    if (sysfs_read(name, "device/state", why, len) < 0 || !*why)
        return LUN_PATH_UNKNOWN;
    return strcmp(why, "running") == 0 || strcmp(why, "live") == 0
               ? LUN_PATH_GOOD
               : LUN_PATH_FAILED;
}

/* That there are more the keeper tells (block.c). */
static size_t
few_slaves(const struct device *d, char slaves[LUN_PATH_MAX][SYSFS_NAME_MAX])
{
    size_t n = sysfs_slaves(d->name, slaves, LUN_PATH_MAX);

    return n < LUN_PATH_MAX ? n : LUN_PATH_MAX;
}

void
block_good_slaves(const struct device *d, struct block_slaves *good)
{
    char slaves[LUN_PATH_MAX][SYSFS_NAME_MAX], why[64];
    size_t n = few_slaves(d, slaves);

    good->n = 0;
    for (size_t i = 0; i < n; i++)
        if (path_state(slaves[i], why, sizeof why) == LUN_PATH_GOOD)
            strcpy(good->names[good->n++], slaves[i]);
}

/* ---- words ------------------------------------------------------- */

static void add(char *to, size_t len, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Append, after a comma when there is something. */
static void
add(char *to, size_t len, const char *fmt, ...)
{
    size_t n = strlen(to);
    va_list ap;

    if (n > 0 && n + 2 < len) {
        strcpy(to + n, ", ");
        n += 2;
    }
    va_start(ap, fmt);
    vsnprintf(to + n, len - n, fmt, ap);
    va_end(ap);
}

static void
fail(struct lun_path *p, const char *who, const char *why)
{
    p->state = LUN_PATH_FAILED;
    add(p->error, sizeof p->error, "%s %s", who, why);
}

/* ---- dm-multipath ------------------------------------------------ */

/* The map names its paths by number, which sysfs turns into a name; a path
 * that is just going away has none any more. */
static const struct dm_path *
find_in_map(const struct dm_map *map, const char *name)
{
    char found[SYSFS_NAME_MAX];

    for (size_t i = 0; map && i < map->npaths; i++)
        if (sysfs_name(map->paths[i].dev, found) == 0 &&
            strcmp(found, name) == 0)
            return &map->paths[i];
    return NULL;
}

static const struct multipathd_path *
find_in_daemon(const struct multipathd_map *daemon, const char *name)
{
    for (size_t i = 0; daemon && i < daemon->npaths; i++)
        if (strcmp(daemon->paths[i].name, name) == 0)
            return &daemon->paths[i];
    return NULL;
}

/* dm holds it: it is good unless something speaks against it. */
static void
fill_slave(struct lun_path *p, const char *name, const struct dm_path *dm,
           const struct multipathd_path *daemon)
{
    char why[64];

    *p = (struct lun_path){.state = LUN_PATH_GOOD};
    snprintf(p->name, sizeof p->name, "%s", name);
    if (path_state(name, why, sizeof why) == LUN_PATH_FAILED)
        fail(p, "state", why);
    if (dm && !dm->active)
        fail(p, "failed", "in the map");
    if (dm)
        add(p->detail, sizeof p->detail, "group %u", dm->group);
    if (dm && dm->failures > 0)
        add(p->detail, sizeof p->detail, "failed %u times", dm->failures);
    if (daemon && daemon->priority >= 0)
        add(p->detail, sizeof p->detail, "priority %d", daemon->priority);
    if (daemon && daemon->checker[0])
        add(p->detail, sizeof p->detail, "%s checker: %s", daemon->checker,
            daemon->state);
}

static size_t
gather_slaves(const struct device *d, const struct dm_map *map,
              const struct multipathd_map *daemon, struct lun_path *paths)
{
    char slaves[LUN_PATH_MAX][SYSFS_NAME_MAX];
    size_t n = few_slaves(d, slaves);

    for (size_t i = 0; i < n; i++)
        fill_slave(&paths[i], slaves[i], find_in_map(map, slaves[i]),
                   find_in_daemon(daemon, slaves[i]));
    return n;
}

/* ---- NVMe -------------------------------------------------------- */

static void
fill_nvme(struct lun_path *p, const struct nvme_path *from)
{
    *p = (struct lun_path){.state = LUN_PATH_GOOD};
    snprintf(p->name, sizeof p->name, "%s", from->name);
    if (!nvme_path_usable(from)) {
        fail(p, "controller", from->state[0] ? from->state : "gone");
        if (from->ana[0])
            add(p->error, sizeof p->error, "ANA %s", from->ana);
    } else if (from->ana[0]) {
        add(p->detail, sizeof p->detail, "ANA %s", from->ana);
    }
    add(p->detail, sizeof p->detail, "%s", from->controller);
    if (from->transport[0])
        add(p->detail, sizeof p->detail, "%s", from->transport);
    if (from->address[0])
        add(p->detail, sizeof p->detail, "%s", from->address);
}

static size_t
gather_nvme(const struct device *d, struct lun_path *paths)
{
    struct nvme_path found[LUN_PATH_MAX];
    size_t n = nvme_paths(d->name, found, LUN_PATH_MAX);

    if (n > LUN_PATH_MAX)
        n = LUN_PATH_MAX;
    for (size_t i = 0; i < n; i++)
        fill_nvme(&paths[i], &found[i]);
    return n;
}

/* ---- any --------------------------------------------------------- */

static void
fill_whole(const struct device *d, struct lun_path *p)
{
    char why[64];

    if (!d->file && path_state(d->name, why, sizeof why) == LUN_PATH_FAILED)
        fail(p, "state", why);
}

void
block_paths_gather(const struct device *d, const struct lun_path *whole,
                   const struct dm_map *map,
                   const struct multipathd_map *daemon, struct path_set *seen)
{
    if (d && d->multipath) {
        seen->n = gather_slaves(d, map, daemon, seen->paths);
    } else if (d && d->nvme) {
        seen->n = gather_nvme(d, seen->paths);
    } else {
        seen->n = 1;
        seen->paths[0] = *whole;
        if (d)
            fill_whole(d, &seen->paths[0]);
    }
}

size_t
block_get_paths(void *opaque, struct lun_path *paths, size_t max)
{
    struct block *b = opaque;
    size_t n;

    pthread_mutex_lock(&b->lock);
    n = b->paths.n;
    memcpy(paths, b->paths.paths, (n < max ? n : max) * sizeof *paths);
    pthread_mutex_unlock(&b->lock);
    return n;
}
