/* SPDX-License-Identifier: BSD-3-Clause */
/* The iscsi backend as a whole: opening, status, block status, closing. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "lun/iscsi_impl.h"
#include "lun/wait.h"

#define SECRET_MAX 256

/* GET LBA STATUS, SBC-4 5.15: a header, then descriptors of 16 bytes */
#define STATUS_HEADER 8
#define STATUS_LEN    16
#define STATUS_MAX    256
#define STATUS_HOLE   1

/* ---- opening ------------------------------------------------------------ */

/* The first line of the file.  An empty one would log in without proof of
 * who we are, one that was cut short never. */
static char *
read_secret(const struct lun_options *opt)
{
    char line[SECRET_MAX];
    char *secret = NULL;
    FILE *f;

    if (!opt->chap_secret_file) {
        log_error("lun %s: chap_user without chap_secret_file", opt->name);
        errno = EINVAL;
        return NULL;
    }
    f = fopen(opt->chap_secret_file, "re");
    if (f && fgets(line, sizeof(line), f)) {
        size_t len = strcspn(line, "\r\n");
        bool whole = line[len] != '\0' || fgetc(f) == EOF;

        line[len] = '\0';
        if (len > 0 && whole)
            secret = strdup(line);
    }
    explicit_bzero(line, sizeof(line));
    if (f)
        fclose(f);
    if (!secret) {
        log_error("lun %s: no secret of 1 to %d characters in the first line "
                  "of %s",
                  opt->name, SECRET_MAX - 1, opt->chap_secret_file);
        errno = EINVAL;
    }
    return secret;
}

static int
understand(struct iscsi_lun *l)
{
    char err[200];

    if (iscsi_url_parse(l->opt->device, &l->url, err, sizeof(err)) < 0) {
        log_error("lun %s: device '%s': %s", l->opt->name, l->opt->device, err);
        return -EINVAL;
    }
    /* libiscsi sends the number as the first two bytes: peripheral device
     * addressing up to 255, flat space addressing beyond (SAM-5 4.7.7). */
    if (l->url.lun > 255)
        l->url.lun |= 0x4000;
    if (!l->opt->initiator || l->opt->initiator[0] == '\0') {
        log_error("lun %s: no initiator name", l->opt->name);
        return -EINVAL;
    }
    if (!l->opt->statedir || !l->opt->process) {
        log_error("lun %s: no statedir, or no name of the process",
                  l->opt->name);
        return -EINVAL;
    }
    if (l->opt->chap_user) {
        l->secret = read_secret(l->opt);
        if (!l->secret)
            return -errno;
    }
    return 0;
}

static void
init_paths(struct iscsi_lun *l)
{
    l->npaths = l->url.nportals;
    for (size_t i = 0; i < l->npaths; i++) {
        struct iscsi_path *p = &l->paths[i];

        p->lun = l;
        p->index = (unsigned)i;
        p->portal = l->url.portals[i];
        p->fd = -1;
        p->since_ms = clock_ms();
        TAILQ_INIT(&p->inbox);
        TAILQ_INIT(&p->sent);
        TAILQ_INIT(&p->finished);
        STAILQ_INIT(&p->controls);
        STAILQ_INIT(&p->issued);
    }
}

static void
free_grave(struct iscsi_nexus *n)
{
    struct iscsi_request *r;
    struct iscsi_ghost *g;

    while ((r = TAILQ_FIRST(&n->lost))) {
        TAILQ_REMOVE(&n->lost, r, link);
        lun_tally_end(&r->io);
        iscsi_queue_free(r);
    }
    while ((g = SLIST_FIRST(&n->ghosts))) {
        SLIST_REMOVE_HEAD(&n->ghosts, link);
        lun_tally_end(&g->io);
        free(g);
    }
    free(n);
}

static void
free_all(struct iscsi_lun *l)
{
    struct iscsi_nexus *n;

    while ((n = TAILQ_FIRST(&l->graves))) {
        TAILQ_REMOVE(&l->graves, n, link);
        free_grave(n);
    }
    if (l->secret)
        explicit_bzero(l->secret, strlen(l->secret));
    free(l->secret);
    free(l->zeroes);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void
stop_threads(struct iscsi_lun *l, size_t npaths, bool keeper)
{
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    for (size_t i = 0; i < npaths; i++)
        iscsi_path_stop(&l->paths[i]);
    if (keeper)
        pthread_join(l->keeper, NULL);
}

static int
start_threads(struct iscsi_lun *l)
{
    sigset_t all;
    sigset_t before;
    int err;

    sigfillset(&all); /* the program's signals are not for its thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&l->keeper, NULL, iscsi_keeper_main, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err)
        return -err;
    for (size_t i = 0; i < l->npaths; i++) {
        err = iscsi_path_start(&l->paths[i]);
        if (err) {
            stop_threads(l, i, true);
            return err;
        }
    }
    return 0;
}

static void *
create(struct lun *owner, const struct lun_options *opt)
{
    struct iscsi_lun *l = calloc(1, sizeof(*l));
    int err;

    if (!l)
        return NULL;
    l->owner = owner;
    l->opt = opt;
    pthread_mutex_init(&l->lock, NULL);
    wait_cond_init(&l->changed);
    TAILQ_INIT(&l->held);
    TAILQ_INIT(&l->graves);
    l->zeroes = calloc(1, ISCSI_ZERO_MAX);
    err = l->zeroes ? understand(l) : -ENOMEM;
    init_paths(l);
    if (!err)
        err = iscsi_inherit_load(l);
    if (!err)
        err = start_threads(l);
    if (err) {
        free_all(l);
        errno = -err;
        return NULL;
    }
    return l;
}

/* ---- closing ------------------------------------------------------------ */

static unsigned
orphans_locked(const struct iscsi_lun *l)
{
    const struct iscsi_nexus *n;
    unsigned orphans = l->abandoned_writes;

    TAILQ_FOREACH(n, &l->graves, link)
    {
        const struct iscsi_request *r;

        orphans += n->nghosts;
        orphans += n->key != 0 && !n->answered && !n->missed;
        TAILQ_FOREACH(r, &n->lost, link)
        orphans += r->queue != NULL;
    }
    return orphans;
}

/* The queues are gone, so all that is under way is abandoned. */
static unsigned
destroy(void *b, uint64_t deadline_ms)
{
    struct iscsi_lun *l = b;
    bool in_time = true;
    unsigned lost;

    pthread_mutex_lock(&l->lock);
    while (in_time && orphans_locked(l) > 0)
        in_time = wait_cond(&l->changed, &l->lock, deadline_ms);
    lost = orphans_locked(l);
    pthread_mutex_unlock(&l->lock);
    stop_threads(l, l->npaths, true);
    iscsi_inherit_leave(l, lost == 0);
    if (lost > 0)
        log_warning("lun %s: %u writes never came back", l->opt->name, lost);
    free_all(l);
    return lost;
}

/* ---- status ------------------------------------------------------------- */

static void
get_status(void *b, struct lun_status *st)
{
    struct iscsi_lun *l = b;
    const struct iscsi_info *info = &l->info;
    bool guarded;

    pthread_mutex_lock(&l->lock);
    guarded = !info->plain_only || l->opt->fence == LUN_FENCE_DRAIN;
    st->known = l->known;
    st->wrong_id = l->wrong_id;
    memcpy(st->id, info->id, sizeof(st->id));
    st->size = info->size;
    st->block_size = info->block_size;
    st->preferred = info->preferred;
    st->max_io = info->max_io;
    st->readonly = info->readonly || l->opt->readonly;
    st->can_trim = info->unmap && guarded;
    st->can_zero = true;
    st->can_extents = info->provisioned && info->reads_zeroes;
    st->paths_known = (unsigned)l->npaths;
    st->paths_good = iscsi_route_good_locked(l);
    st->registration = l->registration;
    st->registration_no = l->registration_no;
    st->key = l->key;
    st->inflight = l->inflight;
    st->orphans = orphans_locked(l) + iscsi_inherit_due_locked(l);
    st->orphan_reads = l->abandoned_reads;
    pthread_mutex_unlock(&l->lock);
}

static size_t
get_paths(void *b, struct lun_path *paths, size_t max)
{
    struct iscsi_lun *l = b;

    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < l->npaths && i < max; i++) {
        const struct iscsi_path *p = &l->paths[i];

        snprintf(paths[i].name, sizeof(paths[i].name), "%s", p->portal);
        snprintf(paths[i].error, sizeof(paths[i].error), "%s", p->error);
        paths[i].state = p->state;
        paths[i].since_ms = p->since_ms;
    }
    pthread_mutex_unlock(&l->lock);
    return l->npaths;
}

/* ---- block status ------------------------------------------------------- */

/* Descriptors as extents of the range; returns how many. */
static size_t
parse_extents(const struct iscsi_control *c, uint32_t block_size,
              uint64_t offset, uint64_t count, struct lun_extent *extents,
              size_t max)
{
    size_t n = 0;

    for (size_t at = STATUS_HEADER;
         at + STATUS_LEN <= c->in_len && n < max && count > 0;
         at += STATUS_LEN) {
        const uint8_t *d = &c->in[at];
        uint64_t begin = scsi_get_uint64(&d[0]) * block_size;
        uint64_t len = (uint64_t)scsi_get_uint32(&d[8]) * block_size;

        if (begin > offset || len == 0 || begin + len <= offset)
            break; /* a gap or nonsense: what we have is enough */
        len -= offset - begin;
        if (len > count)
            len = count;
        extents[n++] = (struct lun_extent){
            .count = len, .hole = (d[12] & 0xF) == STATUS_HOLE};
        offset += len;
        count -= len;
    }
    return n;
}

static int
ask_extents(const struct iscsi_via *via, uint32_t block_size, uint64_t offset,
            uint64_t count, struct lun_extent *extents, size_t max)
{
    uint8_t cdb[16] = {SCSI_OPCODE_SERVICE_ACTION_IN, SCSI_GET_LBA_STATUS};
    struct iscsi_control *c;
    int r;

    scsi_set_uint64(&cdb[2], offset / block_size);
    scsi_set_uint32(&cdb[10], STATUS_HEADER + STATUS_LEN * STATUS_MAX);
    c = iscsi_control_create("GET LBA STATUS", cdb, sizeof(cdb),
                             STATUS_HEADER + STATUS_LEN * STATUS_MAX);
    if (!c)
        return -ENOMEM;
    r = iscsi_control_run(via->path, via->nexus, c, via->deadline_ms);
    if (r == 0)
        r = (int)parse_extents(c, block_size, offset, count, extents, max);
    else if (r != -ENOLINK && r != -ETIMEDOUT && c->refused)
        r = 0; /* it does not know the command, so it does not know */
    iscsi_control_put(via->path->lun, c);
    return r;
}

static int
extents(void *b, uint64_t offset, uint64_t count, struct lun_extent *out,
        size_t max, uint64_t deadline_ms)
{
    struct iscsi_lun *l = b;
    struct iscsi_via via;
    bool found;
    bool knows;
    int r;

    pthread_mutex_lock(&l->lock);
    knows = l->info.provisioned && l->info.reads_zeroes;
    found = iscsi_pr_via_locked(l, ISCSI_MEMBER, deadline_ms, &via) ||
            iscsi_pr_via_locked(l, ISCSI_FRESH, deadline_ms, &via);
    pthread_mutex_unlock(&l->lock);
    if (!found)
        return -ENOLINK;
    r = knows ? ask_extents(&via, l->info.block_size, offset, count, out, max)
              : 0;
    if (r != 0)
        return r;
    out[0] = (struct lun_extent){.count = count, .hole = false};
    return 1;
}

const struct lun_backend lun_backend_iscsi = {
    .name = "iscsi",
    .create = create,
    .destroy = destroy,
    .get_status = get_status,
    .get_paths = get_paths,
    .queue_create = iscsi_queue_create,
    .queue_destroy = iscsi_queue_destroy,
    .queue_fd = iscsi_queue_fd,
    .queue_interrupt = iscsi_queue_interrupt,
    .io_get = iscsi_queue_io_get,
    .io_put = iscsi_queue_io_put,
    .submit = iscsi_queue_submit,
    .reap = iscsi_queue_reap,
    .abandon = iscsi_queue_abandon,
    .extents = extents,
    .do_register = iscsi_pr_register,
    .release = iscsi_pr_release,
    .check_registration = iscsi_pr_check,
    .fence = iscsi_fence,
};
