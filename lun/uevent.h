/* SPDX-License-Identifier: BSD-3-Clause */
/* What the kernel tells of block devices and their paths as it happens.
 *
 * Events may be lost, and those of one moment arrive in any order: one is a
 * reason to look, never a state. */
#ifndef DETOUR_LUN_UEVENT_H
#define DETOUR_LUN_UEVENT_H

#include <stdbool.h>

#include "lun/sysfs.h"

enum uevent_kind {
    UEVENT_OTHER,           /* nothing of ours */
    UEVENT_DEVICE,          /* a block device came, went or changed */
    UEVENT_NVME,            /* a controller or subsystem did */
    UEVENT_PATH_FAILED,     /* dm-multipath sends nothing over it any more */
    UEVENT_PATH_REINSTATED, /* and it does again */
};

struct uevent {
    enum uevent_kind kind;
    char name[SYSFS_NAME_MAX]; /* of the device; of a dm event, of the map */
    char path[32];             /* of a dm event: "8:16"; else "" */
    int valid_paths;           /* of a dm event, then; -1: not told */
};

/* uevent_read - an event from its properties; pure.
 *
 * get: the value of one, or NULL; from opaque
 *
 * source:  drivers/md/dm-uevent.c, udev(7)
 */
void uevent_read(struct uevent *ev,
                 const char *(*get)(void *opaque, const char *key),
                 void *opaque);

/* uevent_kind_name - for log lines. */
const char *uevent_kind_name(enum uevent_kind k);

/* ---- listening --------------------------------------------------- */

struct uevents;

/* uevents_open - listen to the kernel itself, not to udevd, which may hang.
 *
 * errors:  NULL and errno
 * owns:    ended with uevents_close
 * threads: one at a time
 */
struct uevents *uevents_open(void);

/* uevents_close - NULL is fine. */
void uevents_close(struct uevents *u);

/* uevents_fd - readable when uevents_next would find something. */
int uevents_fd(struct uevents *u);

/* uevents_next - take one event; never waits.
 *
 * returns: 1 one was stored; 0 there is none; -ENOBUFS some were lost
 */
int uevents_next(struct uevents *u, struct uevent *ev);

#endif
