/* SPDX-License-Identifier: BSD-3-Clause */
/* Until when certificates and revocation lists are good. */
#ifndef DETOUR_HEALTH_CERTS_H
#define DETOUR_HEALTH_CERTS_H

#include <stddef.h>
#include <time.h>

#include "common/config.h"

#define CERTS_MAX 6

struct cert {
    const char *name; /* "ca", "cert", "crl", "health-ca", "health-cert" */
    const char *path; /* the configuration's */
    time_t not_after; /* a list's next update; 0: not known */
    char error[160];  /* why not; "": it is */
};

/* certs_read - look at the files that c names, but for keys.
 *
 * returns: how many of to are filled, at most CERTS_MAX
 */
size_t certs_read(const struct config *c, struct cert *to);

#endif
