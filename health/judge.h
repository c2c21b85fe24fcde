/* SPDX-License-Identifier: BSD-3-Clause */
/* What is wrong on this host, from what its processes last said. */
#ifndef DETOUR_HEALTH_JUDGE_H
#define DETOUR_HEALTH_JUDGE_H

#include <jansson.h>

#include "health/picture.h"

enum level {
    LEVEL_PASS,
    LEVEL_WARN, /* somebody should look: VMs run, but less is between them and
                   an outage than there should be */
    LEVEL_FAIL, /* VMs wait, or nobody knows, or a warning was let be */
};

/* A held request is a stall of a VM; so long is more than a switch takes. */
#define JUDGE_HELD_WARN_MS 1000
#define JUDGE_HELD_FAIL_MS 5000
/* What a Linux guest's SCSI disk forgives. */
#define JUDGE_SLOW_WARN_MS 30000
/* A verdict whose probe is older than this says little. */
#define JUDGE_PROBE_WARN_S 5
/* Certificates are for a month at least, lists are renewed each week. */
#define JUDGE_CERT_WARN_DAYS 14

/* judge - hold every fact against what it should be.
 *
 * returns: an array of
 *            {"lun": name or null, "source": process or file, "aspect",
 *             "status": "pass", "warn" or "fail", "value", "unit",
 *             "reason", "since_s", "age_s"}
 *          where value, unit, reason and since_s may be null; age_s is that
 *          of the answer it was read from.  A process that is silent has only
 *          its "process" check.
 * errors:  NULL when there is no memory
 */
json_t *judge(const struct picture *p, const struct moment *now);

/* judge_worst - the worst status among the checks of lun; NULL: of all. */
enum level judge_worst(const json_t *checks, const char *lun);

/* judge_luns - one entry for each LUN of the configuration that this host is
 * a member of, and whatever else its processes speak of:
 *
 *   {"lun", "status", "state", "reason", "since_s", "peer", "source"}
 *
 * state is that of the plugin process that is worst off, or, when none runs,
 * what the proxy does for peers; "unknown" when that process is silent, "off"
 * when there is none.
 */
json_t *judge_luns(const struct picture *p, const json_t *checks,
                   const struct moment *now);

/* judge_lun_of - the LUN that a plugin's source serves, also when it never
 * said so; NULL when that cannot be told, and for a proxy. */
const char *judge_lun_of(const struct picture *p,
                         const struct picture_source *s);

/* level_name - "pass", "warn" or "fail". */
const char *level_name(enum level l);

#endif
