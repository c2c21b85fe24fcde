/* SPDX-License-Identifier: BSD-3-Clause */
/* From process to process: the keys that one had on the LUN, and whether it
 * may have left writes under way, kept on the host's disk for the next.
 *
 * The file holds a key to a line.  It is written before each REGISTER, and
 * once more, led by CLEAN_MARK, by a process that left nothing behind. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/rules.h"
#include "lun/epoch.h"
#include "lun/iscsi_impl.h"

/* Keys of ours on the LUN or perhaps on it; graves are buried long before. */
#define OWN_KEYS_MAX 256
/* Leads the file of a process that left nothing under way. */
#define CLEAN_MARK 0u
/* No key of anybody's: what a process without reservations has in its file. */
#define IN_USE_MARK 1u

static size_t
collect_locked(const struct iscsi_lun *l, uint64_t *keys, size_t max)
{
    const struct iscsi_nexus *n;
    size_t count = 0;

    for (size_t i = 0; i < l->npaths && count < max; i++)
        if (l->paths[i].nexus && l->paths[i].nexus->key != 0)
            keys[count++] = l->paths[i].nexus->key;
    TAILQ_FOREACH(n, &l->graves, link)
    if (n->key != 0 && count < max)
        keys[count++] = n->key;
    return count;
}

/* It is tried again and again: said once for as long as the reason stays. */
static int
save_file(struct iscsi_lun *l, const uint64_t *keys, size_t n)
{
    const struct lun_options *opt = l->opt;
    int err = epoch_save_keys(opt->statedir, opt->name, opt->process, keys, n);

    if (err && err != l->save_error)
        log_error("lun %s: cannot save keys in %s: %s; no session is "
                  "registered without it",
                  opt->name, opt->statedir, strerror(-err));
    else if (!err && l->save_error)
        log_info("lun %s: keys can be saved in %s again", opt->name,
                 opt->statedir);
    l->save_error = err;
    return err;
}

int
iscsi_inherit_save(struct iscsi_lun *l)
{
    uint64_t keys[OWN_KEYS_MAX];
    size_t n;

    pthread_mutex_lock(&l->lock);
    n = collect_locked(l, keys, OWN_KEYS_MAX);
    pthread_mutex_unlock(&l->lock);
    if (n < OWN_KEYS_MAX)
        return save_file(l, keys, n);
    log_error("lun %s: %u keys of ours are on the LUN: too many", l->opt->name,
              OWN_KEYS_MAX);
    return -ENOSPC;
}

static int
inherit_grave(struct iscsi_lun *l, uint64_t key, bool clean)
{
    struct iscsi_nexus *grave = calloc(1, sizeof(*grave));

    if (!grave)
        return -ENOMEM;
    TAILQ_INIT(&grave->lost);
    SLIST_INIT(&grave->ghosts);
    grave->key = key;
    grave->answered = true;
    grave->inherited = !clean;
    TAILQ_INSERT_TAIL(&l->graves, grave, link);
    return 0;
}

int
iscsi_inherit_load(struct iscsi_lun *l)
{
    const struct lun_options *opt = l->opt;
    const uint64_t in_use = IN_USE_MARK;
    uint64_t keys[OWN_KEYS_MAX + 1];
    bool clean;
    int n;

    n = epoch_load_keys(opt->statedir, opt->name, opt->process, keys,
                        OWN_KEYS_MAX + 1);
    if (n < 0) {
        log_error("lun %s: cannot read the keys of our predecessor in %s: %s",
                  opt->name, opt->statedir, strerror(-n));
        return n;
    }
    clean = n > 0 && keys[0] == CLEAN_MARK;
    for (int i = clean; i < n && rule_kept(RULE_PREDECESSOR); i++) {
        int err = inherit_grave(l, keys[i], clean);

        if (err)
            return err;
    }
    /* There is no REGISTER to save this before. */
    return opt->fence == LUN_FENCE_DRAIN ? save_file(l, &in_use, 1) : 0;
}

bool
iscsi_inherit_due_locked(const struct iscsi_lun *l)
{
    const struct iscsi_nexus *n;

    TAILQ_FOREACH(n, &l->graves, link)
    if (n->inherited)
        return true;
    return false;
}

void
iscsi_inherit_leave(struct iscsi_lun *l, bool clean)
{
    const struct lun_options *opt = l->opt;
    uint64_t keys[OWN_KEYS_MAX + 1] = {CLEAN_MARK};
    size_t n;

    /* what was saved last tells the successor all it needs */
    if (!clean || iscsi_inherit_due_locked(l))
        return;
    n = collect_locked(l, keys + 1, OWN_KEYS_MAX);
    if (n > 0 || opt->fence == LUN_FENCE_DRAIN)
        save_file(l, keys, n + 1);
}
