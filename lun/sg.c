/* SPDX-License-Identifier: BSD-3-Clause */
/* SCSI commands to a kernel device through SG_IO. */
#include "lun/sg.h"

#include <errno.h>
#include <scsi/sg.h>
#include <string.h>
#include <sys/ioctl.h>

/* Of <scsi/scsi.h>, which is missing the ones after 2004. */
#define STATUS_CHECK_CONDITION      0x02
#define STATUS_RESERVATION_CONFLICT 0x18
#define SENSE_ILLEGAL_REQUEST       0x05
#define SENSE_UNIT_ATTENTION        0x06

/* Linux 4.1: do not go on to target, bus and host reset; scsi/sg.h. */
#ifndef SG_SCSI_RESET_NO_ESCALATE
#define SG_SCSI_RESET_NO_ESCALATE 0x100
#endif

#define COMMAND_TIMEOUT_MS 30000 /* the kernel's own for SCSI disks */
#define UNIT_ATTENTIONS    5     /* one for each event; they come once each */

/* Key of fixed (0x70, 0x71) or descriptor (0x72, 0x73) sense data: SPC-4 4.5.
 */
static unsigned
sense_key(const uint8_t *sense, unsigned len)
{
    if (len >= 3 && (sense[0] & 0x7e) == 0x70)
        return sense[2] & 0x0f;
    if (len >= 2 && (sense[0] & 0x7e) == 0x72)
        return sense[1] & 0x0f;
    return 0;
}

static int
judge(const struct sg_io_hdr *h, unsigned *key)
{
    *key = 0;
    if (h->status == STATUS_RESERVATION_CONFLICT)
        return -EBADE;
    if (h->status == STATUS_CHECK_CONDITION) {
        *key = sense_key(h->sbp, h->sb_len_wr);
        return *key == SENSE_ILLEGAL_REQUEST ? -EOPNOTSUPP : -EIO;
    }
    if (h->host_status)
        return -ENOLINK;
    return h->status ? -EIO : 0;
}

int
sg_read(int fd, const uint8_t *cdb, uint8_t cdb_len, void *buf, unsigned len)
{
    unsigned key = 0;
    int err = 0;

    for (int i = 0; i <= UNIT_ATTENTIONS; i++) {
        uint8_t sense[64] = {0};
        struct sg_io_hdr h = {
            .interface_id = 'S',
            .dxfer_direction = SG_DXFER_FROM_DEV,
            .cmd_len = cdb_len,
            .cmdp = (uint8_t *)cdb,
            .dxfer_len = len,
            .dxferp = buf,
            .mx_sb_len = sizeof sense,
            .sbp = sense,
            .timeout = COMMAND_TIMEOUT_MS,
        };

        memset(buf, 0, len);
        if (ioctl(fd, SG_IO, &h) < 0)
            return errno == EINVAL || errno == EPERM ? -ENOTTY : -errno;
        err = judge(&h, &key);
        if (!err)
            return (int)len - h.resid;
        if (key != SENSE_UNIT_ATTENTION)
            break;
    }
    return err;
}

int
sg_reset_lun(int fd, bool dry)
{
    int what = dry ? SG_SCSI_RESET_NOTHING
                   : SG_SCSI_RESET_DEVICE | SG_SCSI_RESET_NO_ESCALATE;

    if (ioctl(fd, SG_SCSI_RESET, &what) == 0)
        return 0;
    return errno == ENOTTY || errno == EINVAL ? -EOPNOTSUPP : -errno;
}
