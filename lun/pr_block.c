/* SPDX-License-Identifier: BSD-3-Clause */
/* Persistent reservations on a kernel block device: one call, one command. */
#include "lun/pr_block.h"

#include <errno.h>
#include <linux/pr.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lun/sg.h"

/* linux/pr.h, from the kernel on that passes these to user space (2026) */
#ifndef IOC_PR_READ_KEYS
struct pr_read_keys {
    uint32_t generation;
    uint32_t num_keys;
    uint64_t keys_ptr;
};
struct pr_read_reservation {
    uint64_t key;
    uint32_t generation;
    uint32_t type;
};
#define IOC_PR_READ_KEYS        _IOWR('p', 206, struct pr_read_keys)
#define IOC_PR_READ_RESERVATION _IOR('p', 207, struct pr_read_reservation)
#endif

/* A positive answer is a SCSI status in the low byte and what the host
 * adapter says in bits 16 to 23: enum pr_status of linux/pr.h.  Older kernels:
 *
 *   SCSI < 5.14  the driver byte, bits 24 to 31, marks sense data
 *                (sd_pr_command() in drivers/scsi/sd.c)
 *   NVMe < 6.3   NVMe's own status: code, type from bit 8, "do not retry" in
 *                bit 14 (nvme_pr_command() in drivers/nvme/host) */
#define STATUS_CHECK_CONDITION      0x02
#define STATUS_RESERVATION_CONFLICT 0x18
#define STATUS_MASK                 0xff
#define DRIVER_MASK                 (0x7f << 24)
#define NVME_CONFLICT               0x83 /* no SCSI status is odd */
#define NVME_STATUS_MASK            0x7ff

/* The kernel does not tell what the CHECK CONDITION was; mostly it is one
 * UNIT ATTENTION after another, and those end. */
#define TRIES 6

static int
judge(int answer)
{
    if ((answer & STATUS_MASK) == STATUS_RESERVATION_CONFLICT ||
        (answer & NVME_STATUS_MASK) == NVME_CONFLICT)
        return -EBADE;
    if (answer == STATUS_CHECK_CONDITION)
        return -EIO;
    return answer & ~STATUS_MASK ? -ENOLINK : -EIO;
}

static int
pr_ioctl(int fd, unsigned long request, void *arg)
{
    int ret = 0;

    for (int i = 0; i < TRIES; i++) {
        ret = ioctl(fd, request, arg);
        if (ret > 0)
            ret &= ~DRIVER_MASK;
        if (ret != STATUS_CHECK_CONDITION)
            break;
    }
    if (ret < 0)
        return errno == ENOTTY || errno == EINVAL ? -EOPNOTSUPP : -errno;
    return ret == 0 ? 0 : judge(ret);
}

static uint64_t
big_endian(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | *p++;
    return v;
}

/* PERSISTENT RESERVE IN; returns the bytes behind the 8 of the header that
 * came and are meant. */
static int
reserve_in(int fd, uint8_t action, uint8_t *buf, uint16_t len, size_t *more)
{
    const uint8_t cdb[10] = {
        0x5e, action, [7] = (uint8_t)(len >> 8), [8] = (uint8_t)len};
    int n = sg_read(fd, cdb, sizeof cdb, buf, len);

    if (n == -ENOTTY)
        return -EOPNOTSUPP;
    if (n < 0)
        return n;
    if (n < 8)
        return -EIO;
    *more = (size_t)big_endian(buf + 4, 4);
    return *more > len - 8u ? -E2BIG : *more > (size_t)n - 8 ? -EIO : 0;
}

/* How many keys are asked for at first.  The most there can be are asked for
 * only where there are many: NVMe has 64 bytes for each, and a controller may
 * take no transfer as large as that (MDTS), which looks like EINVAL.  The
 * kernel's own limit is far away: PR_KEYS_MAX of linux/pr.h, 65536. */
#define KEYS_AT_FIRST 256

/* ALLOCATION LENGTH has 16 bits: SPC-4 6.15.1. */
_Static_assert(8 + 8 * (PR_BLOCK_KEYS_MAX + 1) <= UINT16_MAX, "one command");

/* A list that fills its room may be a part of one: older LIOs tell the length
 * of what they send, not of what there is (core_scsi3_pri_read_keys() in
 * drivers/target/target_core_pr.c). */
static int
judge_count(size_t n, size_t room)
{
    return n >= room ? -E2BIG : 0;
}

static int
ask_kernel(int fd, struct pr_block_state *s, uint32_t room)
{
    struct pr_read_keys in = {.num_keys = room, .keys_ptr = (uintptr_t)s->keys};
    int err = pr_ioctl(fd, IOC_PR_READ_KEYS, &in);

    if (!err)
        err = judge_count(in.num_keys, room);
    if (err)
        return err;
    s->nkeys = in.num_keys;
    s->generation = in.generation;
    return 0;
}

static int
ask_target(int fd, struct pr_block_state *s, uint32_t room)
{
    uint16_t len = (uint16_t)(8 + 8 * room);
    uint8_t *buf = malloc(len);
    size_t more = 0;
    int err = buf ? reserve_in(fd, 0, buf, len, &more) : -ENOMEM;

    if (!err)
        err = judge_count(more / 8, room);
    if (!err) {
        s->generation = (uint32_t)big_endian(buf, 4);
        for (; s->nkeys < more / 8; s->nkeys++)
            s->keys[s->nkeys] = big_endian(buf + 8 + 8 * s->nkeys, 8);
    }
    free(buf);
    return err;
}

/* Once more with all the room there is, where that is needed. */
static int
ask_twice(int (*ask)(int, struct pr_block_state *, uint32_t), int fd,
          struct pr_block_state *s)
{
    int err = ask(fd, s, KEYS_AT_FIRST);

    return err == -E2BIG ? ask(fd, s, PR_BLOCK_KEYS_MAX + 1) : err;
}

int
pr_block_read_keys(int fd, struct pr_block_state *s)
{
    int err;

    s->nkeys = 0;
    err = ask_twice(ask_kernel, fd, s);
    return err == -EOPNOTSUPP ? ask_twice(ask_target, fd, s) : err;
}

int
pr_block_read_reservation(int fd, struct pr_block_state *s)
{
    struct pr_read_reservation in = {0};
    uint8_t buf[24]; /* SPC-4: one reservation and no more */
    size_t more;
    int err = pr_ioctl(fd, IOC_PR_READ_RESERVATION, &in);
    unsigned type;

    if (!err) {
        s->reserved = in.type != 0;
        s->usable_type = in.type == PR_WRITE_EXCLUSIVE_REG_ONLY ||
                         in.type == PR_WRITE_EXCLUSIVE_ALL_REGS;
    }
    if (err != -EOPNOTSUPP)
        return err;
    err = reserve_in(fd, 1, buf, sizeof buf, &more);
    if (err)
        return err;
    s->reserved = more >= 16;
    type = s->reserved ? buf[21] & 0xf : 0;
    s->usable_type = type == 5 || type == 7;
    return 0;
}

int
pr_block_register(int fd, uint64_t key)
{
    struct pr_registration out = {.new_key = key, .flags = PR_FL_IGNORE_KEY};

    return pr_ioctl(fd, IOC_PR_REGISTER, &out);
}

int
pr_block_reserve(int fd, uint64_t key)
{
    struct pr_reservation out = {.key = key,
                                 .type = PR_WRITE_EXCLUSIVE_REG_ONLY};

    return pr_ioctl(fd, IOC_PR_RESERVE, &out);
}

int
pr_block_preempt(int fd, uint64_t own, uint64_t victim, bool abort)
{
    struct pr_preempt out = {
        .old_key = own, .new_key = victim, .type = PR_WRITE_EXCLUSIVE_REG_ONLY};
    int err = pr_ioctl(fd, abort ? IOC_PR_PREEMPT_ABORT : IOC_PR_PREEMPT, &out);

    /* an ILLEGAL REQUEST looks like any other CHECK CONDITION here */
    return abort && err == -EIO ? -EOPNOTSUPP : err;
}
