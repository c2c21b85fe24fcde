/* SPDX-License-Identifier: BSD-3-Clause */
/* What targets are known to do otherwise than the standard says. */
#ifndef DETOUR_LUN_QUIRK_H
#define DETOUR_LUN_QUIRK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* quirk_partial_abort - may PREEMPT AND ABORT leave commands under way?
 *
 * Linux's own target (vendor LIO-ORG) ends the commands of a preempted nexus
 * only if that nexus holds the reservation: core_scsi3_pro_preempt() in
 * drivers/target/target_core_pr.c of Linux 6.1 returns from its first branch
 * without an abort.  Nothing tells the kernels that were mended from others.
 *
 * shapes:  standard INQUIRY data, len bytes, not to be trusted
 * source:  SPC-4 6.6.2 (vendor: bytes 8 to 15); SPC-4 5.13.11.2.6 (the
 *          commands of every preempted nexus are to be aborted)
 */
bool quirk_partial_abort(const uint8_t *inquiry, size_t len);

#endif
