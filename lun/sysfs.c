/* SPDX-License-Identifier: BSD-3-Clause */
/* Attributes and folders of block devices in /sys. */
#include "lun/sysfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

const char *sysfs_root = "/sys";

int
sysfs_name(dev_t dev, char name[SYSFS_NAME_MAX])
{
    char link[512], target[PATH_MAX];
    const char *base;
    ssize_t n;

    snprintf(link, sizeof link, "%s/dev/block/%u:%u", sysfs_root, major(dev),
             minor(dev));
    n = readlink(link, target, sizeof target - 1);
    if (n < 0)
        return -errno;
    target[n] = '\0';
    base = strrchr(target, '/');
    base = base ? base + 1 : target;
    if (strlen(base) >= SYSFS_NAME_MAX)
        return -ENAMETOOLONG;
    strcpy(name, base);
    return 0;
}

int
sysfs_read(const char *name, const char *attribute, char *buf, size_t len)
{
    char path[512];
    ssize_t n;
    int fd;

    buf[0] = '\0';
    snprintf(path, sizeof path, "%s/class/block/%s/%s", sysfs_root, name,
             attribute);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    n = read(fd, buf, len - 1);
    if (n < 0) {
        int err = -errno;

        close(fd);
        buf[0] = '\0';
        return err;
    }
    close(fd);
    while (n > 0 && isspace((unsigned char)buf[n - 1]))
        n--;
    buf[n] = '\0';
    return 0;
}

uint64_t
sysfs_read_number(const char *name, const char *attribute)
{
    char text[32];

    return sysfs_read(name, attribute, text, sizeof text) < 0
               ? 0
               : strtoull(text, NULL, 10);
}

void
sysfs_each(const char *name, const char *folder,
           void (*visit)(const char *entry, void *opaque), void *opaque)
{
    char path[512];
    struct dirent *e;
    DIR *dir;

    snprintf(path, sizeof path, "%s/class/block/%s/%s", sysfs_root, name,
             folder);
    dir = opendir(path);
    if (!dir)
        return;
    while ((e = readdir(dir)))
        if (e->d_name[0] != '.' && strlen(e->d_name) < SYSFS_NAME_MAX)
            visit(e->d_name, opaque);
    closedir(dir);
}

struct names {
    char (*to)[SYSFS_NAME_MAX];
    size_t max, n;
};

static void
store(const char *entry, void *opaque)
{
    struct names *names = opaque;

    if (names->n < names->max)
        strcpy(names->to[names->n], entry);
    names->n++;
}

size_t
sysfs_slaves(const char *name, char slaves[][SYSFS_NAME_MAX], size_t max)
{
    struct names names = {.to = slaves, .max = max};

    sysfs_each(name, "slaves", store, &names);
    return names.n;
}
