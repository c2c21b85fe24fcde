/* SPDX-License-Identifier: BSD-3-Clause */
/* The paths below a kernel device as they were last seen, and since when. */
#include "lun/path_set.h"

#include <string.h>

const struct lun_path *
path_set_find(const struct path_set *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->paths[i].name, name) == 0)
            return &s->paths[i];
    return NULL;
}

bool
path_set_carry(struct path_set *seen, const struct path_set *before,
               uint64_t now_ms)
{
    bool news = seen->n != before->n;

    for (size_t i = 0; i < seen->n; i++) {
        struct lun_path *p = &seen->paths[i];
        const struct lun_path *old = path_set_find(before, p->name);

        p->since_ms = old && old->state == p->state ? old->since_ms : now_ms;
        news |=
            !old || old->state != p->state || strcmp(old->error, p->error) != 0;
    }
    return news;
}

unsigned
path_set_good(const struct path_set *s)
{
    unsigned n = 0;

    for (size_t i = 0; i < s->n; i++)
        n += s->paths[i].state == LUN_PATH_GOOD;
    return n;
}
