/* SPDX-License-Identifier: BSD-3-Clause */
/* What the kernel tells of block devices and their paths as it happens. */
#include "lun/uevent.h"

#include <errno.h>
#include <libudev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A SAN that fails is some thousand events at once on a large host. */
#define BUFFER_BYTES (1 << 20)

/* ---- reading one ------------------------------------------------- */

static enum uevent_kind
kind_of(const char *subsystem, const char *dm_action)
{
    if (strncmp(subsystem, "nvme", 4) == 0)
        return UEVENT_NVME;
    if (strcmp(subsystem, "block") != 0)
        return UEVENT_OTHER;
    if (strcmp(dm_action, "PATH_FAILED") == 0)
        return UEVENT_PATH_FAILED;
    if (strcmp(dm_action, "PATH_REINSTATED") == 0)
        return UEVENT_PATH_REINSTATED;
    return UEVENT_DEVICE;
}

void
uevent_read(struct uevent *ev,
            const char *(*get)(void *opaque, const char *key), void *opaque)
{
    const char *subsystem = get(opaque, "SUBSYSTEM");
    const char *action = get(opaque, "DM_ACTION");
    const char *devpath = get(opaque, "DEVPATH");
    const char *path = get(opaque, "DM_PATH");
    const char *valid = get(opaque, "DM_NR_VALID_PATHS");
    const char *name = devpath ? strrchr(devpath, '/') : NULL;

    *ev = (struct uevent){.valid_paths = -1};
    if (!subsystem || !name || strlen(name + 1) >= sizeof ev->name)
        return;
    ev->kind = kind_of(subsystem, action ? action : "");
    strcpy(ev->name, name + 1);
    if (ev->kind != UEVENT_PATH_FAILED && ev->kind != UEVENT_PATH_REINSTATED)
        return;
    if (path)
        snprintf(ev->path, sizeof ev->path, "%s", path);
    if (valid && *valid >= '0' && *valid <= '9')
        ev->valid_paths = atoi(valid);
}

const char *
uevent_kind_name(enum uevent_kind k)
{
    switch (k) {
    case UEVENT_OTHER:
        break;
    case UEVENT_DEVICE:
        return "device";
    case UEVENT_NVME:
        return "nvme";
    case UEVENT_PATH_FAILED:
        return "path failed";
    case UEVENT_PATH_REINSTATED:
        return "path reinstated";
    }
    return "other";
}

/* ---- listening --------------------------------------------------- */

struct uevents {
    struct udev *udev;
    struct udev_monitor *monitor;
};

void
uevents_close(struct uevents *u)
{
    if (!u)
        return;
    udev_monitor_unref(u->monitor);
    udev_unref(u->udev);
    free(u);
}

static int
listen_to_kernel(struct uevents *u)
{
    static const char *const subsystems[] = {"block", "nvme", "nvme-subsystem"};
    int err;

    u->udev = udev_new();
    if (!u->udev)
        return -errno;
    u->monitor = udev_monitor_new_from_netlink(u->udev, "kernel");
    if (!u->monitor)
        return -errno;
    for (size_t i = 0; i < sizeof subsystems / sizeof subsystems[0]; i++) {
        err = udev_monitor_filter_add_match_subsystem_devtype(
            u->monitor, subsystems[i], NULL);
        if (err < 0)
            return err;
    }
    /* without the right to it the buffer stays as it is, and smaller */
    (void)udev_monitor_set_receive_buffer_size(u->monitor, BUFFER_BYTES);
    return udev_monitor_enable_receiving(u->monitor);
}

struct uevents *
uevents_open(void)
{
    struct uevents *u = calloc(1, sizeof *u);
    int err = u ? listen_to_kernel(u) : -ENOMEM;

    if (err == 0)
        return u;
    uevents_close(u);
    errno = err < 0 ? -err : EIO;
    return NULL;
}

int
uevents_fd(struct uevents *u)
{
    return udev_monitor_get_fd(u->monitor);
}

static const char *
property(void *device, const char *key)
{
    return udev_device_get_property_value(device, key);
}

int
uevents_next(struct uevents *u, struct uevent *ev)
{
    struct udev_device *d;

    errno = 0;
    d = udev_monitor_receive_device(u->monitor);
    if (!d)
        return errno == ENOBUFS ? -ENOBUFS : 0;
    uevent_read(ev, property, d);
    udev_device_unref(d);
    return 1;
}
