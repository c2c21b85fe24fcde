/* SPDX-License-Identifier: BSD-3-Clause */
/* What will hurt one day: collects the findings of all parts. */
#include "health/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "health/ctl_colour.h"
#include "health/ctl_print.h"
#include "health/fields.h"

#define TEXT_MAX 700

static const char *const level_names[] = {"note", "warning", "problem"};

/* ---- findings ------------------------------------------------------------ */

void
check_add(struct check *k, enum check_level level, const char *about,
          const char *advice, const char *fmt, ...)
{
    char text[TEXT_MAX], whole[TEXT_MAX];
    json_t *finding, *old;
    va_list ap;
    size_t i;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    field_print(whole, sizeof whole, "%s", text);
    finding = json_pack("{s:s, s:s, s:s, s:s}", "level", level_names[level],
                        "about", about, "text", whole, "advice", advice);
    ctl_scrub(finding);
    json_array_foreach(k->findings, i, old)
    {
        if (json_equal(old, finding)) {
            json_decref(finding);
            return;
        }
    }
    if (json_array_append_new(k->findings, finding) < 0) {
        json_decref(k->findings);
        k->findings = NULL;
    }
    k->problems += level == CHECK_PROBLEM;
    k->warnings += level == CHECK_WARNING;
}

static int
print_text(const struct check *k, FILE *f)
{
    char coloured[64];
    json_t *o;
    size_t i;

    json_array_foreach(k->findings, i, o)
    {
        fprintf(f, "%s: %s: %s\n",
                ctl_colour(field_text(o, "level"), coloured, sizeof coloured),
                field_text(o, "about"), field_text(o, "text"));
        if (*field_text(o, "advice"))
            fprintf(f, "    %s\n", field_text(o, "advice"));
    }
    fprintf(f, "check: %u problems, %u warnings\n", k->problems, k->warnings);
    return 0;
}

static int
print_json(const struct check *k, FILE *f)
{
    json_t *o =
        json_pack("{s:O, s:i, s:i}", "findings", k->findings, "problems",
                  (int)k->problems, "warnings", (int)k->warnings);
    int err = o ? json_dumpf(o, f, JSON_INDENT(2) | JSON_ENSURE_ASCII) : -1;

    fputc('\n', f);
    json_decref(o);
    return err < 0 ? -ENOMEM : 0;
}

/* ---- the configuration --------------------------------------------------- */

typedef struct config *load(const char *file, FILE *errors);

/* Each mistake is a finding. */
static struct config *
load_with(struct check *k, load *loader, const char *file)
{
    char *text = NULL, *rest, *line;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);
    struct config *c;

    if (!errors)
        return NULL;
    c = loader(file, errors);
    fclose(errors);
    rest = text;
    while ((line = strsep(&rest, "\n")))
        if (*line)
            check_add(k, CHECK_PROBLEM, "configuration",
                      "no program of detour starts with it; detour.conf(5) "
                      "tells what may stand there",
                      "%s", line);
    free(text);
    return c;
}

/* One with mistakes in its files only is good enough to go on: detour-health
 * does not look at those of [self], nor the others at those of [health]. */
static struct config *
load_config(struct check *k, const char *file)
{
    struct config *c = load_with(k, config_load, file);
    struct config *health = load_with(k, config_load_health, file);

    if (!c)
        return health;
    config_destroy(health);
    return c;
}

static int
list_luns(struct check *k, const struct config *c)
{
    k->luns = calloc(c->nluns + 1, sizeof *k->luns);
    if (!k->luns)
        return -ENOMEM;
    for (size_t i = 0; i < c->nluns; i++)
        if (config_lun_has(&c->luns[i], c->self))
            k->luns[k->nluns++].config = &c->luns[i];
    return 0;
}

bool
check_kernel_device(const struct config_lun *l)
{
    return strncmp(l->device, "/dev/", 5) == 0;
}

int
check_run(const char *file, const char *sysroot, bool json, FILE *f)
{
    struct check k = {.sysroot = sysroot, .findings = json_array()};
    struct config *c = load_config(&k, file);
    int err = 0;

    log_init("detourctl", LOG_LEVEL_ERROR);
    k.config = c;
    if (c && (err = list_luns(&k, c)) == 0) {
        check_layout(&k);
        check_timers(&k);
        check_certs(&k);
        check_multipath(&k);
        check_host(&k);
        check_devices(&k);
        check_processes(&k);
        check_peers(&k);
    }
    if (err == 0 && !k.findings)
        err = -ENOMEM;
    if (err == 0)
        err = json ? print_json(&k, f) : print_text(&k, f);
    free(k.luns);
    json_decref(k.findings);
    config_destroy(c);
    return err ? err : k.problems + k.warnings > 0;
}
