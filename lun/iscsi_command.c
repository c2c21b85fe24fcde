/* SPDX-License-Identifier: BSD-3-Clause */
/* A request as SCSI commands: one for a read or a write, several for a long
 * trim or zero, a SYNCHRONIZE CACHE behind those that need it.
 *
 * Everything here runs in the path's thread, without the lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "lun/iscsi_impl.h"

#define CDB_FUA   0x08 /* byte 1 of READ and WRITE */
#define CDB_UNMAP 0x08 /* byte 1 of WRITE SAME */

/* A CDB with its data, before libiscsi makes a task of it. */
struct command {
    uint8_t cdb[16];
    size_t cdb_len;
    int dir;
    unsigned char *data;
    size_t len;
};

/* ---- building ----------------------------------------------------------- */

static void
cdb_blocks16(struct command *c, uint8_t opcode, uint8_t flags, uint64_t lba,
             uint32_t blocks)
{
    c->cdb[0] = opcode;
    c->cdb[1] = flags;
    scsi_set_uint64(&c->cdb[2], lba);
    scsi_set_uint32(&c->cdb[10], blocks);
    c->cdb_len = 16;
}

static void
build_data(struct command *c, const struct iscsi_info *info,
           const struct iscsi_request *r)
{
    bool write = r->io.op == LUN_WRITE;
    bool fua = write && (r->io.flags & LUN_FUA) && info->fua;

    cdb_blocks16(c, write ? SCSI_OPCODE_WRITE16 : SCSI_OPCODE_READ16,
                 fua ? CDB_FUA : 0, r->io.offset / info->block_size,
                 (uint32_t)(r->io.count / info->block_size));
    c->dir = write ? SCSI_XFER_WRITE : SCSI_XFER_READ;
    c->data = (unsigned char *)r->io.data;
    c->len = r->io.count;
}

/* One descriptor; SBC-4 5.35. */
static void
build_unmap(struct command *c, const struct iscsi_info *info,
            struct iscsi_request *r)
{
    unsigned char *list = r->list;

    memset(list, 0, sizeof(r->list));
    scsi_set_uint16(&list[0], sizeof(r->list) - 2);
    scsi_set_uint16(&list[2], 16);
    scsi_set_uint64(&list[8], (r->io.offset + r->done) / info->block_size);
    scsi_set_uint32(&list[16], (uint32_t)(r->step / info->block_size));
    c->cdb[0] = SCSI_OPCODE_UNMAP;
    scsi_set_uint16(&c->cdb[7], sizeof(r->list));
    c->cdb_len = 10;
    c->dir = SCSI_XFER_WRITE;
    c->data = list;
    c->len = sizeof(r->list);
}

/* WRITE SAME where the target has it and reservations guard it; else plain
 * writes of zeroes. */
static void
build_zero(struct command *c, const struct iscsi_lun *l,
           struct iscsi_request *r)
{
    const struct iscsi_info *info = &l->info;
    bool unmap = info->same_unmap && !(r->io.flags & LUN_NO_HOLE);

    c->dir = SCSI_XFER_WRITE;
    c->data = l->zeroes;
    cdb_blocks16(c, r->same ? SCSI_OPCODE_WRITE_SAME16 : SCSI_OPCODE_WRITE16,
                 r->same && unmap ? CDB_UNMAP : 0,
                 (r->io.offset + r->done) / info->block_size,
                 (uint32_t)(r->step / info->block_size));
    c->len = r->same ? info->block_size : r->step;
}

/* The whole LUN; SBC-4 5.33 and 5.34. */
static void
build_sync(struct command *c, bool is16)
{
    c->dir = SCSI_XFER_NONE;
    if (is16) {
        cdb_blocks16(c, SCSI_OPCODE_SYNCHRONIZECACHE16, 0, 0, 0);
    } else {
        c->cdb[0] = SCSI_OPCODE_SYNCHRONIZECACHE10;
        c->cdb_len = 10;
    }
}

static uint64_t
smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void
build(struct command *c, const struct iscsi_lun *l, struct iscsi_request *r)
{
    const struct iscsi_info *info = &l->info;
    uint64_t left = r->io.count - r->done;

    memset(c, 0, sizeof(*c));
    r->same = r->sync16 = false;
    r->step = left;
    if (r->syncing) {
        r->step = 0;
        r->sync16 = !l->sync16_refused;
        build_sync(c, r->sync16);
    } else if (r->io.op == LUN_TRIM) {
        r->step = smaller(left, info->unmap_max);
        build_unmap(c, info, r);
    } else if (r->io.op == LUN_ZERO) {
        r->same = !l->same_refused &&
                  !(info->plain_only && l->opt->fence == LUN_FENCE_PR);
        r->step = smaller(left, r->same ? info->same_max : ISCSI_ZERO_MAX);
        build_zero(c, l, r);
    } else {
        build_data(c, info, r);
    }
}

/* ---- answers ------------------------------------------------------------ */

/* What concerns more than the command itself. */
static void
take_news(struct iscsi_path *p, const struct sense_verdict *v)
{
    struct iscsi_lun *l = p->lun;

    log_debug("lun %s: path %s: %s", l->opt->name, p->portal, v->text);
    if (v->news & SENSE_RESET)
        iscsi_path_doubt(p);
    if (!(v->news & (SENSE_KEYS | SENSE_CAPACITY)))
        return;
    pthread_mutex_lock(&l->lock);
    l->check_keys |= (v->news & SENSE_KEYS) != 0;
    l->check_capacity |= (v->news & SENSE_CAPACITY) != 0;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

struct sense_verdict
iscsi_command_verdict(struct iscsi_path *p, int status,
                      const struct scsi_task *task)
{
    struct sense_verdict v;

    if (status == SCSI_STATUS_CHECK_CONDITION)
        v = sense_judge((uint8_t)task->sense.key,
                        (uint8_t)(task->sense.ascq >> 8),
                        (uint8_t)(task->sense.ascq & 0xFF));
    else
        v = sense_judge_status((uint8_t)status);
    if (v.news)
        take_news(p, &v);
    return v;
}

static void
finish(struct iscsi_request *r, int error)
{
    r->result = error;
    TAILQ_INSERT_TAIL(&r->path->finished, r, finished);
}

static bool
needs_sync(const struct iscsi_lun *l, const struct iscsi_request *r)
{
    if (r->syncing || !(r->io.flags & LUN_FUA) || !lun_op_writes(r->io.op))
        return false;
    return r->io.op != LUN_WRITE || !l->info.fua;
}

/* A command was carried out: the next one, or the end. */
static void
advance(struct iscsi_path *p, struct iscsi_request *r)
{
    r->done += r->step;
    r->tries = 0;
    if (!r->syncing && r->done < r->io.count) {
        iscsi_command_start(p, r);
    } else if (needs_sync(p->lun, r)) {
        r->syncing = true;
        iscsi_command_start(p, r);
    } else {
        finish(r, 0);
    }
}

static void
failed(struct iscsi_path *p, struct iscsi_request *r,
       const struct sense_verdict *v)
{
    bool unknown = v->error == -EOPNOTSUPP || v->error == -EINVAL;

    if (r->same && unknown) {
        p->lun->same_refused = true; /* write zeroes instead */
        iscsi_command_start(p, r);
    } else if (r->sync16 && unknown) {
        p->lun->sync16_refused = true; /* the shorter one, which is older */
        iscsi_command_start(p, r);
    } else if (r->syncing && v->error == -EOPNOTSUPP) {
        advance(p, r); /* neither of them: there is no cache (as Linux' sd) */
    } else {
        if (v->error != -EBADE)
            log_warning("lun %s: path %s: request at %llu, %llu bytes: %s",
                        p->lun->opt->name, p->portal,
                        (unsigned long long)r->io.offset,
                        (unsigned long long)r->io.count, v->text);
        finish(r, v->error);
    }
}

static void
again(struct iscsi_path *p, struct iscsi_request *r,
      const struct sense_verdict *v)
{
    if (++r->tries > ISCSI_TRIES_MAX) {
        iscsi_path_trouble(p, "does not stop to answer \"%s\"", v->text);
    } else if (v->action == SENSE_AGAIN) {
        iscsi_command_start(p, r);
    } else {
        r->resume_ms = clock_ms() + ISCSI_PAUSE_MS;
        p->waiting++;
    }
}

static void
answered(struct iscsi_context *ctx, int status, void *data, void *opaque)
{
    struct iscsi_request *r = opaque;
    struct iscsi_path *p = r->path;
    struct scsi_task *task = r->task;
    bool short_read = task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL &&
                      task->residual > 0 && r->io.op == LUN_READ;
    struct sense_verdict v;

    (void)data;
    r->task = NULL;
    if (p->closing || status > 0xFF) {
        /* no answer: it counts as still in the target */
        if (!p->closing)
            iscsi_path_trouble(p, "%s", iscsi_get_error(ctx));
        scsi_free_scsi_task(task);
        return;
    }
    p->heard_ms = clock_ms();
    v = iscsi_command_verdict(p, status, task);
    scsi_free_scsi_task(task);
    r->in_target = false;
    if (v.action == SENSE_DONE && short_read)
        v = (struct sense_verdict){SENSE_FAIL, -EREMOTEIO, 0, "short read"};
    switch (v.action) {
    case SENSE_DONE:
        advance(p, r);
        break;
    case SENSE_FAIL:
        failed(p, r, &v);
        break;
    case SENSE_AGAIN:
    case SENSE_LATER:
        again(p, r, &v);
        break;
    case SENSE_PATH: /* another path takes it when this one has ended */
        iscsi_path_trouble(p, "%s", v.text);
        break;
    }
}

/* ---- sending ------------------------------------------------------------ */

static struct scsi_task *
send_command(struct iscsi_path *p, struct command *c, iscsi_command_cb cb,
             void *opaque)
{
    struct iscsi_data out = {.size = c->len, .data = c->data};
    struct scsi_task *task =
        scsi_create_task((int)c->cdb_len, c->cdb, c->dir, (int)c->len);

    if (!task)
        return NULL;
    if ((c->dir == SCSI_XFER_READ &&
         scsi_task_add_data_in_buffer(task, (int)c->len, c->data) != 0) ||
        iscsi_scsi_command_async(p->ctx, p->lun->url.lun, task, cb,
                                 c->dir == SCSI_XFER_WRITE ? &out : NULL,
                                 opaque) != 0) {
        scsi_free_scsi_task(task);
        return NULL;
    }
    return task;
}

void
iscsi_command_start(struct iscsi_path *p, struct iscsi_request *r)
{
    struct command c;

    r->resume_ms = 0;
    if (r->io.op == LUN_FLUSH)
        r->syncing = true;
    build(&c, p->lun, r);
    r->task = send_command(p, &c, answered, r);
    if (!r->task) {
        /* nothing left: it goes to another path */
        iscsi_path_trouble(p, "cannot send: %s", iscsi_get_error(p->ctx));
        return;
    }
    r->in_target = true;
    r->sent_ms = clock_ms();
}
