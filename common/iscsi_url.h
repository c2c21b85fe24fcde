/* SPDX-License-Identifier: BSD-3-Clause */
/* Takes apart iscsi://PORTAL[,PORTAL...]/IQN/LUN. */
#ifndef DETOUR_COMMON_ISCSI_URL_H
#define DETOUR_COMMON_ISCSI_URL_H

#include <stddef.h>
#include <stdint.h>

#define ISCSI_URL_PORT        3260
#define ISCSI_URL_PORTALS_MAX 16
#define ISCSI_URL_PORTAL_MAX  64  /* "[v6]:port" with the final NUL */
#define ISCSI_URL_NAME_MAX    224 /* RFC 7143 4.2.7.1: 223 bytes, and the NUL */

struct iscsi_url_parts {
    /* each is "1.2.3.4:port" or "[v6]:port", the port always given */
    char portals[ISCSI_URL_PORTALS_MAX][ISCSI_URL_PORTAL_MAX];
    size_t nportals; /* 1 to ISCSI_URL_PORTALS_MAX */
    char target[ISCSI_URL_NAME_MAX];
    uint16_t lun; /* 0 to 16383 (flat addressing, SAM-5 4.7.7.4) */
};

/* iscsi_url_parse - take text apart; a pure function.
 *
 * A portal is an address literal, so that no name server can hold up or
 * redirect a path; its port is 3260 when none is given.
 *
 * errors:  -EINVAL and, in err, what is wrong with which part; parts is
 *          undefined then
 */
int iscsi_url_parse(const char *text, struct iscsi_url_parts *parts, char *err,
                    size_t errlen);

#endif
