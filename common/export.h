/* SPDX-License-Identifier: BSD-3-Clause */
/* What plugin and proxy say to each other inside plain NBD: the export name
 * that asks for a session, and the export description that answers INFO.
 * Pure functions; everything parsed here came from a peer. */
#ifndef DETOUR_EXPORT_H
#define DETOUR_EXPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT_NAME_MAX  4096 /* NBD proto.md, string length limit */
#define EXPORT_WORD_MAX  128  /* a LUN's, client's or host's name, an id */
#define EXPORT_FENCE_MAX 32
/* Filler of a heartbeat: longer than an Ethernet frame of 1500 bytes and, with
 * all else, shorter than EXPORT_NAME_MAX.  A network whose switches drop what
 * its hosts believe to fit (jumbo frames, tunnels) passes short questions
 * and no data. */
#define EXPORT_PAD 3000

/* <lun>?client=<name>&generation=<n>&id=<wwid>&fence=<host>,<host>&pad=<filler>
 *
 * Every part behind the LUN's name may be missing, in any order, none twice.
 * Values are percent-encoded where they hold anything but letters, digits
 * and "._-:".  A name without '?' is what a plain NBD client asks for; "" asks
 * for the default export.  Control characters are refused, encoded or not. */
struct export_name {
    char lun[EXPORT_WORD_MAX];
    char client[EXPORT_WORD_MAX]; /* "": none given */
    uint64_t generation;          /* 0: none given */
    char id[EXPORT_WORD_MAX];     /* "": none given */
    char fence[EXPORT_FENCE_MAX][EXPORT_WORD_MAX];
    size_t nfence;
    unsigned pad; /* characters of filler; 0: none */
};

/* export_name_parse - take apart a name of len bytes (not NUL-terminated).
 *
 * errors:  -EINVAL and a message in err (what is wrong, where); e is
 *          undefined then.  Unknown keys are an error: a session rule that
 *          this side does not know must not be passed over.
 */
int export_name_parse(const char *name, size_t len, struct export_name *e,
                      char *err, size_t errlen);

/* export_name_format - the reverse; buf holds EXPORT_NAME_MAX + 1 bytes.
 *
 * errors:  -ENAMETOOLONG
 */
int export_name_format(const struct export_name *e, char *buf);

/* "detour 1 id=<wwid> state=<word> load=<n> sessions=<n>", perhaps " slow=1",
 * and " pad=<filler>": as much filler as the name that asked had, at the end,
 * so that whoever has no room for it cuts nothing else off */
struct export_info {
    char id[EXPORT_WORD_MAX];
    char state[32];    /* serving, ... (proxy's words) */
    uint64_t load;     /* requests under way for peers */
    unsigned sessions; /* open sessions of this LUN */
    bool slow;         /* its paths are slower than usual */
    unsigned pad;      /* characters of filler; not parsed */
};

/* export_info_parse - errors: -EINVAL not such a description; unknown words
 * are passed over.  export_info_format - errors: -ENAMETOOLONG. */
int export_info_parse(const char *text, struct export_info *i);
int export_info_format(const struct export_info *i, char *buf, size_t len);

#endif
