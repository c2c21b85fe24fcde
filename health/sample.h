/* SPDX-License-Identifier: BSD-3-Clause */
/* Samples of metrics, as lines of Prometheus' text format. */
#ifndef DETOUR_HEALTH_SAMPLE_H
#define DETOUR_HEALTH_SAMPLE_H

#include <jansson.h>
#include <stdio.h>

/* Labels that many samples share; NULL ends them. */
struct sample_labels {
    const char *process, *lun, *client;
};

/* Where samples go, and of which metric they are. */
struct sample {
    FILE *f;
    const char *name;
    const char *suffix; /* of the parts of a histogram; "" */
    struct sample_labels labels;
};

/* sample_begin - write what a metric is; its samples follow, without labels.
 *
 * name:    kept in o, so it must outlive the metric's samples
 */
void sample_begin(struct sample *o, const char *name, const char *type,
                  const char *help);

/* sample_write - one sample of value v.
 *
 * Behind v: more labels as pairs of name and value, ended by NULL. */
void sample_write(const struct sample *o, double v, ...);

/* sample_field - one sample of a field, times scale, which makes the metric's
 * unit of the field's; nothing when the field is no number. */
void sample_field(const struct sample *o, const json_t *from, const char *key,
                  double scale);

/* sample_states - one sample for each state that there is, 1 for the present
 * one and 0 for the others.
 *
 * names:   of all states, ended by NULL
 */
void sample_states(const struct sample *o, const char *label,
                   const char *const *names, const char *now);

#endif
