/* SPDX-License-Identifier: BSD-3-Clause */
/* Epochs and the keys in use, kept on the host's own disk. */
#ifndef DETOUR_LUN_EPOCH_H
#define DETOUR_LUN_EPOCH_H

#include <stddef.h>
#include <stdint.h>

/* epoch_next - a new epoch for a LUN, never given out before on this host.
 *
 * Shared by all processes of the host through STATEDIR/LUN.epoch, under
 * flock, on disk (fsync) before it returns.  Without that file the first one
 * is random, since what was given out before is forgotten.
 *
 * errors:  0 and errno; EUCLEAN: the file is damaged
 */
uint32_t epoch_next(const char *statedir, const char *lun);

/* epoch_last - the last one given out; 0: none (or errno set: unreadable). */
uint32_t epoch_last(const char *statedir, const char *lun);

/* epoch_save_keys, epoch_load_keys - the keys a process may have on the LUN.
 *
 * Kept in STATEDIR/LUN.PROCESS.keys, replaced as a whole (write, fsync,
 * rename, fsync of the folder) before a REGISTER with a new key is sent, so
 * that the process' successor knows what to preempt.
 *
 * lun must not hold '/', process neither '/' nor '.' (-EINVAL).
 *
 * errors:  -errno; load returns how many there are, 0 without the file,
 *          -E2BIG more than max, -EUCLEAN the file is damaged
 */
int epoch_save_keys(const char *statedir, const char *lun, const char *process,
                    const uint64_t *keys, size_t n);
int epoch_load_keys(const char *statedir, const char *lun, const char *process,
                    uint64_t *keys, size_t max);

#endif
