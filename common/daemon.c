/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemons' options. */
#include "common/daemon.h"

#include <getopt.h>
#include <stdio.h>

int
daemon_options(int argc, char **argv, const char *name, const char *usage,
               struct daemon_options *o)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"debug", no_argument, NULL, 'd'},
        {"check", no_argument, NULL, 'n'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int opt;

    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (opt) {
        case 'c':
            o->config = optarg;
            break;
        case 'd':
            o->debug = true;
            break;
        case 'n':
            o->check = true;
            break;
        case 'V':
            printf("%s %s\n", name, DETOUR_VERSION);
            return 0;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fprintf(stderr, "Try %s --help.\n", name);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument: %s\n", name, argv[optind]);
        return 2;
    }
    return -1;
}
