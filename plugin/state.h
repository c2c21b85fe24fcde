/* SPDX-License-Identifier: BSD-3-Clause */
/* What a plugin leaves on disk for its successor: generation, where its
 * writes may still travel, and what the LUN looked like. */
#ifndef DETOUR_PLUGIN_STATE_H
#define DETOUR_PLUGIN_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lun/lun.h"

#define STATE_HOSTS_MAX 64
#define STATE_NAME_MAX  128

struct state {
    uint64_t generation; /* the last one that may have been used */
    bool local;          /* writes may be under way over our own paths */
    /* hosts whose proxies may hold writes of ours */
    char peers[STATE_HOSTS_MAX][STATE_NAME_MAX];
    size_t npeers;
    char id[LUN_ID_MAX]; /* ""; not known yet */
    uint64_t size;       /* bytes; 0: not known yet */
    uint32_t block_size;
};

struct state_file;

/* How long a plugin waits at its start for a predecessor that was killed.
 * Longer than systemd counts the starts of a unit (5 in 10 s), so that it
 * goes on trying; short enough that a mistake shows. */
#define STATE_PATIENCE_MS 12000

/* state_open - open or make STATEDIR/LUN.CLIENT and read what is there.
 *
 * The file has two slots of 4 KiB, allocated when it is made and written in
 * turn, so that saving works on a full disk and a torn write leaves the
 * older slot.  The file is locked for this process; as long as another one
 * has it, waits until deadline_ms, with one warning.
 *
 * errors:  NULL, errno and a message in err: EBUSY another process still has
 *          it locked; EINVAL both slots are damaged; else of the file system
 * owns:    ended with state_close
 */
struct state_file *state_open(const char *statedir, const char *lun,
                              const char *client, uint64_t deadline_ms,
                              struct state *s, char *err, size_t errlen);

/* state_save - on disk (fdatasync) when it returns 0; else -errno, and a
 * successor finds s or what was saved before. */
int state_save(struct state_file *f, const struct state *s);

/* state_close - unlock and free; NULL is fine. */
void state_close(struct state_file *f);

#endif
