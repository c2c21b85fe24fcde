/* SPDX-License-Identifier: BSD-3-Clause */
/* A limit on how often something is told. */
#include "proxy/limit.h"

bool
limit_allow(struct limit *l, uint64_t now_ms, unsigned *withheld)
{
    uint64_t back = (now_ms - l->since_ms) / l->every_ms;

    if (back >= l->used) {
        l->used = 0;
        l->since_ms = now_ms;
    } else {
        l->used -= (unsigned)back;
        l->since_ms += back * l->every_ms;
    }
    if (l->used >= l->burst) {
        l->withheld++;
        return false;
    }
    l->used++;
    *withheld = l->withheld;
    l->withheld = 0;
    return true;
}
