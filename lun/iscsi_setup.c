/* SPDX-License-Identifier: BSD-3-Clause */
/* From nothing to a session that knows which LUN it reaches.
 *
 * Runs in the path's thread before it serves, step after step, and as a whole
 * within max(probe_timeout, ISCSI_LOGIN_MIN_MS).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "lun/identity.h"
#include "lun/iscsi_impl.h"
#include "lun/quirk.h"

#define VPD_IDENTIFICATION 0x83
#define VPD_BLOCK_LIMITS   0xB0
#define VPD_PROVISIONING   0xB2
#define VPD_MAX            1024
#define MODE_HEADER        4

/* Longer than an Ethernet frame of 1500 bytes, and half of what every target
 * takes unless it says otherwise (RFC 7143 13.12). */
#define PING 4096

/* Targets whose reservations guard plain WRITEs only: with LUN_FENCE_PR they
 * get no UNMAP and no WRITE SAME, since a fenced one would still land.
 * tgt 1.0.85, usr/sbc.c: only the READ and WRITE entries of its command table
 * carry PR_ flags that spc_access_check() honours. */
static const struct {
    char vendor[9], product[17];
} plain_only[] = {
    {"IET     ", "VIRTUAL-DISK    "},
};

/* ---- the session -------------------------------------------------------- */

static void
connected(struct iscsi_context *ctx, int status, void *data, void *opaque)
{
    struct iscsi_path *p = opaque;

    (void)data;
    if (p->closing)
        return;
    if (status != SCSI_STATUS_GOOD)
        iscsi_path_trouble(p, "%s", iscsi_get_error(ctx));
    p->connect_status = status;
}

static int
wait_connected(struct iscsi_path *p, uint64_t deadline_ms, const char *what)
{
    while (p->connect_status < 0 && p->trouble[0] == '\0') {
        if (clock_ms() >= deadline_ms)
            iscsi_path_trouble(p, "%s: no answer", what);
        else
            iscsi_path_poll(p, deadline_ms);
    }
    return p->trouble[0] == '\0' ? 0 : -ENOLINK;
}

/* An ISID of its own for each login: whatever the array thinks of sessions
 * with equal names, each is another nexus (FACTS: tgtd, sessions coexist). */
static int
create_context(struct iscsi_path *p)
{
    const struct lun_options *opt = p->lun->opt;
    struct iscsi_context *ctx = iscsi_create_context(opt->initiator);
    uint32_t random[2];

    if (!ctx) {
        iscsi_path_trouble(p, "no iSCSI context");
        return -ENOMEM;
    }
    p->ctx = ctx;
    if (getrandom(random, sizeof(random), 0) == (ssize_t)sizeof(random))
        iscsi_set_isid_random(ctx, random[0], random[1]);
    /* Its reconnecting sends everything under way a second time. */
    iscsi_set_noautoreconnect(ctx, 1);
    iscsi_set_tcp_user_timeout(ctx, (int)opt->probe_timeout_ms);
    iscsi_set_session_type(ctx, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(ctx, ISCSI_HEADER_DIGEST_NONE);
    iscsi_set_targetname(ctx, p->lun->url.target);
    if (opt->chap_user)
        iscsi_set_initiator_username_pwd(ctx, opt->chap_user, p->lun->secret);
    return 0;
}

/* libiscsi sets TCP_NODELAY itself. */
static int
set_socket_options(struct iscsi_path *p)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    int fd = iscsi_get_fd(p->ctx);

    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0 &&
        fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
        return 0;
    iscsi_path_trouble(p, "socket options: %s", strerror(errno));
    return -errno;
}

static int
log_in(struct iscsi_path *p, uint64_t deadline_ms)
{
    int err = create_context(p);

    if (err)
        return err;
    if (iscsi_connect_async(p->ctx, p->portal, connected, p) != 0) {
        iscsi_path_trouble(p, "%s", iscsi_get_error(p->ctx));
        return -ENOLINK;
    }
    err = set_socket_options(p);
    if (!err)
        err = wait_connected(p, deadline_ms, "connect");
    if (err)
        return err;
    p->connect_status = -1;
    if (iscsi_login_async(p->ctx, connected, p) != 0) {
        iscsi_path_trouble(p, "%s", iscsi_get_error(p->ctx));
        return -ENOLINK;
    }
    return wait_connected(p, deadline_ms, "login");
}

/* A network whose switches drop what its hosts believe to fit (jumbo frames,
 * tunnels) passes login, probes and all else that is short, and no data: a
 * path there would stop whatever is sent on it, be given up, log in, and stop
 * it again. */
static void
pinged(struct iscsi_context *ctx, int status, void *data, void *opaque)
{
    struct iscsi_path *p = opaque;

    (void)ctx;
    (void)data;
    if (!p->closing && status != SCSI_STATUS_CANCELLED)
        p->connect_status = SCSI_STATUS_GOOD; /* whatever it thinks of it */
}

static int
ping(struct iscsi_path *p, uint64_t deadline_ms)
{
    static unsigned char filler[PING];

    p->connect_status = -1;
    if (iscsi_nop_out_async(p->ctx, pinged, filler, PING, p) != 0) {
        iscsi_path_trouble(p, "%s", iscsi_get_error(p->ctx));
        return -ENOLINK;
    }
    return wait_connected(p, deadline_ms,
                          "large packets seem not to come through (compare "
                          "the MTUs): ping of 4096 bytes");
}

/* ---- asking ------------------------------------------------------------- */

/* Sends a CDB and copies up to max bytes of the answer; returns how many. */
static int
ask(struct iscsi_path *p, const char *name, const uint8_t *cdb, size_t cdb_len,
    uint8_t *answer, size_t max, uint64_t deadline_ms)
{
    struct iscsi_control *c = iscsi_control_create(name, cdb, cdb_len, max);
    int r;

    if (!c) {
        iscsi_path_trouble(p, "out of memory");
        return -ENOMEM;
    }
    r = iscsi_control_here(p, c, deadline_ms);
    if (r == 0) {
        r = (int)c->in_len;
        if (max > 0)
            memcpy(answer, c->in, max);
    }
    iscsi_control_put(p->lun, c);
    return r;
}

static int
inquire(struct iscsi_path *p, uint8_t page, uint8_t answer[VPD_MAX],
        uint64_t deadline_ms)
{
    uint8_t cdb[6] = {SCSI_OPCODE_INQUIRY, page != 0, page, VPD_MAX >> 8,
                      VPD_MAX & 0xFF};
    int n;

    memset(answer, 0, VPD_MAX);
    n = ask(p, "INQUIRY", cdb, sizeof(cdb), answer, VPD_MAX, deadline_ms);
    return n >= 4 && page != 0 && answer[1] != page ? -EPROTO : n;
}

/* ---- what the answers say ----------------------------------------------- */

static int
learn_inquiry(struct iscsi_path *p, struct iscsi_info *info,
              uint64_t deadline_ms)
{
    uint8_t answer[VPD_MAX];
    int n = inquire(p, 0, answer, deadline_ms);

    if (n < 0 || p->trouble[0] != '\0')
        return -ENOLINK;
    if (n < 36 || answer[0] != 0) { /* SPC-5 6.6.2: a disk, and connected */
        iscsi_path_trouble(p, "LUN %u is not a disk (peripheral byte 0x%02x)",
                           p->lun->url.lun & 0x3FFF, answer[0]);
        return -ENXIO;
    }
    for (size_t i = 0; i < sizeof(plain_only) / sizeof(plain_only[0]); i++)
        if (memcmp(&answer[8], plain_only[i].vendor, 8) == 0 &&
            memcmp(&answer[16], plain_only[i].product, 16) == 0)
            info->plain_only = true;
    info->partial_abort = quirk_partial_abort(answer, (size_t)n);
    n = inquire(p, VPD_IDENTIFICATION, answer, deadline_ms);
    if (p->trouble[0] != '\0')
        return -ENOLINK;
    if (n < 4 || identity_from_vpd83(answer, (size_t)n, info->id) < 0) {
        iscsi_path_trouble(p, "the LUN tells no identity (VPD page 83h)");
        return -ENXIO;
    }
    return 0;
}

static int
parse_capacity(const uint8_t answer[32], int n, struct iscsi_info *info)
{
    uint64_t last = scsi_get_uint64(&answer[0]);
    uint32_t bytes = scsi_get_uint32(&answer[8]);

    if (n < 12 || bytes < 512 || bytes > 65536 || (bytes & (bytes - 1)) != 0 ||
        last >= INT64_MAX / bytes)
        return -EPROTO;
    info->block_size = bytes;
    info->size = (last + 1) * bytes;
    info->preferred = bytes << (answer[13] & 0xF);
    if (info->preferred > 65536 || info->preferred < bytes)
        info->preferred = bytes;
    info->provisioned = answer[14] & 0x80;
    info->reads_zeroes = answer[14] & 0x40;
    return 0;
}

static const uint8_t capacity_cdb[16] = {
    [0] = SCSI_OPCODE_SERVICE_ACTION_IN, [1] = SCSI_READCAPACITY16, [13] = 32};

static int
learn_capacity(struct iscsi_path *p, struct iscsi_info *info,
               uint64_t deadline_ms)
{
    uint8_t answer[32];
    int n = ask(p, "READ CAPACITY (16)", capacity_cdb, sizeof(capacity_cdb),
                answer, sizeof(answer), deadline_ms);

    if (n >= 0 && parse_capacity(answer, n, info) == 0)
        return 0;
    iscsi_path_trouble(p, "READ CAPACITY (16) failed or is not understood");
    return -ENXIO;
}

static uint64_t
or_else(uint64_t value, uint64_t when_zero)
{
    return value ? value : when_zero;
}

/* SBC-4 6.6.4 and 6.6.6; a target without these pages has no limits that it
 * would tell, and no thin provisioning. */
static int
learn_limits(struct iscsi_path *p, struct iscsi_info *info,
             uint64_t deadline_ms)
{
    uint8_t a[VPD_MAX];
    uint64_t most = UINT32_MAX;
    int n = inquire(p, VPD_BLOCK_LIMITS, a, deadline_ms);
    uint64_t unmap = 0;
    uint64_t same = 0;
    uint64_t transfer = 0;

    if (n >= 16)
        transfer = scsi_get_uint32(&a[8]);
    if (n >= 44) {
        unmap = scsi_get_uint32(&a[20]);
        same = scsi_get_uint64(&a[36]);
    }
    transfer = or_else(transfer, most) * info->block_size;
    info->max_io = transfer < ISCSI_MAX_IO ? (uint32_t)transfer : ISCSI_MAX_IO;
    same = or_else(same < most ? same : most, most);
    /* A long one holds up everything behind it: SBC-4 sets no limit. */
    info->same_max = same * info->block_size;
    if (info->same_max > ISCSI_MAX_IO)
        info->same_max = ISCSI_MAX_IO;
    info->unmap_max = or_else(unmap, most) * info->block_size;
    if (p->trouble[0] != '\0' || !info->provisioned)
        return p->trouble[0] != '\0' ? -ENOLINK : 0;
    n = inquire(p, VPD_PROVISIONING, a, deadline_ms);
    if (n >= 6) {
        info->unmap = a[5] & 0x80;
        info->same_unmap = (a[5] & 0x40) && info->reads_zeroes;
    }
    return p->trouble[0] != '\0' ? -ENOLINK : 0;
}

static const uint8_t mode_cdb[6] = {SCSI_OPCODE_MODESENSE6, 0x08, 0x3F, 0,
                                    MODE_HEADER};

/* Write protection and DPOFUA stand in the header of every mode page; n is
 * its length, or -errno.  A target that refuses the command has neither; one
 * that answers with a conflict (tgtd) tells only those that are registered. */
static void
parse_mode(const uint8_t *header, int n, struct iscsi_info *info)
{
    info->mode_known = n != -EBADE;
    if (n < 3)
        return;
    info->readonly = header[2] & 0x80;
    info->fua = header[2] & 0x10;
}

static int
learn_mode(struct iscsi_path *p, struct iscsi_info *info, uint64_t deadline_ms)
{
    uint8_t header[MODE_HEADER] = {0};
    int n = ask(p, "MODE SENSE (6)", mode_cdb, sizeof(mode_cdb), header,
                sizeof(header), deadline_ms);

    parse_mode(header, n, info);
    return p->trouble[0] != '\0' ? -ENOLINK : 0;
}

int
iscsi_setup(struct iscsi_path *p, struct iscsi_info *info)
{
    static const uint8_t test_unit_ready[6];
    unsigned limit_ms = p->lun->opt->probe_timeout_ms;
    uint64_t deadline_ms;
    int err;

    if (limit_ms < ISCSI_LOGIN_MIN_MS)
        limit_ms = ISCSI_LOGIN_MIN_MS;
    deadline_ms = p->attempt_ms + limit_ms;
    memset(info, 0, sizeof(*info));
    err = log_in(p, deadline_ms);
    if (!err)
        err = ping(p, deadline_ms);
    if (!err)
        err = ask(p, "TEST UNIT READY", test_unit_ready,
                  sizeof(test_unit_ready), NULL, 0, deadline_ms);
    if (err < 0) {
        iscsi_path_trouble(p, "the LUN is not ready");
        return err;
    }
    err = learn_inquiry(p, info, deadline_ms);
    if (!err)
        err = learn_capacity(p, info, deadline_ms);
    if (!err)
        err = learn_limits(p, info, deadline_ms);
    return err ? err : learn_mode(p, info, deadline_ms);
}

int
iscsi_setup_capacity(struct iscsi_path *p, uint64_t nexus, uint64_t deadline_ms)
{
    struct iscsi_control *c = iscsi_control_create(
        "READ CAPACITY (16)", capacity_cdb, sizeof(capacity_cdb), 32);
    struct iscsi_info info = {0};
    int err;

    if (!c)
        return -ENOMEM;
    err = iscsi_control_run(p, nexus, c, deadline_ms);
    if (!err)
        err = parse_capacity(c->in, (int)c->in_len, &info);
    iscsi_control_put(p->lun, c);
    pthread_mutex_lock(&p->lun->lock);
    if (!err && info.block_size == p->lun->info.block_size)
        p->lun->info.size = info.size;
    pthread_mutex_unlock(&p->lun->lock);
    return err;
}

int
iscsi_setup_mode(const struct iscsi_via *via)
{
    struct iscsi_lun *l = via->path->lun;
    struct iscsi_control *c;
    bool known;
    int err;

    pthread_mutex_lock(&l->lock);
    known = l->info.mode_known;
    pthread_mutex_unlock(&l->lock);
    if (known)
        return 0;
    c = iscsi_control_create("MODE SENSE (6)", mode_cdb, sizeof(mode_cdb),
                             MODE_HEADER);
    if (!c)
        return -ENOMEM;
    err = iscsi_control_run(via->path, via->nexus, c, via->deadline_ms);
    if (err != -ENOLINK && err != -ETIMEDOUT && err != -EBADE) {
        pthread_mutex_lock(&l->lock);
        parse_mode(c->in, err ? err : (int)c->in_len, &l->info);
        pthread_mutex_unlock(&l->lock);
        err = 0;
    }
    iscsi_control_put(l, c);
    return err;
}
