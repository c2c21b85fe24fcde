/* SPDX-License-Identifier: BSD-3-Clause */
/* A target's persistent reservations, behind the ioctls that reach them.
 *
 * ioctl() is replaced; the file that it is made on, "disk1" to "disk4", tells
 * the nexus ("disk": the first). */
#ifndef DETOUR_TESTS_FAKE_PR_H
#define DETOUR_TESTS_FAKE_PR_H

#include <errno.h>
#include <linux/pr.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FAKE_NEXUSES   5
#define FAKE_CROWD_MAX 2000
#define FAKE_CONFLICT  0x18
#define FAKE_CHECK     0x02

static struct {
    pthread_mutex_t lock;
    pthread_cond_t moved;

    bool none;        /* knows no reservations at all */
    bool passes_read; /* the kernel has IOC_PR_READ_* */
    bool refuses_abort, refuses_reset;
    bool lio;            /* says in INQUIRY that it is Linux's target */
    int reset_error;     /* 0: it works */
    unsigned attentions; /* UNIT ATTENTIONs to come */
    bool hold_registers;

    unsigned crowd;   /* registrations of others, before those of keys */
    bool cuts_length; /* an old LIO: tells of no more keys than it sends */
    unsigned largest; /* keys that fit in a transfer; 0: any number do */

    uint64_t keys[FAKE_NEXUSES]; /* of each nexus; 0: none */
    uint64_t holder;
    unsigned type;       /* the kernel's number; 0: no reservation */
    uint32_t generation; /* PRGENERATION */
    unsigned conflict;   /* how the kernel tells of one; 0: FAKE_CONFLICT */
    unsigned attention;  /* and of an ioctl's UNIT ATTENTION; 0: FAKE_CHECK */
    unsigned registers, preempts, aborts, resets, waiting, reserve_ins;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

static inline void
fake_reset(void)
{
    memset((char *)&fake + offsetof(__typeof__(fake), none), 0,
           sizeof fake - offsetof(__typeof__(fake), none));
}

static inline unsigned
fake_nexus(int fd)
{
    char link[64], path[512];
    const char *base;
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    base = strstr(path, "/disk");
    if (!base || base[5] == '\0')
        return base != NULL;
    return base[5] >= '1' && base[5] <= '4' ? (unsigned)(base[5] - '0') : 0;
}

static inline int
fake_conflict(void)
{
    return fake.conflict ? (int)fake.conflict : FAKE_CONFLICT;
}

static inline int
fake_register_locked(unsigned nexus, const struct pr_registration *r)
{
    fake.registers++;
    fake.waiting++;
    while (fake.hold_registers)
        pthread_cond_wait(&fake.moved, &fake.lock);
    fake.waiting--;
    if (!(r->flags & PR_FL_IGNORE_KEY))
        return fake_conflict();
    fake.keys[nexus] = r->new_key;
    fake.generation++;
    return 0;
}

static inline int
fake_reserve_locked(unsigned nexus, const struct pr_reservation *r)
{
    if (fake.keys[nexus] != r->key || (fake.type && fake.holder != r->key))
        return fake_conflict();
    fake.holder = r->key;
    fake.type = r->type;
    return 0;
}

static inline int
fake_preempt_locked(unsigned nexus, const struct pr_preempt *p, bool abort)
{
    bool found = false;

    if (abort && fake.refuses_abort)
        return FAKE_CHECK;
    if (fake.keys[nexus] == 0 || fake.keys[nexus] != p->old_key)
        return fake_conflict();
    for (unsigned i = 0; i < FAKE_NEXUSES; i++)
        if (fake.keys[i] == p->new_key) {
            fake.keys[i] = 0;
            found = true;
        }
    if (!found)
        return fake_conflict();
    fake.generation++;
    if (fake.holder == p->new_key)
        fake.holder = p->old_key;
    ++*(abort ? &fake.aborts : &fake.preempts);
    return 0;
}

/* The nth key on the LUN, of the crowd first; 0: there are no more. */
static inline uint64_t
fake_key_locked(unsigned n)
{
    if (n < fake.crowd)
        return 0xc0000000u + n;
    n -= fake.crowd;
    for (unsigned i = 0; i < FAKE_NEXUSES; i++)
        if (fake.keys[i] && n-- == 0)
            return fake.keys[i];
    return 0;
}

/* room: bytes; returns how many of the answer are in buf. */
static inline size_t
fake_reserve_in_locked(uint8_t action, uint8_t *buf, size_t room)
{
    const unsigned scsi_type[] = {0, 1, 3, 5, 6, 7, 8};
    uint32_t more = 0;
    uint64_t key;

    memset(buf, 0, 8 + 24);
    for (unsigned i = 0; action == 0 && (key = fake_key_locked(i)) != 0; i++)
        for (int b = 7; b >= 0; b--)
            buf[8 + more++] = (uint8_t)(key >> 8 * b);
    if (fake.cuts_length && 8 + more > room)
        more = (uint32_t)((room - 8) / 8 * 8);
    if (action == 1 && fake.type) {
        more = 16;
        for (int b = 0; b < 8; b++)
            buf[8 + b] = (uint8_t)(fake.holder >> 8 * (7 - b));
        buf[21] = (uint8_t)scsi_type[fake.type];
    }
    for (int b = 0; b < 4; b++)
        buf[b] = (uint8_t)(fake.generation >> 8 * (3 - b));
    buf[6] = (uint8_t)(more >> 8);
    buf[7] = (uint8_t)more;
    return 8 + more < room ? 8 + more : room;
}

static inline int
fake_sg_locked(struct sg_io_hdr *h)
{
    bool attention = !fake.none && fake.attentions > 0 && !fake.attention;
    static uint8_t buf[8 + 8 * (FAKE_CROWD_MAX + FAKE_NEXUSES)];
    size_t n;

    if (fake.lio && h->cmdp[0] == 0x12 && h->cmdp[1] == 0) {
        memset(h->dxferp, 0, h->dxfer_len);
        memcpy((char *)h->dxferp + 8, "LIO-ORG FILEIO          ", 24);
        return 0;
    }
    if (fake.none || h->cmdp[0] != 0x5e || attention) {

        fake.attentions -= attention;
        h->status = FAKE_CHECK;
        h->sb_len_wr = 18;
        h->sbp[0] = 0x70;
        h->sbp[2] = attention ? 6 : 5;
        return 0;
    }
    fake.reserve_ins++;
    n = fake_reserve_in_locked(h->cmdp[1], buf, h->dxfer_len);
    memcpy(h->dxferp, buf, n);
    h->resid = (int)(h->dxfer_len - n);
    return 0;
}

/* The kernel's IOC_PR_READ_KEYS and IOC_PR_READ_RESERVATION. */
static inline int
fake_read_locked(unsigned number, void *arg)
{
    struct {
        uint32_t generation, num_keys;
        uint64_t keys_ptr;
    } *keys = arg;
    struct {
        uint64_t key;
        uint32_t generation, type;
    } *reservation = arg;
    unsigned n;

    if (number == 207) {
        reservation->key = fake.holder;
        reservation->type = fake.type;
        reservation->generation = fake.generation;
        return 0;
    }
    if (fake.largest > 0 && keys->num_keys > fake.largest) {
        errno = EINVAL;
        return -1;
    }
    for (n = 0; fake_key_locked(n) != 0; n++)
        if (n < keys->num_keys)
            ((uint64_t *)(uintptr_t)keys->keys_ptr)[n] = fake_key_locked(n);
    if (!fake.cuts_length || n < keys->num_keys)
        keys->num_keys = n;
    keys->generation = fake.generation;
    return 0;
}

static inline int
fake_answer_locked(unsigned nexus, unsigned long request, void *arg)
{
    if (request == SG_IO)
        return fake_sg_locked(arg);
    if (request == SG_SCSI_RESET) {
        errno = fake.refuses_reset ? ENOTTY : fake.reset_error;
        if (*(int *)arg != SG_SCSI_RESET_NOTHING && errno == 0)
            fake.resets++;
        return fake.refuses_reset ||
                       (*(int *)arg != SG_SCSI_RESET_NOTHING && errno)
                   ? -1
                   : 0;
    }
    if (fake.none || (_IOC_NR(request) >= 206 && !fake.passes_read)) {
        errno = ENOTTY;
        return -1;
    }
    if (fake.attentions > 0) {
        fake.attentions--;
        return fake.attention ? (int)fake.attention : FAKE_CHECK;
    }
    switch (request) {
    case IOC_PR_REGISTER:
        return fake_register_locked(nexus, arg);
    case IOC_PR_RESERVE:
        return fake_reserve_locked(nexus, arg);
    case IOC_PR_PREEMPT:
        return fake_preempt_locked(nexus, arg, false);
    case IOC_PR_PREEMPT_ABORT:
        return fake_preempt_locked(nexus, arg, true);
    default:
        return fake_read_locked(_IOC_NR(request), arg);
    }
}

/* returns: false when the call is none of the target's */
static inline bool
fake_pr_ioctl(int fd, unsigned long request, void *arg, int *ret)
{
    unsigned nexus = fake_nexus(fd);

    if (nexus == 0 || (request != SG_IO && request != SG_SCSI_RESET &&
                       _IOC_TYPE(request) != 'p'))
        return false;
    pthread_mutex_lock(&fake.lock);
    *ret = fake_answer_locked(nexus, request, arg);
    pthread_mutex_unlock(&fake.lock);
    return true;
}

int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

int
__wrap_ioctl(int fd, unsigned long request, void *arg)
{
    int ret;

    return fake_pr_ioctl(fd, request, arg, &ret)
               ? ret
               : __real_ioctl(fd, request, arg);
}

#endif
