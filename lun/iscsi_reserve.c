/* SPDX-License-Identifier: BSD-3-Clause */
/* PERSISTENT RESERVE IN and OUT and LUN RESET, one command each: SPC-5 6.13,
 * 6.14, SAM-5 7.7. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"
#include "lun/iscsi_impl.h"
#include "lun/wait.h"

/* SPC-5 table 69; WERO = write exclusive, registrants only */
#define TYPE_WERO SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY
#define TYPE_WEAR SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_ALL_REGISTRANTS

#define KEYS_HEADER      8
#define RESERVATION_LEN  24
#define PARAMETER_LEN    24
#define RESERVE_ATTEMPTS 3

/* ---- PERSISTENT RESERVE IN ---------------------------------------------- */

static int
reserve_in(const struct iscsi_via *via, const char *name, uint8_t action,
           size_t max, struct iscsi_control **out)
{
    uint8_t cdb[10] = {SCSI_OPCODE_PERSISTENT_RESERVE_IN, action};
    struct iscsi_control *c;
    int err;

    scsi_set_uint16(&cdb[7], (uint16_t)max);
    c = iscsi_control_create(name, cdb, sizeof(cdb), max);
    if (!c)
        return -ENOMEM;
    err = iscsi_control_run(via->path, via->nexus, c, via->deadline_ms);
    if (err == 0 && c->in_len < KEYS_HEADER)
        err = -EPROTO;
    else if (err != 0 && err != -ETIMEDOUT && err != -ENOLINK && c->refused)
        err = -EOPNOTSUPP;
    if (err) {
        iscsi_control_put(via->path->lun, c);
        return err;
    }
    *out = c;
    return 0;
}

int
iscsi_reserve_read_keys(const struct iscsi_via *via, struct iscsi_keys *keys)
{
    struct iscsi_control *c;
    size_t len;
    int err = reserve_in(via, "READ KEYS", SCSI_PERSISTENT_RESERVE_READ_KEYS,
                         KEYS_HEADER + 8 * ISCSI_KEYS_MAX, &c);

    if (err)
        return err;
    len = scsi_get_uint32(&c->in[4]);
    /* a list that was cut short must not pass for a complete one */
    if (len > c->in_len - KEYS_HEADER) {
        err = -EOVERFLOW;
    } else {
        keys->n = len / 8;
        for (size_t i = 0; i < keys->n; i++)
            keys->keys[i] = scsi_get_uint64(&c->in[KEYS_HEADER + 8 * i]);
    }
    iscsi_control_put(via->path->lun, c);
    return err;
}

bool
iscsi_reserve_has(const struct iscsi_keys *keys, uint64_t key)
{
    for (size_t i = 0; i < keys->n; i++)
        if (keys->keys[i] == key)
            return true;
    return false;
}

/* *type is 0 when there is no reservation. */
static int
read_reservation(const struct iscsi_via *via, unsigned *type)
{
    struct iscsi_control *c;
    int err = reserve_in(via, "READ RESERVATION",
                         SCSI_PERSISTENT_RESERVE_READ_RESERVATION,
                         RESERVATION_LEN, &c);

    if (err)
        return err;
    *type = 0;
    if (scsi_get_uint32(&c->in[4]) >= 16 && c->in_len >= RESERVATION_LEN)
        *type = c->in[21] & 0xF;
    iscsi_control_put(via->path->lun, c);
    return 0;
}

/* ---- PERSISTENT RESERVE OUT --------------------------------------------- */

static int
reserve_out(const struct iscsi_via *via, const char *name, uint8_t action,
            uint64_t key, uint64_t action_key, bool *refused)
{
    uint8_t cdb[10] = {SCSI_OPCODE_PERSISTENT_RESERVE_OUT, action, TYPE_WERO};
    struct iscsi_control *c;
    int err;

    scsi_set_uint32(&cdb[5], PARAMETER_LEN);
    c = iscsi_control_create(name, cdb, sizeof(cdb), 0);
    if (!c)
        return -ENOMEM;
    scsi_set_uint64(&c->out[0], key);
    scsi_set_uint64(&c->out[8], action_key);
    c->out_len = PARAMETER_LEN;
    err = iscsi_control_run(via->path, via->nexus, c, via->deadline_ms);
    *refused = err != 0 && err != -ETIMEDOUT && err != -ENOLINK && c->refused;
    iscsi_control_put(via->path->lun, c);
    return err;
}

int
iscsi_reserve_register(const struct iscsi_via *via, uint64_t key)
{
    bool refused;
    int err = reserve_out(via, "REGISTER", SCSI_PERSISTENT_RESERVE_REGISTER, 0,
                          key, &refused);

    return refused ? -EOPNOTSUPP : err;
}

int
iscsi_reserve_ensure(const struct iscsi_via *via)
{
    bool refused;
    unsigned type;
    int err;

    for (int i = 0; i < RESERVE_ATTEMPTS; i++) {
        err = read_reservation(via, &type);
        if (err)
            return err;
        if (type == TYPE_WERO || type == TYPE_WEAR)
            return 0;
        if (type != 0)
            return -EBUSY;
        err = reserve_out(via, "RESERVE", SCSI_PERSISTENT_RESERVE_RESERVE,
                          via->key, 0, &refused);
        if (refused)
            return -EOPNOTSUPP;
        /* a conflict: another host was faster, so look again */
        if (err != 0 && err != -EBADE)
            return err;
    }
    return -EBADE;
}

int
iscsi_reserve_preempt(const struct iscsi_via *via, uint64_t victim)
{
    bool refused;
    int err;

    point_pass(POINT_PREEMPT);
    err = reserve_out(via, "PREEMPT", SCSI_PERSISTENT_RESERVE_PREEMPT, via->key,
                      victim, &refused);
    point_pass(POINT_PREEMPTED);
    return err;
}

/* PREEMPT AND ABORT was of no use, why; is said once. */
static void
note_no_abort(struct iscsi_lun *l, const char *why)
{
    bool news;

    pthread_mutex_lock(&l->lock);
    news = !l->no_abort;
    l->no_abort = true;
    pthread_mutex_unlock(&l->lock);
    if (news)
        log_warning("lun %s: the target %s; fencing takes a LUN RESET, which "
                    "disturbs all hosts",
                    l->opt->name, why);
}

int
iscsi_reserve_preempt_abort(const struct iscsi_via *via, uint64_t victim)
{
    struct iscsi_lun *l = via->path->lun;
    bool no_abort;
    bool refused;
    int err;

    pthread_mutex_lock(&l->lock);
    no_abort = l->no_abort;
    pthread_mutex_unlock(&l->lock);
    if (!no_abort && l->info.partial_abort) {
        note_no_abort(l, "may abort a part only after PREEMPT AND ABORT");
    } else if (!no_abort) {
        point_pass(POINT_PREEMPT);
        err = reserve_out(via, "PREEMPT AND ABORT",
                          SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, via->key,
                          victim, &refused);
        point_pass(POINT_PREEMPTED);
        if (!refused)
            return err;
        note_no_abort(l, "refuses PREEMPT AND ABORT");
    }
    err = iscsi_reserve_preempt(via, victim);
    return err ? err : 1;
}

/* ---- LUN RESET ---------------------------------------------------------- */

/* Nothing else ends what was sent on a session that is lost, or by a host
 * whose key somebody took: it is a person's turn. */
static void
note_reset(struct iscsi_lun *l, int err)
{
    bool news;

    pthread_mutex_lock(&l->lock);
    news = err == -EOPNOTSUPP && !l->no_reset;
    if (news || err == 0)
        l->no_reset = news;
    pthread_mutex_unlock(&l->lock);
    if (news)
        log_error("lun %s: the target refuses LUN RESET: what a lost session "
                  "or a fenced host has sent cannot be ended, and writes "
                  "wait: allow LUN RESET for initiator %s",
                  l->opt->name, l->opt->initiator);
}

/* Requests that come meanwhile stay in the path's inbox. */
static void
rest(const struct iscsi_via *via)
{
    struct iscsi_path *p = via->path;
    uint64_t until_ms = clock_ms() + ISCSI_REST_MS;

    if (until_ms > via->deadline_ms)
        until_ms = via->deadline_ms;
    pthread_mutex_lock(&p->lun->lock);
    p->resting = true;
    while (p->nexus && p->nexus->id == via->nexus && p->nsent > 0 &&
           clock_ms() < until_ms)
        wait_cond(&p->lun->changed, &p->lun->lock, clock_ms() + 2);
    pthread_mutex_unlock(&p->lun->lock);
}

static void
rested(struct iscsi_path *p)
{
    pthread_mutex_lock(&p->lun->lock);
    p->resting = false;
    iscsi_path_wake(p);
    pthread_mutex_unlock(&p->lun->lock);
}

int
iscsi_reserve_lun_reset(const struct iscsi_via *via)
{
    struct iscsi_control *c = iscsi_control_create("LUN RESET", NULL, 0, 0);
    int err;

    if (!c)
        return -ENOMEM;
    rest(via);
    point_pass(POINT_RESET);
    err = iscsi_control_run(via->path, via->nexus, c, via->deadline_ms);
    point_pass(POINT_WAS_RESET);
    rested(via->path);
    iscsi_control_put(via->path->lun, c);
    note_reset(via->path->lun, err);
    return err;
}
