/* SPDX-License-Identifier: BSD-3-Clause */
/* Status answers as text for people, and the judgement for scripts. */
#ifndef DETOUR_HEALTH_CTL_PRINT_H
#define DETOUR_HEALTH_CTL_PRINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* ctl_print_status - one process' status answer.
 *
 * Fields that are missing or null are "-"; unknown ones are passed over.
 * lun, if not NULL, leaves out a proxy's other LUNs.  Control characters in
 * strings, which may come from other hosts, are replaced in status.
 */
void ctl_print_status(FILE *f, json_t *status, const char *lun);

enum ctl_part {
    CTL_PATHS,
    CTL_PEERS
};

/* ctl_print_part - like ctl_print_status, but only the paths of each LUN, or
 * the peers of a plugin. */
void ctl_print_part(FILE *f, json_t *status, const char *lun,
                    enum ctl_part part);

/* ctl_scrub - replaces control characters in every string of j. */
void ctl_scrub(json_t *j);

/* ctl_as_wanted - is everything in that answer as it should be?
 *
 * A plugin: the route is local.  A proxy: it does not drain, and each LUN
 * (or just lun) is serving.  Both: the verdict on the LUN is good and the
 * host is not fenced.  A field that is missing is not as wanted.
 */
bool ctl_as_wanted(const json_t *status, const char *lun);

/* ctl_serves - does this answer's process have to do with lun, and with
 * client?  NULL: any; a proxy has no client. */
bool ctl_serves(const json_t *status, const char *lun, const char *client);

#endif
