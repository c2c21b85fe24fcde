/* SPDX-License-Identifier: BSD-3-Clause */
/* The directory of certificates that libnbd wants, made of the configured
 * files. */
#ifndef DETOUR_COMMON_TLSDIR_H
#define DETOUR_COMMON_TLSDIR_H

struct tlsdir;

struct tlsdir_files {
    const char *ca, *cert, *key;
    const char *crl; /* or NULL */
};

/* tlsdir_create - make <rundir>/tls.XXXXXX with symbolic links to the files.
 *
 * The links are called ca-cert.pem, client-cert.pem, client-key.pem and
 * ca-crl.pem (nbd_set_tls_certificates(3)).  Being links, they follow files
 * that are replaced later.  Directories that killed processes left in rundir
 * are removed; a running process holds a lock on its own.
 *
 * shapes:  relative names of files are taken from the current directory
 * errors:  NULL and errno
 * owns:    ended with tlsdir_destroy.  Make it after fork and after a change
 *          of user: its mode is 0700.
 */
struct tlsdir *tlsdir_create(const char *rundir, const struct tlsdir_files *f);

/* tlsdir_path - lent until tlsdir_destroy. */
const char *tlsdir_path(const struct tlsdir *d);

/* tlsdir_destroy - remove the directory; NULL is fine. */
void tlsdir_destroy(struct tlsdir *d);

#endif
