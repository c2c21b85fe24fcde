/* SPDX-License-Identifier: BSD-3-Clause */
/* Persistent reservations on a kernel block device: one call, one command.
 * All of them block as the device does. */
#ifndef DETOUR_LUN_PR_BLOCK_H
#define DETOUR_LUN_PR_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PR_BLOCK_KEYS_MAX 1024 /* 32 hosts on LUN_PATH_MAX paths each */

/* What stands on the LUN. */
struct pr_block_state {
    uint32_t generation; /* another one whenever keys came or went */
    size_t nkeys;
    /* one for each registered nexus; the last is there to see that there are
     * too many */
    uint64_t keys[PR_BLOCK_KEYS_MAX + 1];
    bool reserved;    /* by whomever */
    bool usable_type; /* write exclusive for registrants, or all of them */
};

/* pr_block_read_keys, pr_block_read_reservation - fill their part of s;
 * the generation is that of the keys.
 *
 * Through the block layer's ioctls where the kernel has them, else with
 * PERSISTENT RESERVE IN over SG_IO.
 *
 * errors:  -EOPNOTSUPP no reservations here; -E2BIG more keys than
 *          PR_BLOCK_KEYS_MAX; -ENOMEM; -EBADE, path errors
 * source:  SPC-4 6.15, linux/pr.h
 */
int pr_block_read_keys(int fd, struct pr_block_state *s);
int pr_block_read_reservation(int fd, struct pr_block_state *s);

/* pr_block_register - REGISTER AND IGNORE EXISTING KEY. */
int pr_block_register(int fd, uint64_t key);

/* pr_block_reserve - RESERVE, write exclusive, registrants only. */
int pr_block_reserve(int fd, uint64_t key);

/* pr_block_preempt - remove the victim's key, with its commands (abort) or
 * without; the kernel calls our own key old and the victim's new.
 *
 * errors:  -EOPNOTSUPP the target refuses this form
 */
int pr_block_preempt(int fd, uint64_t own, uint64_t victim, bool abort);

#endif
