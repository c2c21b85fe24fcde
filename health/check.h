/* SPDX-License-Identifier: BSD-3-Clause */
/* What will hurt one day: the parts of `detourctl check`. */
#ifndef DETOUR_HEALTH_CHECK_H
#define DETOUR_HEALTH_CHECK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/config.h"
#include "lun/lun.h"

/* What a Linux guest's SCSI disk forgives, then it gives up; Windows: 60 s. */
#define CHECK_GUEST_MS 30000

enum check_level {
    CHECK_NOTE,    /* good to know; counts for nothing */
    CHECK_WARNING, /* it works, but an outage may become worse by it */
    CHECK_PROBLEM, /* it does not work, or will not when it is needed */
};

/* One LUN that this host is a member of. */
struct check_lun {
    const struct config_lun *config;
    char id[LUN_ID_MAX]; /* "": not known */
    uint64_t size;       /* 0: not known */
};

struct check {
    const char *sysroot;         /* before /etc, /proc and /sys; "" */
    const struct config *config; /* may be NULL: it cannot be read */
    struct check_lun *luns;
    size_t nluns;
    json_t *findings; /* NULL: no memory was left */
    unsigned problems, warnings;
};

/* check_run - look at everything and tell it on f.
 *
 * file is the configuration's.  json: as an object instead of as text.
 *
 * returns: 0: nothing was found; 1: problems or warnings; -errno
 */
int check_run(const char *file, const char *sysroot, bool json, FILE *f);

/* check_add - a finding: what it is about, what is wrong (fmt), what to do
 * about it; the same one again is passed over. */
void check_add(struct check *k, enum check_level level, const char *about,
               const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* check_kernel_device - does the host's kernel bring this LUN's I/O to the
 * array?  (Otherwise it is a file, or an iSCSI target of our own.) */
bool check_kernel_device(const struct config_lun *l);

/* ---- the parts, in the order they are called; config is not NULL --------- */

/* check_timers - times of the configuration against a guest's patience. */
void check_timers(struct check *k);
/* check_layout - names, hosts, folders and addresses of the configuration. */
void check_layout(struct check *k);
/* check_certs - certificates, the key and the revocation list. */
void check_certs(struct check *k);
/* check_multipath - multipath.conf. */
void check_multipath(struct check *k);
/* check_host - sysctls, transports, nbdkit. */
void check_host(struct check *k);
/* check_devices - each LUN's device; learns its identity. */
void check_devices(struct check *k);
/* check_processes - what runs here; learns identities of iscsi LUNs. */
void check_processes(struct check *k);
/* check_peers - each peer, over each network, for each LUN; and its clock. */
void check_peers(struct check *k);

#endif
