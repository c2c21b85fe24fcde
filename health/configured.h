/* SPDX-License-Identifier: BSD-3-Clause */
/* A LUN's section of the configuration, as options of lun/ and the monitor. */
#ifndef DETOUR_HEALTH_CONFIGURED_H
#define DETOUR_HEALTH_CONFIGURED_H

#include "common/config.h"
#include "health/monitor.h"
#include "lun/lun.h"

/* configured_lun - what lun_create is to be told of l.
 *
 * All but the callback: notify and opaque are NULL.
 *
 * owns:    the strings are cfg's and process; they must outlive what it
 *          returns
 * threads: any
 */
struct lun_options configured_lun(const struct config *cfg,
                                  const struct config_lun *l,
                                  const char *process);

/* configured_monitor - what monitor_start is to be told of l.
 *
 * All but the callbacks: these and opaque are NULL.
 *
 * owns:    the name is l's; it must outlive what it returns
 * threads: any
 */
struct monitor_options configured_monitor(const struct config_lun *l);

#endif
