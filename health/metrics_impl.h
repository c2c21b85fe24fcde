/* SPDX-License-Identifier: BSD-3-Clause */
/* The tables of metrics; metrics.c goes through them. */
#ifndef DETOUR_HEALTH_METRICS_IMPL_H
#define DETOUR_HEALTH_METRICS_IMPL_H

#include "health/fields.h"
#include "health/sample.h"

static inline const json_t *
get(const json_t *o, const char *key)
{
    return json_object_get(o, key);
}

/* Of what JSON a metric is told. */
enum metrics_scope {
    METRICS_OF_PROCESS, /* its whole answer */
    METRICS_OF_PLUGIN,  /* likewise, of plugins only */
    METRICS_OF_LUN,     /* "lun_status", of plugin and proxy */
    METRICS_OF_SHARE,   /* one of the proxy's "luns" */
};

struct metric {
    const char *name, *type, *help;
    enum metrics_scope scope;
    void (*write)(const struct sample *o, const json_t *from);
};

struct metrics_table {
    const struct metric *rows;
    size_t n;
};

#define METRICS_TABLE(rows)                                                    \
    {                                                                          \
        rows, sizeof rows / sizeof rows[0]                                     \
    }

extern const struct metrics_table metrics_plugin; /* routes and requests */
extern const struct metrics_table metrics_lun;    /* a LUN's own paths */
extern const struct metrics_table metrics_proxy;  /* what peers are served */

#endif
