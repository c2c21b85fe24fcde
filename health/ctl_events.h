/* SPDX-License-Identifier: BSD-3-Clause */
/* What changed, when and why, read from what processes say now. */
#ifndef DETOUR_HEALTH_CTL_EVENTS_H
#define DETOUR_HEALTH_CTL_EVENTS_H

#include <jansson.h>
#include <stdio.h>

/* ctl_events_of - the last change of each thing that a process tells of.
 *
 * name is the process', as of its socket; now_s is the moment of its answer,
 * in seconds since 1970.  lun, if not NULL, leaves out a proxy's other LUNs.
 *
 * returns: an array of {"time", "process", "lun", "what", "state", "reason"},
 *          where lun may be null and what is "process", "route", "verdict",
 *          "serving" or "path NAME"; not sorted
 * errors:  NULL when there is no memory
 */
json_t *ctl_events_of(json_t *status, const char *name, const char *lun,
                      double now_s);

/* ctl_events_silent - a process that does not answer is an event as well. */
json_t *ctl_events_silent(const char *name, const char *error, double now_s);

/* ctl_events_sort - the oldest first.
 *
 * errors:  NULL when there is no memory
 * owns:    takes events
 */
json_t *ctl_events_sort(json_t *events);

/* ctl_events_new - those of events whose state is another one than in seen,
 * an object that this keeps: nothing but {} at first.
 *
 * errors:  NULL when there is no memory
 * owns:    takes events
 */
json_t *ctl_events_new(json_t *events, json_t *seen);

/* ctl_events_print - a line for each. */
void ctl_events_print(FILE *f, const json_t *events);

#endif
