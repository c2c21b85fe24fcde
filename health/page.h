/* SPDX-License-Identifier: BSD-3-Clause */
/* The status page, as HTML that can be read without JavaScript. */
#ifndef DETOUR_HEALTH_PAGE_H
#define DETOUR_HEALTH_PAGE_H

#include <jansson.h>
#include <stdio.h>

/* page_write - the whole page.
 *
 * cluster is documents_cluster, history documents_history; this host's own
 * part is found in the former.  Every string in them is taken for hostile.
 */
void page_write(FILE *f, const json_t *cluster, const json_t *history);

/* page_policy - the Content-Security-Policy under which the page's own style
 * and script work and nothing else does.
 *
 * errors:  NULL and errno
 * owns:    the caller frees it
 */
char *page_policy(void);

#endif
