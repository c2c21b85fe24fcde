/* SPDX-License-Identifier: BSD-3-Clause */
/* detourctl's commands that make processes do something. */
#ifndef DETOUR_HEALTH_CTL_ORDER_H
#define DETOUR_HEALTH_CTL_ORDER_H

#include "health/ctl.h"

/* Each carries out the command of its name, as detourctl(8) tells.
 *
 * returns: the exit status */
int ctl_order_redirect(struct ctl *c);
int ctl_order_return(struct ctl *c);
int ctl_order_drain(struct ctl *c);
int ctl_order_undrain(struct ctl *c);
int ctl_order_confirm_dead(struct ctl *c);

#endif
