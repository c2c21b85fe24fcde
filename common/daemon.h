/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line that detour's daemons share. */
#ifndef DETOUR_COMMON_DAEMON_H
#define DETOUR_COMMON_DAEMON_H

#include <stdbool.h>

struct daemon_options {
    const char *config; /* set by the caller to its default; or from argv */
    bool debug, check;
};

/* daemon_options - read --config FILE, --debug, --check, --version, --help.
 *
 * name:  of the program, for its messages
 * usage: printed for --help
 *
 * returns: -1 go on; else end with this exit status: 0 printed what was asked
 *          for, 2 wrong usage, which was told on stderr
 */
int daemon_options(int argc, char **argv, const char *name, const char *usage,
                   struct daemon_options *o);

#endif
