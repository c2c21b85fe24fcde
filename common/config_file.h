/* SPDX-License-Identifier: BSD-3-Clause */
/* The configuration file as text: sections, keys, values and their lines.
 * What they mean is for config_read.c. */
#ifndef DETOUR_CONFIG_FILE_H
#define DETOUR_CONFIG_FILE_H

#include <stddef.h>
#include <stdio.h>

struct config_entry {
    char *key;
    char *value; /* never empty */
    unsigned line;
};

struct config_section {
    char *kind; /* "lun" of [lun vm1] */
    char *name; /* "vm1", or "" */
    unsigned line;
    struct config_entry *entries;
    size_t nentries;
};

struct config_file {
    const char *path;
    FILE *errors; /* where mistakes are told */
    unsigned mistakes;
    int error; /* -errno that made it impossible to go on, or 0 */
    struct config_section *sections;
    size_t nsections;
};

/* config_file_read - read all of stream into f.
 *
 * f holds path and errors and is zero otherwise.  What is no section, no
 * comment and no "key = value" is a mistake and is left out.  A value that
 * ends in a comma goes on in the next line, if that is indented.
 *
 * errors:  -errno of reading, -ENOMEM; mistakes are only counted
 * owns:    f is ended with config_file_fini in any case
 */
int config_file_read(struct config_file *f, FILE *stream);

/* config_file_fini - free what config_file_read has stored; path and errors
 * are the caller's. */
void config_file_fini(struct config_file *f);

/* config_file_mistake - tell one and count it; line 0: the whole file. */
void config_file_mistake(struct config_file *f, unsigned line, const char *fmt,
                         ...) __attribute__((format(printf, 3, 4)));

/* config_file_line - where s sets key; where s begins if it does not. */
unsigned config_file_line(const struct config_section *s, const char *key);

#endif
