/* SPDX-License-Identifier: BSD-3-Clause */
/* detourctl's commands that only look. */
#ifndef DETOUR_HEALTH_CTL_SHOW_H
#define DETOUR_HEALTH_CTL_SHOW_H

#include "health/ctl.h"

/* Each carries out the command of its name, as detourctl(8) tells.
 *
 * returns: the exit status */
int ctl_show_status(struct ctl *c);
int ctl_show_paths(struct ctl *c);
int ctl_show_peers(struct ctl *c);
int ctl_show_watch(struct ctl *c);
int ctl_show_cluster(struct ctl *c);
int ctl_show_events(struct ctl *c);

#endif
