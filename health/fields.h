/* SPDX-License-Identifier: BSD-3-Clause */
/* Looking into JSON that somebody else wrote: whatever it is, there is an
 * answer. */
#ifndef DETOUR_HEALTH_FIELDS_H
#define DETOUR_HEALTH_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

/* field_text - a field's text; "" when it is none. */
static inline const char *
field_text(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));

    return text ? text : "";
}

/* field_number - a field's number; otherwise when it is none. */
static inline double
field_number(const json_t *o, const char *key, double otherwise)
{
    const json_t *v = json_object_get(o, key);

    return json_is_number(v) ? json_number_value(v) : otherwise;
}

/* field_is - is the field this text? */
static inline bool
field_is(const json_t *o, const char *key, const char *text)
{
    return strcmp(field_text(o, key), text) == 0;
}

/* field_has - is there such a field, and not null? */
static inline bool
field_has(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return v && !json_is_null(v);
}

/* field_print - like snprintf, but what has no room never leaves half a
 * character: JSON takes no text that is not UTF-8. */
void field_print(char *to, size_t room, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
