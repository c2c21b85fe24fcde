/* SPDX-License-Identifier: BSD-3-Clause */
/* The steps of config_load: text to values, then values against each other. */
#ifndef DETOUR_CONFIG_PARTS_H
#define DETOUR_CONFIG_PARTS_H

#include "common/config.h"
#include "common/config_file.h"

/* Whose files must be there, and readable. */
enum config_files {
    CONFIG_FILES_OWN,    /* [self]'s and the LUNs' */
    CONFIG_FILES_HEALTH, /* [health]'s */
    CONFIG_FILES_NONE,
};

/* A configuration that is being made. */
struct config_draft {
    struct config *c;
    struct config_file *f; /* its text; f->error is set without memory */
    enum config_files files;
};

/* config_read - fill d->c from the sections of d->f.
 *
 * What is missing or wrong is told and has its default, NULL or 0. */
void config_read(struct config_draft *d);

/* config_check - hold values against each other and against the host: timers,
 * doubled numbers and addresses, files.  Passes over what is NULL or 0. */
void config_check(struct config_draft *d);

/* config_section - the nth (from 0) section of a kind, or NULL. */
const struct config_section *config_section(const struct config_file *f,
                                            const char *kind, size_t n);

#endif
