/* SPDX-License-Identifier: BSD-3-Clause */
/* Reservation commands on a device, each a job with a deadline. */
#ifndef DETOUR_LUN_BLOCK_PR_H
#define DETOUR_LUN_BLOCK_PR_H

#include "lun/block.h"
#include "lun/pr_block.h"

/* All return 0 or -errno: those of pr_block.h, -ENOLINK without a device,
 * -ETIMEDOUT when the job was left behind. */

/* block_pr_look - the keys and the reservation. */
int block_pr_look(struct block *b, struct pr_block_state *s,
                  uint64_t deadline_ms);

/* block_pr_register - REGISTER on the device, or on each good path of a
 * multipath map; *tried tells on which.  One left behind counts as stuck in
 * b->registers. */
int block_pr_register(struct block *b, uint64_t key, struct block_slaves *tried,
                      uint64_t deadline_ms);

int block_pr_reserve(struct block *b, uint64_t key, uint64_t deadline_ms);

/* block_pr_preempt - a key, and what is under way with it.
 *
 * errors:  -EOPNOTSUPP: the target refuses PREEMPT AND ABORT, or is known to
 *          abort not all (quirk_partial_abort); nothing was done */
int block_pr_preempt_abort(struct block *b, uint64_t own, uint64_t victim,
                           uint64_t deadline_ms);
int block_pr_preempt(struct block *b, uint64_t own, uint64_t victim,
                     uint64_t deadline_ms);

/* block_pr_reset - LUN RESET over any path; dry: only ask whether it can be
 * done.  -EOPNOTSUPP: it cannot. */
int block_pr_reset(struct block *b, bool dry, uint64_t deadline_ms);

#endif
