/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands of the backend's own: asked for by any thread, sent by a path's.
 *
 * A control is meant for one nexus and is never sent on another one: a
 * REGISTER that wandered to a later login would let old writes in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lun/iscsi_impl.h"
#include "lun/wait.h"

/* RFC 7143 11.6.1 */
#define TMF_COMPLETE 0u
#define TMF_NO_TASK  1u

struct iscsi_control *
iscsi_control_create(const char *name, const uint8_t *cdb, size_t cdb_len,
                     size_t in_max)
{
    struct iscsi_control *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->name = name;
    c->refs = 1;
    if (cdb_len > 0)
        memcpy(c->cdb, cdb, cdb_len);
    c->cdb_len = cdb_len;
    c->lun_reset = cdb_len == 0;
    c->in_max = in_max;
    if (in_max > 0) {
        c->in = calloc(1, in_max);
        if (!c->in) {
            free(c);
            return NULL;
        }
    }
    return c;
}

static void
put_locked(struct iscsi_control *c)
{
    if (--c->refs > 0)
        return;
    free(c->in);
    free(c);
}

void
iscsi_control_put(struct iscsi_lun *l, struct iscsi_control *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&l->lock);
    put_locked(c);
    pthread_mutex_unlock(&l->lock);
}

/* ---- answers, in the path's thread -------------------------------------- */

static void
done_locked(struct iscsi_path *p, struct iscsi_control *c, int error)
{
    c->error = error;
    c->done = true;
    pthread_cond_broadcast(&p->lun->changed);
    put_locked(c);
}

static void
finish(struct iscsi_path *p, struct iscsi_control *c, int error)
{
    STAILQ_REMOVE(&p->issued, c, iscsi_control, link);
    pthread_mutex_lock(&p->lun->lock);
    done_locked(p, c, error);
    pthread_mutex_unlock(&p->lun->lock);
}

static void
judge(struct iscsi_path *p, struct iscsi_control *c)
{
    if (c->verdict.action == SENSE_DONE) {
        finish(p, c, 0);
    } else if (c->verdict.action == SENSE_FAIL) {
        finish(p, c, c->verdict.error);
    } else if (c->verdict.action == SENSE_PATH ||
               ++c->tries > ISCSI_TRIES_MAX) {
        iscsi_path_trouble(p, "%s: %s", c->name, c->verdict.text);
    } else if (c->verdict.action == SENSE_AGAIN) {
        STAILQ_REMOVE(&p->issued, c, iscsi_control, link);
        iscsi_control_start(p, c);
    } else {
        c->resume_ms = clock_ms() + ISCSI_PAUSE_MS;
    }
}

static void
answered(struct iscsi_context *ctx, int status, void *data, void *opaque)
{
    struct iscsi_control *c = opaque;
    struct iscsi_path *p = c->path;
    struct scsi_task *task = c->task;

    (void)data;
    c->task = NULL;
    if (p->closing || status > 0xFF) {
        if (!p->closing)
            iscsi_path_trouble(p, "%s: %s", c->name, iscsi_get_error(ctx));
        scsi_free_scsi_task(task);
        return;
    }
    p->heard_ms = clock_ms();
    c->verdict = iscsi_command_verdict(p, status, task);
    c->refused = status == SCSI_STATUS_CHECK_CONDITION &&
                 task->sense.key == SCSI_SENSE_ILLEGAL_REQUEST;
    c->in_len = c->in_max;
    if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW)
        c->in_len -= task->residual < c->in_len ? task->residual : c->in_len;
    scsi_free_scsi_task(task);
    judge(p, c);
}

/* The reset of a LUN ends the commands of every nexus; those of this one may
 * go without an answer. */
static void
reset_answered(struct iscsi_context *ctx, int status, void *data, void *opaque)
{
    struct iscsi_control *c = opaque;
    struct iscsi_path *p = c->path;
    uint32_t response;

    if (p->closing)
        return;
    if (status != SCSI_STATUS_GOOD || !data) {
        iscsi_path_trouble(p, "LUN RESET: %s", iscsi_get_error(ctx));
        return;
    }
    memcpy(&response, data, sizeof(response));
    p->heard_ms = clock_ms();
    iscsi_path_doubt(p);
    finish(p, c,
           response == TMF_COMPLETE || response == TMF_NO_TASK ? 0
                                                               : -EOPNOTSUPP);
}

/* ---- sending, in the path's thread -------------------------------------- */

static int
send_scsi(struct iscsi_path *p, struct iscsi_control *c)
{
    struct iscsi_data out = {.size = c->out_len, .data = c->out};
    int dir = c->out_len > 0  ? SCSI_XFER_WRITE
              : c->in_max > 0 ? SCSI_XFER_READ
                              : SCSI_XFER_NONE;
    size_t len = c->out_len > 0 ? c->out_len : c->in_max;
    struct scsi_task *task =
        scsi_create_task((int)c->cdb_len, c->cdb, dir, (int)len);

    if (!task)
        return -ENOMEM;
    if ((dir == SCSI_XFER_READ &&
         scsi_task_add_data_in_buffer(task, (int)len, c->in) != 0) ||
        iscsi_scsi_command_async(p->ctx, p->lun->url.lun, task, answered,
                                 c->out_len > 0 ? &out : NULL, c) != 0) {
        scsi_free_scsi_task(task);
        return -ENOMEM;
    }
    c->task = task;
    return 0;
}

void
iscsi_control_start(struct iscsi_path *p, struct iscsi_control *c)
{
    int err;

    c->path = p;
    c->sent_ms = clock_ms();
    c->resume_ms = 0;
    STAILQ_INSERT_TAIL(&p->issued, c, link);
    /* Not libiscsi's own LUN RESET call: that one cancels all other commands
     * of the context, which then count as unanswered for nothing. */
    err = c->lun_reset ? iscsi_task_mgmt_async(p->ctx, p->lun->url.lun,
                                               ISCSI_TM_LUN_RESET, 0xffffffff,
                                               0, reset_answered, c)
                       : send_scsi(p, c);
    if (err)
        iscsi_path_trouble(p, "cannot send %s: %s", c->name,
                           iscsi_get_error(p->ctx));
}

void
iscsi_control_resume(struct iscsi_path *p, uint64_t now_ms)
{
    struct iscsi_control *c;
    struct iscsi_control *next;

    for (c = STAILQ_FIRST(&p->issued); c; c = next) {
        next = STAILQ_NEXT(c, link);
        if (c->resume_ms == 0 || c->resume_ms > now_ms)
            continue;
        STAILQ_REMOVE(&p->issued, c, iscsi_control, link);
        iscsi_control_start(p, c);
    }
}

bool
iscsi_control_open_since(struct iscsi_path *p, uint64_t sent_ms)
{
    struct iscsi_control *c;

    STAILQ_FOREACH(c, &p->issued, link)
    {
        if (!c->lun_reset && c->resume_ms == 0 && c->sent_ms <= sent_ms)
            return true;
    }
    return false;
}

uint64_t
iscsi_control_next_ms(struct iscsi_path *p)
{
    struct iscsi_control *c;
    uint64_t next_ms = CLOCK_NEVER;

    STAILQ_FOREACH(c, &p->issued, link)
    if (c->resume_ms != 0 && c->resume_ms < next_ms)
        next_ms = c->resume_ms;
    return next_ms;
}

void
iscsi_control_fail_all_locked(struct iscsi_path *p)
{
    struct iscsi_control *c;

    STAILQ_CONCAT(&p->issued, &p->controls);
    while ((c = STAILQ_FIRST(&p->issued))) {
        STAILQ_REMOVE_HEAD(&p->issued, link);
        done_locked(p, c, -ENOLINK);
    }
}

/* ---- asking ------------------------------------------------------------- */

int
iscsi_control_here(struct iscsi_path *p, struct iscsi_control *c,
                   uint64_t deadline_ms)
{
    c->refs++; /* nobody else knows c yet */
    iscsi_control_start(p, c);
    while (!c->done && p->trouble[0] == '\0') {
        if (clock_ms() >= deadline_ms)
            iscsi_path_trouble(p, "%s: no answer", c->name);
        else if (iscsi_path_poll(p, deadline_ms) < 0)
            break;
        iscsi_control_resume(p, clock_ms());
    }
    return c->done ? c->error : -ENOLINK;
}

int
iscsi_control_run(struct iscsi_path *p, uint64_t nexus, struct iscsi_control *c,
                  uint64_t deadline_ms)
{
    struct iscsi_lun *l = p->lun;
    int err;

    pthread_mutex_lock(&l->lock);
    if (!p->nexus || p->nexus->id != nexus || l->stopping) {
        pthread_mutex_unlock(&l->lock);
        return -ENOLINK;
    }
    c->refs++;
    STAILQ_INSERT_TAIL(&p->controls, c, link);
    iscsi_path_wake(p);
    while (!c->done && wait_cond(&l->changed, &l->lock, deadline_ms))
        ;
    err = c->done ? c->error : -ETIMEDOUT;
    if (err == -ETIMEDOUT)
        p->silent++;
    else if (err != -ENOLINK)
        p->silent = 0;
    pthread_mutex_unlock(&l->lock);
    return err;
}
