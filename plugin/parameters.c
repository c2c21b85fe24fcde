/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit's key=value parameters, and the configuration that they lead to. */
#define NBDKIT_API_VERSION 2

#include <nbdkit-plugin.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin/parameters.h"

static int
set_once(char **to, const char *key, const char *value)
{
    if (*to) {
        nbdkit_error("%s= was given twice", key);
        return -1;
    }
    *to = strdup(value);
    if (!*to)
        nbdkit_error("strdup: %m");
    return *to ? 0 : -1;
}

int
parameters_set(struct parameters *p, const char *key, const char *value)
{
    if (strcmp(key, "lun") == 0)
        return set_once(&p->lun_name, key, value);
    if (strcmp(key, "client") == 0)
        return set_once(&p->client, key, value);
    if (strcmp(key, "config") == 0) {
        char *path = nbdkit_absolute_path(value);
        int r = path ? set_once(&p->file, key, path) : -1;

        free(path);
        return r;
    }
    nbdkit_error("unknown parameter '%s': see nbdkit detour --help", key);
    return -1;
}

/* Each line that config_load wrote becomes one nbdkit_error. */
static void
tell_lines(char *text)
{
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        nbdkit_error("%s", line);
}

static int
load_config(struct parameters *p)
{
    const char *file = p->file ? p->file : CONFIG_DEFAULT_FILE;
    char *text = NULL;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);

    if (!errors) {
        nbdkit_error("open_memstream: %m");
        return -1;
    }
    p->config = config_load(file, errors);
    fclose(errors);
    if (!p->config) {
        tell_lines(text);
        nbdkit_error("%s: not usable: see the lines above", file);
    }
    free(text);
    return p->config ? 0 : -1;
}

static bool
name_is_plain(const char *name)
{
    return name[0] != '\0' && strlen(name) < 64 &&
           name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuv"
                             "wxyz0123456789_-")] == '\0';
}

/* By the proxy, which is a process of this host as well, and by what lies in
 * statedir beside LUN.CLIENT. */
static bool
name_is_taken(const char *name)
{
    return strcmp(name, "proxy") == 0 || strcmp(name, "epoch") == 0 ||
           strcmp(name, "keys") == 0;
}

int
parameters_complete(struct parameters *p)
{
    if (!p->lun_name) {
        nbdkit_error("lun=NAME is needed: a [lun NAME] section of the "
                     "configuration file");
        return -1;
    }
    if (!p->client && set_once(&p->client, "client", "main") < 0)
        return -1;
    if (!name_is_plain(p->client)) {
        nbdkit_error("client=%s: up to 63 letters, digits, '_' and '-'",
                     p->client);
        return -1;
    }
    if (name_is_taken(p->client)) {
        nbdkit_error("client=%s: taken by other files of a LUN", p->client);
        return -1;
    }
    if (load_config(p) < 0)
        return -1;
    p->lun = config_lun(p->config, p->lun_name);
    if (!p->lun) {
        nbdkit_error("%s has no section [lun %s]", p->config->file,
                     p->lun_name);
        return -1;
    }
    if (!config_lun_has(p->lun, p->config->self)) {
        nbdkit_error("%s: host %s is not one of the hosts of LUN %s",
                     p->config->file, p->config->self->name, p->lun->name);
        return -1;
    }
    return 0;
}

void
parameters_fini(struct parameters *p)
{
    config_destroy(p->config);
    free(p->lun_name);
    free(p->file);
    free(p->client);
}
