/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit's key=value parameters, and the configuration that they lead to.
 *
 * What is wrong with them is told with nbdkit_error.  All of it runs on
 * nbdkit's main thread.
 */
#ifndef DETOUR_PLUGIN_PARAMETERS_H
#define DETOUR_PLUGIN_PARAMETERS_H

#include "common/config.h"

struct parameters {
    char *lun_name, *file, *client; /* as given; NULL: not */
    /* after parameters_complete; client is set then as well */
    struct config *config;
    const struct config_lun *lun; /* of config */
};

/* parameters_set - one parameter; p begins as all zeroes.
 *
 * errors:  -1 and a message: no such key, given twice, no memory
 * owns:    p, until parameters_fini
 */
int parameters_set(struct parameters *p, const char *key, const char *value);

/* parameters_complete - there are no more: check them, read the configuration,
 * and find the LUN in it.
 *
 * errors:  -1 and messages
 */
int parameters_complete(struct parameters *p);

/* parameters_fini - free all that p holds; also one of all zeroes. */
void parameters_fini(struct parameters *p);

#endif
