/* SPDX-License-Identifier: BSD-3-Clause */
/* One unit of a LUN: what it may hold, as requests begin and end. */
#ifndef BLOCKCHECK_CELL_H
#define BLOCKCHECK_CELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CELL_READS 64 /* under way at the same time */

/* How a change ended; the rules are in ruling.h. */
enum cell_end {
    CELL_DONE, /* it took effect */
    CELL_MAYBE /* it did, or never will (a trim) */
};

/* Changes that may take effect now. */
struct cell_change {
    uint64_t value;
    uint64_t start_ns;
    uint64_t told_ns; /* when its failure was told; UINT64_MAX before */
    uint64_t over_ns; /* when its client was served again; UINT64_MAX: never */
    uint32_t id;
    uint32_t client;
};

/* One thing that may be so: what is there now.  Changes take effect as late as
 * they can: only the end of one, or of a read, can force them, and waiting
 * shuts no door. */
struct cell_state {
    bool any; /* the value is not known: any will do */
    uint64_t value;
    uint64_t since_ns; /* all that began before has taken effect before it */
    uint64_t seen;     /* reads under way that have found their value */
};

struct cell {
    struct cell_change *changes;
    struct cell_state *states, *next;
    size_t nchanges, room_changes;
    size_t nstates, room_states;
    size_t nnext, room_next;
    struct {
        uint64_t value;
        uint32_t id;
    } reads[CELL_READS];
    uint64_t used; /* of reads, a bit each */
    bool no_memory;
};

/* cell_init, cell_fini - an empty one; it must be reset before it is used. */
void cell_init(struct cell *c);
void cell_fini(struct cell *c);

/* cell_reset - nothing is under way; value is there, or anything when value is
 * NULL.
 *
 * errors:  -ENOMEM, as all below; the cell must be reset then
 */
int cell_reset(struct cell *c, const uint64_t *value);

/* cell_change_begins - client's request id begins, which makes the unit hold
 * value. */
int cell_change_begins(struct cell *c, uint32_t id, uint32_t client,
                       uint64_t value, uint64_t now_ns);

/* cell_change_ends - it ends well. */
int cell_change_ends(struct cell *c, uint32_t id, enum cell_end end,
                     uint64_t now_ns);

/* cell_change_fails - its failure is told: it took effect, or will, or will
 * not, until a change is done that the client began after now_ns, or another
 * one after over_ns (UINT64_MAX: never). */
void cell_change_fails(struct cell *c, uint32_t id, uint64_t now_ns,
                       uint64_t over_ns);

/* cell_read_begins - a read that will find value begins; -ENOSPC: too many are
 * under way, and this one is left out (do not call cell_read_ends). */
int cell_read_begins(struct cell *c, uint32_t id, uint64_t value);

/* cell_read_ends - it ends.
 *
 * errors:  -EILSEQ  it cannot have found that value; reset the cell
 */
int cell_read_ends(struct cell *c, uint32_t id);

#endif
