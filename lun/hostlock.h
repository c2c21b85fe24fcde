/* SPDX-License-Identifier: BSD-3-Clause */
/* The locks of a host's processes for one LUN: one that all share, for its
 * registration, and one of each, which outlives it as long as what it sent
 * is in the kernel. */
#ifndef DETOUR_LUN_HOSTLOCK_H
#define DETOUR_LUN_HOSTLOCK_H

#include <stdint.h>

/* hostlock_open - RUNDIR/LUN.lock, or RUNDIR/LUN@PROCESS.lock when process is
 * not NULL; made when missing, not locked yet.
 *
 * returns: a descriptor, or -errno; -EINVAL: process holds a '/'
 */
int hostlock_open(const char *rundir, const char *lun, const char *process);

/* hostlock_shared, hostlock_exclusive - take the lock, or change its kind.
 *
 * A change is not atomic: flock(2) lets go of the old kind first, another
 * process may come between, and after an error nothing is held.
 *
 * errors:  -ETIMEDOUT deadline_ms came first (0: it is taken now or not)
 */
int hostlock_shared(int fd, uint64_t deadline_ms);
int hostlock_exclusive(int fd, uint64_t deadline_ms);

/* hostlock_drop - let go, also while io_uring rings still hold copies of the
 * descriptor. */
void hostlock_drop(int fd);

#endif
