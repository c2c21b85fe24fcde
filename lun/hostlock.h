/* SPDX-License-Identifier: BSD-3-Clause */
/* The lock that the processes of a host share for one LUN's registration. */
#ifndef DETOUR_LUN_HOSTLOCK_H
#define DETOUR_LUN_HOSTLOCK_H

#include <stdint.h>

/* hostlock_open - RUNDIR/LUN.lock, made when missing; not locked yet.
 *
 * returns: a descriptor, or -errno
 */
int hostlock_open(const char *rundir, const char *lun);

/* hostlock_shared, hostlock_exclusive - take the lock, or change its kind.
 *
 * A change is not atomic: flock(2) lets go of the old kind first, another
 * process may come between, and after an error nothing is held.
 *
 * errors:  -ETIMEDOUT deadline_ms came first
 */
int hostlock_shared(int fd, uint64_t deadline_ms);
int hostlock_exclusive(int fd, uint64_t deadline_ms);

/* hostlock_drop - let go, also while io_uring rings still hold copies of the
 * descriptor. */
void hostlock_drop(int fd);

#endif
