/* SPDX-License-Identifier: BSD-3-Clause */
/* A /sys made of files in the test's folder, which lun/sysfs.c reads. */
#ifndef DETOUR_TESTS_FAKE_SYSFS_H
#define DETOUR_TESTS_FAKE_SYSFS_H

#include "lun/sysfs.h"
#include "tests/unit/lun_fixture.h"

static inline void
fake_sysfs_use(void)
{
    static char root[160];

    snprintf(root, sizeof root, "%s/sys", fixture_dir);
    sysfs_root = root;
}

/* Make the folders that path, below the root, is in. */
static inline void
fake_sysfs_folders(char *path)
{
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
        *p = '/';
    }
}

/* An attribute: "class/block/sdb/device/state", which the kernel ends with a
 * newline.  Replaced as a whole: a reader sees the old one or the new. */
static inline void
fake_sysfs_put(const char *attribute, const char *value)
{
    char path[512], aside[528];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", sysfs_root, attribute);
    snprintf(aside, sizeof aside, "%s.new", path);
    fake_sysfs_folders(path);
    f = fopen(aside, "we");
    assert_non_null(f);
    fprintf(f, "%s\n", value);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(aside, path), 0);
}

/* A block device and the number it has: "sdb", "8:16". */
static inline void
fake_sysfs_device(const char *name, const char *number)
{
    char link[512], target[128];

    snprintf(link, sizeof link, "%s/dev/block/%s", sysfs_root, number);
    snprintf(target, sizeof target, "../../devices/block/%s", name);
    fake_sysfs_folders(link);
    unlink(link);
    assert_int_equal(symlink(target, link), 0);
}

/* A path of map: its number, and the state of its disk. */
static inline void
fake_sysfs_path(const char *map, const char *name, const char *number,
                const char *state)
{
    char at[256];

    fake_sysfs_device(name, number);
    snprintf(at, sizeof at, "class/block/%s/device/state", name);
    fake_sysfs_put(at, state);
    snprintf(at, sizeof at, "class/block/%s/slaves/%s", map, name);
    fake_sysfs_put(at, "");
}

static inline void
fake_sysfs_remove(const char *attribute)
{
    char path[512];

    snprintf(path, sizeof path, "%s/%s", sysfs_root, attribute);
    assert_int_equal(remove(path), 0);
}

#endif
