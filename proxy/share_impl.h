/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of a share, for share.c and share_open.c only. */
#ifndef DETOUR_PROXY_SHARE_IMPL_H
#define DETOUR_PROXY_SHARE_IMPL_H

#include <pthread.h>

#include "lun/wait.h"
#include "proxy/share.h"

struct share {
    /* fixed after share_create */
    const struct config *hosts;
    const struct config_lun *config;
    struct lun *lun;
    struct extents *extents;
    pthread_t keeper;
    bool keeping; /* keeper runs */

    /* Taken in this order; neither is held while the device is touched. */
    pthread_mutex_t monitor_lock;
    struct monitor *monitor; /* guarded by monitor_lock for the LUN's threads;
                                others: fixed while the share lives */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* guarded by lock */
    struct serve serve;
    struct session_table sessions;
    bool drain, stop, kicked;
    bool slow; /* our own paths, when the keeper last looked */
    bool register_done;
    int register_error;
    char told[256]; /* the last state that was logged */
    unsigned long fences, fences_failed;
};

#endif
