/* SPDX-License-Identifier: BSD-3-Clause */
/* A limit on how often something is told.  Pure; the caller locks. */
#ifndef DETOUR_PROXY_LIMIT_H
#define DETOUR_PROXY_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

struct limit {
    unsigned burst;    /* so many at once ... */
    unsigned every_ms; /* ... and one more after each of these */
    unsigned used;     /* of burst */
    uint64_t since_ms; /* up to when used was given back */
    unsigned withheld; /* refused since the last one that was let through */
};

/* limit_allow - may it be told now?
 *
 * *withheld: how many were not, since it last was (when the answer is true)
 */
bool limit_allow(struct limit *l, uint64_t now_ms, unsigned *withheld);

#endif
