/* SPDX-License-Identifier: BSD-3-Clause */
/* What a SCSI status and its sense data mean for the command. */
#ifndef DETOUR_LUN_SENSE_H
#define DETOUR_LUN_SENSE_H

#include <stdint.h>

enum sense_action {
    SENSE_DONE,  /* it was carried out */
    SENSE_FAIL,  /* the answer is error; asking again gives the same one */
    SENSE_AGAIN, /* it was not carried out: send it again at once */
    SENSE_LATER, /* it was not carried out: send it again after a pause */
    SENSE_PATH,  /* it was not carried out: this path cannot, another may */
};

/* What else the answer tells, whatever happens to the command. */
#define SENSE_RESET    1u /* commands sent earlier may never be answered */
#define SENSE_KEYS     2u /* registrations or the reservation changed */
#define SENSE_CAPACITY 4u /* the size changed */

struct sense_verdict {
    enum sense_action action;
    int error;        /* -errno for SENSE_FAIL and SENSE_PATH, else 0 */
    unsigned news;    /* SENSE_RESET, ... */
    const char *text; /* for people */
};

/* sense_judge - judge a CHECK CONDITION by sense key, ASC and ASCQ.
 *
 * A pair that is not listed is judged by its key alone, an unknown key is
 * SENSE_PATH: trying elsewhere loses nothing.
 *
 * source:  SPC-5 table 29 (keys) and annex F (ASC and ASCQ), SBC-4; the
 *          errno values are those of Linux' scsi_result_to_blk_status()
 */
struct sense_verdict sense_judge(uint8_t key, uint8_t asc, uint8_t ascq);

/* sense_judge_status - the same for every other status of SAM-5 table 45.
 *
 * RESERVATION CONFLICT is SENSE_FAIL with -EBADE.  CHECK CONDITION belongs to
 * sense_judge.
 */
struct sense_verdict sense_judge_status(uint8_t status);

#endif
