/* SPDX-License-Identifier: BSD-3-Clause */
/* Loads, looks up and frees a configuration. */
#include "common/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_parts.h"

/* From an open file to a configuration; -errno, -EINVAL for mistakes. */
static int
load(struct config_draft *d, FILE *stream)
{
    int r = config_file_read(d->f, stream);

    if (r < 0)
        return r;
    config_read(d);
    if (d->f->error)
        return d->f->error;
    config_check(d);
    return d->f->mistakes ? -EINVAL : 0;
}

static struct config *
load_file(const char *file, FILE *errors, enum config_files files)
{
    struct config_file text = {.path = file, .errors = errors};
    struct config *c = calloc(1, sizeof(*c));
    struct config_draft d = {.c = c, .f = &text, .files = files};
    FILE *stream = NULL;
    int r = -ENOMEM;

    if (!c || !(c->file = strdup(file)))
        goto out;
    stream = fopen(file, "re");
    r = stream ? load(&d, stream) : -errno;
out:
    if (stream)
        fclose(stream);
    config_file_fini(&text);
    if (r == 0)
        return c;
    if (!text.mistakes || r != -EINVAL)
        fprintf(errors, "%s: %s\n", file, strerror(-r));
    config_destroy(c);
    errno = -r;
    return NULL;
}

struct config *
config_load(const char *file, FILE *errors)
{
    return load_file(file, errors, CONFIG_FILES_OWN);
}

struct config *
config_load_health(const char *file, FILE *errors)
{
    return load_file(file, errors, CONFIG_FILES_HEALTH);
}

struct config *
config_load_text(const char *file, FILE *errors)
{
    return load_file(file, errors, CONFIG_FILES_NONE);
}

static void
free_host(struct config_host *h)
{
    for (size_t i = 0; i < h->naddresses; i++)
        free(h->addresses[i]);
    free(h->addresses);
    free(h->name);
}

static void
free_lun(struct config_lun *l)
{
    free(l->name);
    free(l->device);
    free(l->wwid);
    free(l->chap_user);
    free(l->chap_secret_file);
    free(l->initiator);
    free(l->hosts);
}

void
config_destroy(struct config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->nhosts; i++)
        free_host(&c->hosts[i]);
    for (size_t i = 0; i < c->nluns; i++)
        free_lun(&c->luns[i]);
    free(c->hosts);
    free(c->luns);
    free(c->file);
    free(c->cluster_name);
    free(c->rundir);
    free(c->statedir);
    free(c->ca);
    free(c->cert);
    free(c->key);
    free(c->crl);
    free_host(&c->health.at);
    free(c->health.group);
    free(c->health.ca);
    free(c->health.cert);
    free(c->health.key);
    free(c);
}

const struct config_lun *
config_lun(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->nluns; i++)
        if (strcmp(c->luns[i].name, name) == 0)
            return &c->luns[i];
    return NULL;
}

const struct config_host *
config_host(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->nhosts; i++)
        if (c->hosts[i].name && strcmp(c->hosts[i].name, name) == 0)
            return &c->hosts[i];
    return NULL;
}

bool
config_lun_has(const struct config_lun *l, const struct config_host *h)
{
    for (size_t i = 0; i < l->nhosts; i++)
        if (l->hosts[i] == h)
            return true;
    return false;
}
