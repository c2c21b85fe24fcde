/* SPDX-License-Identifier: BSD-3-Clause */
/* The paths below a kernel device as they were last seen, and since when. */
#ifndef DETOUR_LUN_PATH_SET_H
#define DETOUR_LUN_PATH_SET_H

#include "lun/lun.h"

struct path_set {
    size_t n;
    struct lun_path paths[LUN_PATH_MAX]; /* names are told apart by name */
};

/* path_set_find - the path of that name; NULL: there is none. */
const struct lun_path *path_set_find(const struct path_set *s,
                                     const char *name);

/* path_set_carry - make seen, just gathered, follow on before: a path that is
 * in the state it was in keeps its since_ms, others changed at now_ms.
 *
 * returns: did a path come or go, or change its state or error?
 */
bool path_set_carry(struct path_set *seen, const struct path_set *before,
                    uint64_t now_ms);

/* path_set_good - how many are LUN_PATH_GOOD. */
unsigned path_set_good(const struct path_set *s);

#endif
