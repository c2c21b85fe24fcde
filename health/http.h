/* SPDX-License-Identifier: BSD-3-Clause */
/* libmicrohttpd on one listening socket and one thread, whose clients cannot
 * stay longer than they are given. */
#ifndef DETOUR_HEALTH_HTTP_H
#define DETOUR_HEALTH_HTTP_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

struct http;

/* PEM texts, each ending in NUL. */
struct http_tls {
    const char *cert, *key;
    const char *client_ca; /* clients are asked for a certificate; NULL: not.
                              Whether one came, and is good, is for handle to
                              find out */
};

struct http_options {
    unsigned clients;   /* at once; others wait in the socket's backlog */
    unsigned per_ip;    /* of these, from one address; others are closed at
                           once; 0: as many as there are */
    unsigned client_ms; /* a connection lives no longer than this, whatever
                           the client does: libmicrohttpd's own timeout begins
                           anew with each byte */
    size_t memory;      /* for each connection */
    /* Is it one of those who may have half of the places, so that the others
     * need not wait for them?  Beyond that they are closed at once.  From
     * http's thread; NULL: nobody is. */
    bool (*is_guest)(void *opaque, int fd);
    const struct http_tls *tls; /* NULL: none */

    /* libmicrohttpd's, called from http's thread; answers must carry
     * "Connection: close" */
    MHD_AccessHandlerCallback handle;
    MHD_RequestCompletedCallback completed; /* or NULL */
    void *opaque;
};

/* http_start_take_fd - answer on the listening, non-blocking socket fd.
 *
 * errors:  NULL and errno (EINVAL: the certificate or key is of no use)
 * owns:    fd is taken in any case; o is copied, the texts of tls are read
 *          before this returns; ended with http_stop
 */
struct http *http_start_take_fd(int fd, const struct http_options *o);

/* http_stop - close the socket and all connections; NULL is fine. */
void http_stop(struct http *h);

#endif
