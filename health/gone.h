/* SPDX-License-Identifier: BSD-3-Clause */
/* May what ran on a dead host be started elsewhere?  Judged from what the other
 * hosts' detour-health say; no I/O, no clock. */
#ifndef DETOUR_HEALTH_GONE_H
#define DETOUR_HEALTH_GONE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"

/* What is asked. */
struct gone {
    const struct config *config;
    const struct config_host *const *hosts; /* that are off */
    size_t nhosts;
    const char *lun; /* only this one; or NULL */
};

/* What one of the others said. */
struct gone_word {
    const struct config_host *peer;
    const json_t *status; /* its detour-health's /status; NULL: none */
    const char *error;    /* why there is none; else not looked at */
    double after_s;       /* how long after the beginning it was asked for */
};

/* gone_is - is this host one of those that are off? */
bool gone_is(const struct gone *g, const struct config_host *h);

/* gone_concerns - is this LUN asked about, and one of those hosts a member? */
bool gone_concerns(const struct gone *g, const struct config_lun *l);

/* gone_lines - one for each LUN and each other member of it:
 *
 *   {"peer", "lun", "clear", "stale", "reason", "advice"}
 *
 * A peer is clear for a LUN when its proxy, asked since the beginning, has no
 * session of those hosts, no write that was given up and may still come, and
 * has waited for what a killed predecessor left.  stale: its word is older
 * than the beginning and counts for nothing, ask again.  reason and advice are
 * null when it is clear.
 *
 * shapes:  words holds one for each other host of the configuration, in any
 *          order; one that is missing has not answered
 * errors:  NULL when there is no memory
 * owns:    a new reference
 */
json_t *gone_lines(const struct gone *g, const struct gone_word *words,
                   size_t n);

/* gone_clear - is every line clear?  Also when there is none. */
bool gone_clear(const json_t *lines);

/* gone_stale - is any line stale? */
bool gone_stale(const json_t *lines);

#endif
