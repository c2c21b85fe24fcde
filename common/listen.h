/* SPDX-License-Identifier: BSD-3-Clause */
/* TCP sockets that listen on configured addresses. */
#ifndef DETOUR_LISTEN_H
#define DETOUR_LISTEN_H

#include <stddef.h>

#include "common/config.h"

/* listen_open - one socket for each address of h, on its port.
 *
 * An address that the host does not have yet is fine (IP_FREEBIND): peers
 * reach it as soon as it is there.
 *
 * returns: an array of h->naddresses descriptors, non-blocking
 * errors:  NULL, said with log_error
 * owns:    the caller ends it with listen_close
 */
int *listen_open(const struct config_host *h);

/* listen_close - those of the n fds that are not negative, and the array. */
void listen_close(int *fds, size_t n);

#endif
