/* SPDX-License-Identifier: BSD-3-Clause */
/* detourctl gone: asks the other hosts what is left of dead ones. */
#ifndef DETOUR_HEALTH_CTL_GONE_H
#define DETOUR_HEALTH_CTL_GONE_H

#include "health/ctl.h"

/* ctl_gone - carries out the command, as detourctl(8) tells.
 *
 * Asks every second for c->wait_s seconds, until all is clear or a signal
 * comes; without a wait, until every answer is younger than the question, or
 * a host's detour-health must have noticed that its proxy does not answer.
 *
 * returns: the exit status */
int ctl_gone(struct ctl *c);

#endif
