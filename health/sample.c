/* SPDX-License-Identifier: BSD-3-Clause */
/* Samples of metrics, as lines of Prometheus' text format. */
#include "health/sample.h"

#include <stdarg.h>
#include <string.h>

#include "health/fields.h"

static void
write_value(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (*text == '\\' || *text == '"')
            fprintf(f, "\\%c", *text);
        else if (*text == '\n')
            fputs("\\n", f);
        else
            fputc(*text, f);
    }
}

static void
write_label(FILE *f, char *mark, const char *name, const char *value)
{
    fprintf(f, "%c%s=\"", *mark, name);
    write_value(f, value);
    fputc('"', f);
    *mark = ',';
}

void
sample_write(const struct sample *o, double v, ...)
{
    const char *name;
    char mark = '{';
    va_list ap;

    fprintf(o->f, "%s%s", o->name, o->suffix);
    if (o->labels.process)
        write_label(o->f, &mark, "process", o->labels.process);
    if (o->labels.lun)
        write_label(o->f, &mark, "lun", o->labels.lun);
    if (o->labels.client)
        write_label(o->f, &mark, "client", o->labels.client);
    va_start(ap, v);
    while ((name = va_arg(ap, const char *)))
        write_label(o->f, &mark, name, va_arg(ap, const char *));
    va_end(ap);
    if (mark == ',')
        fputc('}', o->f);
    /* whole numbers as they are, up to what a double holds */
    fprintf(o->f, " %.15g\n", v);
}

void
sample_field(const struct sample *o, const json_t *from, const char *key,
             double scale)
{
    if (json_is_number(json_object_get(from, key)))
        sample_write(o, field_number(from, key, 0) * scale, NULL);
}

void
sample_states(const struct sample *o, const char *label,
              const char *const *names, const char *now)
{
    for (; *names; names++)
        sample_write(o, strcmp(*names, now) == 0, label, *names, NULL);
}

void
sample_begin(struct sample *o, const char *name, const char *type,
             const char *help)
{
    o->name = name;
    o->suffix = "";
    o->labels = (struct sample_labels){.process = NULL};
    fprintf(o->f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}
