/* SPDX-License-Identifier: BSD-3-Clause */
/* The cluster as its detour-health processes see it, for people. */
#ifndef DETOUR_HEALTH_CTL_CLUSTER_H
#define DETOUR_HEALTH_CTL_CLUSTER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "common/config.h"

/* Room for "https://[address]:port". */
#define CTL_ORIGIN_MAX 96

/* ctl_origin - where a host's detour-health answers, at one of its
 * addresses. */
void ctl_origin(const struct config *c, const char *address, char *to,
                size_t room);

/* ctl_cluster_ask - /cluster of this host's detour-health, or else of the
 * first member that has one; why others have none is told on errors.
 *
 * returns: NULL when nobody answers
 * owns:    a new reference
 */
json_t *ctl_cluster_ask(const struct config *c, FILE *errors);

/* ctl_cluster_print - hosts by LUNs, then a line for whatever is not well.
 *
 * Control characters in strings are replaced in cluster. */
void ctl_cluster_print(FILE *f, json_t *cluster);

/* ctl_cluster_as_wanted - does every host pass? */
bool ctl_cluster_as_wanted(const json_t *cluster);

#endif
