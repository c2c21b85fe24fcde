/* SPDX-License-Identifier: BSD-3-Clause */
/* The table from SCSI status and sense data to what to do about it. */
#include "lun/sense.h"

#include <errno.h>
#include <stddef.h>

#define ANY 0xFFFFu

enum sense_key {
    NO_SENSE = 0x0,
    RECOVERED_ERROR = 0x1,
    NOT_READY = 0x2,
    MEDIUM_ERROR = 0x3,
    HARDWARE_ERROR = 0x4,
    ILLEGAL_REQUEST = 0x5,
    UNIT_ATTENTION = 0x6,
    DATA_PROTECT = 0x7,
    BLANK_CHECK = 0x8,
    ABORTED_COMMAND = 0xB,
    VOLUME_OVERFLOW = 0xD,
    MISCOMPARE = 0xE,
};

struct rule {
    uint8_t key;
    uint16_t asc, ascq; /* ANY: whatever it is */
    struct sense_verdict verdict;
};

#define DONE(text)                                                             \
    {                                                                          \
        SENSE_DONE, 0, 0, text                                                 \
    }
#define FAIL(error, text)                                                      \
    {                                                                          \
        SENSE_FAIL, -(error), 0, text                                          \
    }
#define AGAIN(news, text)                                                      \
    {                                                                          \
        SENSE_AGAIN, 0, news, text                                             \
    }
#define LATER(text)                                                            \
    {                                                                          \
        SENSE_LATER, 0, 0, text                                                \
    }
#define PATH(error, text)                                                      \
    {                                                                          \
        SENSE_PATH, -(error), 0, text                                          \
    }

/* The first rule that fits is taken, so the general ones close each key. */
static const struct rule rules[] = {
    {NO_SENSE, ANY, ANY, DONE("no sense")},
    {RECOVERED_ERROR, ANY, ANY, DONE("recovered error")},

    /* SPC-5 5.15: asymmetric access.  In transition and becoming ready pass
     * by themselves; standby and unavailable hold for this port only. */
    {NOT_READY, 0x04, 0x01, LATER("becoming ready")},
    {NOT_READY, 0x04, 0x0A, LATER("asymmetric access state transition")},
    {NOT_READY, 0x04, 0x0B, PATH(ENOLINK, "target port in standby state")},
    {NOT_READY, 0x04, 0x0C, PATH(ENOLINK, "target port unavailable")},
    {NOT_READY, 0x04, 0x14, LATER("space allocation in progress")},
    {NOT_READY, ANY, ANY, PATH(ENOLINK, "not ready")},

    {MEDIUM_ERROR, ANY, ANY, FAIL(ENODATA, "medium error")},

    {HARDWARE_ERROR, ANY, ANY, FAIL(EREMOTEIO, "hardware error")},

    {ILLEGAL_REQUEST, 0x10, ANY, FAIL(EILSEQ, "protection check failed")},
    {ILLEGAL_REQUEST, 0x20, 0x00, FAIL(EOPNOTSUPP, "unknown command")},
    {ILLEGAL_REQUEST, 0x21, ANY, FAIL(EINVAL, "block address out of range")},
    /* The LUN is no longer mapped to this port: another port may have it. */
    {ILLEGAL_REQUEST, 0x25, ANY, PATH(ENXIO, "logical unit not supported")},
    {ILLEGAL_REQUEST, 0x55, 0x04,
     FAIL(ENOSPC, "insufficient registration resources")},
    {ILLEGAL_REQUEST, ANY, ANY, FAIL(EINVAL, "illegal request")},

    /* SPC-5 5.14: the command was not carried out.  After a reset (29h) or
     * "cleared by another initiator" (2Fh) others of ours may have been
     * dropped without an answer (TAS = 0). */
    {UNIT_ATTENTION, 0x29, ANY, AGAIN(SENSE_RESET | SENSE_KEYS, "reset")},
    {UNIT_ATTENTION, 0x2F, ANY, AGAIN(SENSE_RESET, "commands cleared")},
    {UNIT_ATTENTION, 0x2A, 0x03,
     AGAIN(SENSE_KEYS | SENSE_RESET, "reservations preempted")},
    {UNIT_ATTENTION, 0x2A, 0x04, AGAIN(SENSE_KEYS, "reservations released")},
    {UNIT_ATTENTION, 0x2A, 0x05,
     AGAIN(SENSE_KEYS | SENSE_RESET, "registrations preempted")},
    {UNIT_ATTENTION, 0x2A, 0x09, AGAIN(SENSE_CAPACITY, "capacity changed")},
    {UNIT_ATTENTION, ANY, ANY, AGAIN(0, "unit attention")},

    /* 27h/07h: a thin LUN whose pool is full (SBC-4 4.7.3.6). */
    {DATA_PROTECT, 0x27, 0x07, FAIL(ENOSPC, "space allocation failed")},
    {DATA_PROTECT, 0x27, ANY, FAIL(EROFS, "write protected")},
    {DATA_PROTECT, ANY, ANY, FAIL(EROFS, "data protect")},

    {BLANK_CHECK, ANY, ANY, FAIL(ENODATA, "blank check")},

    {ABORTED_COMMAND, 0x10, ANY, FAIL(EILSEQ, "protection check failed")},
    {ABORTED_COMMAND, ANY, ANY, LATER("aborted command")},

    {VOLUME_OVERFLOW, ANY, ANY, FAIL(EREMOTEIO, "volume overflow")},
    {MISCOMPARE, ANY, ANY, FAIL(EILSEQ, "miscompare")},
};

struct sense_verdict
sense_judge(uint8_t key, uint8_t asc, uint8_t ascq)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const struct rule *r = &rules[i];

        if (r->key == key && (r->asc == ANY || r->asc == asc) &&
            (r->ascq == ANY || r->ascq == ascq))
            return r->verdict;
    }
    return (struct sense_verdict)PATH(EIO, "unknown sense key");
}

struct sense_verdict
sense_judge_status(uint8_t status)
{
    switch (status) {
    case 0x00:
        return (struct sense_verdict)DONE("good");
    case 0x04:
        return (struct sense_verdict)DONE("condition met");
    case 0x08:
        return (struct sense_verdict)LATER("busy");
    case 0x18:
        return (struct sense_verdict)FAIL(EBADE, "reservation conflict");
    case 0x28:
        return (struct sense_verdict)LATER("task set full");
    case 0x40:
        return (struct sense_verdict)LATER("task aborted");
    default:
        return (struct sense_verdict)PATH(EIO, "unexpected status");
    }
}
