/* SPDX-License-Identifier: BSD-3-Clause */
/* Hears of paths below the device, and keeps what is known of them.
 *
 * One thread.  It looks whenever the kernel tells of something, and below a
 * block device four times a second anyway, since events get lost: sysfs at each
 * look, the map's table once a second, after each event, and while own paths
 * are given up.  An event itself decides nothing, because those of one moment
 * come in any order.
 *
 * What may hang is kept away from it: ioctls of dm are jobs that are left
 * behind (lun/job.h), multipathd is a descriptor among those it polls.  A map
 * that cannot be read is known by sysfs alone. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/log.h"
#include "lun/block.h"
#include "lun/dm.h"
#include "lun/identity.h"
#include "lun/multipathd.h"
#include "lun/queueing.h"
#include "lun/uevent.h"

#define LOOK_MS   250   /* sysfs; the map too while it is to queue no more */
#define MAP_MS    1000  /* the map's table */
#define SHOW_MS   10000 /* what multipathd shows; at once when paths change */
#define JOB_MS    200   /* for an ioctl of dm */
#define STALE_MS  3000  /* what was read of a map that hangs counts so long */
#define DAEMON_MS 1000  /* for an answer of multipathd */

enum asked {
    ASKED_NOTHING,
    ASKED_SHOW,
    ASKED_DISABLE,
};

/* The thread's own, but for what block_watch_start sets. */
struct block_watch {
    struct uevents *events; /* NULL: they are not to be had */
    unsigned generation;    /* of the device that the rest is about */
    uint64_t look_ms;       /* when to look next; so below */
    uint64_t map_ms;
    uint64_t show_ms;

    bool have_map; /* map was read, and not too long ago */
    uint64_t read_ms;
    struct dm_map map;
    int map_error; /* of that try; logged when it changes */
    struct queueing queueing;

    struct multipathd daemon;
    enum asked asked;
    bool have_said; /* said is what it told last */
    struct multipathd_map said;
    char daemon_text[sizeof((struct lun_map *)0)->multipathd];
    bool ordered;    /* since the own paths were given up */
    bool complained; /* that it does not disable queueing, since then */
};

/* What one look is about. */
struct subject {
    struct device *device; /* a reference, or NULL */
    unsigned generation;
    struct lun_path whole;
    char id[LUN_ID_MAX]; /* that it must have; "": any */
    bool fail, wrong_id;
};

void
block_watch_kick(struct block *b)
{
    uint64_t one = 1;

    (void)!write(b->watch_wake, &one, sizeof one);
}

/* ---- events ------------------------------------------------------ */

static bool
concerns(struct block *b, const struct uevent *ev, bool *device)
{
    const struct device *d;
    bool yes;

    pthread_mutex_lock(&b->lock);
    d = b->device;
    *device = ev->kind == UEVENT_DEVICE && (!d || !strcmp(d->name, ev->name));
    yes = *device || (d && !strcmp(d->name, ev->name)) ||
          (d && d->nvme && ev->kind == UEVENT_NVME) ||
          path_set_find(&b->paths, ev->name);
    pthread_mutex_unlock(&b->lock);
    return yes;
}

/* Returns whether there is a reason to look. */
static bool
hear(struct block *b, struct block_watch *w)
{
    bool news = false, look = false, device;
    struct uevent ev;
    int got;

    while (w->events && (got = uevents_next(w->events, &ev)) != 0) {
        if (got < 0) {
            log_debug("lun %s: events of the kernel were lost", b->name);
            news = look = true;
            continue;
        }
        if (!concerns(b, &ev, &device))
            continue;
        log_debug("lun %s: event %s of %s %s", b->name,
                  uevent_kind_name(ev.kind), ev.name, ev.path);
        news = true;
        look |= device;
    }
    if (look) {
        pthread_mutex_lock(&b->lock);
        b->look_now = true;
        pthread_cond_broadcast(&b->moved);
        pthread_mutex_unlock(&b->lock);
    }
    return news;
}

/* ---- the map ----------------------------------------------------- */

struct map_job {
    dev_t dev;
    struct dm_map map;
};

static int
read_map(void *arg)
{
    struct map_job *j = arg;

    return dm_read(j->dev, &j->map);
}

static int
give_order(void *arg)
{
    struct map_job *j = arg;

    return dm_fail_queued(j->dev);
}

/* The map's number: that of the device or, when opening it hangs, of what
 * stands at its path and is the LUN by its name. */
static bool
find_map(struct block *b, const struct subject *s, dev_t *dev)
{
    char name[SYSFS_NAME_MAX], uuid[160], id[LUN_ID_MAX];
    struct stat st;

    if (s->device) {
        *dev = s->device->dev;
        return s->device->multipath;
    }
    if (!s->fail || s->wrong_id || stat(b->path, &st) < 0 ||
        !S_ISBLK(st.st_mode) || sysfs_name(st.st_rdev, name) < 0 ||
        sysfs_read(name, "dm/uuid", uuid, sizeof uuid) < 0 ||
        identity_from_dm_uuid(uuid, id) < 0)
        return false;
    *dev = st.st_rdev;
    return !s->id[0] || strcmp(s->id, id) == 0;
}

static void
look_at_map(struct block *b, struct block_watch *w, dev_t dev)
{
    struct map_job args = {.dev = dev};
    struct job j = {read_map, NULL, &args, sizeof args};
    uint64_t now_ms = clock_ms();
    int err = job_run(b->map_jobs, &j, now_ms + JOB_MS);

    /* one left behind is followed by -EAGAIN until it comes back */
    if (err == -EAGAIN)
        err = -ETIMEDOUT;
    w->map_ms = now_ms + MAP_MS;
    if (!err) {
        w->have_map = true;
        w->map = args.map;
        w->read_ms = now_ms;
    } else if (err != -ETIMEDOUT || now_ms >= w->read_ms + STALE_MS) {
        w->have_map = false;
    }
    if (err != w->map_error && err)
        log_warning("lun %s: the kernel does not tell of its map: %s; paths "
                    "are watched in sysfs alone",
                    b->name, strerror(-err));
    else if (err != w->map_error)
        log_info("lun %s: the kernel tells of map %s again", b->name,
                 w->map.name);
    w->map_error = err;
}

static void
order(struct block *b, struct block_watch *w, dev_t dev)
{
    struct map_job args = {.dev = dev};
    struct job j = {give_order, NULL, &args, sizeof args};
    int err = job_run(b->order_jobs, &j, clock_ms() + JOB_MS);

    if (!w->ordered && err)
        log_warning("lun %s: map %s goes on queueing I/O: %s; trying again",
                    b->name, w->map.name, strerror(-err));
    else if (!w->ordered)
        log_warning("lun %s: own paths are given up: I/O that waits in map "
                    "%s for one is failed",
                    b->name, w->map.name);
    w->ordered = true;
}

/* By the kernel's name: no quoting, and it outlives a renaming. */
static void
ask(struct block_watch *w, enum asked what, dev_t dev)
{
    char command[96], name[SYSFS_NAME_MAX];
    int err = sysfs_name(dev, name);

    if (!err) {
        snprintf(command, sizeof command,
                 what == ASKED_SHOW ? "show map %.32s json"
                                    : "disablequeueing map %.32s",
                 name);
        err = multipathd_ask(&w->daemon, command, clock_ms() + DAEMON_MS);
    }
    w->asked = err ? ASKED_NOTHING : what;
    if (!err)
        return;
    w->have_said = false;
    snprintf(w->daemon_text, sizeof w->daemon_text, "does not answer: %s",
             strerror(-err));
}

static void
tend_queueing(struct block *b, struct block_watch *w, const struct subject *s,
              dev_t dev)
{
    const struct queueing_sample sample = {
        .known = w->have_map, .queues = w->map.queues, .fail = s->fail};
    unsigned todo = queueing_step(&w->queueing, &sample, clock_ms());

    if (todo & QUEUEING_WARN)
        log_warning("lun %s: map %s queues I/O while it has no path, where "
                    "nothing can take it elsewhere: set no_path_retry fail in "
                    "multipath.conf",
                    b->name, w->map.name);
    if (todo & QUEUEING_TELL)
        log_info("lun %s: map %s queues no I/O any more", b->name, w->map.name);
    if (todo & QUEUEING_ORDER)
        order(b, w, dev);
    if (todo & QUEUEING_ASK)
        ask(w, ASKED_DISABLE, dev);
    if (!s->fail)
        w->ordered = w->complained = false;
}

/* ---- multipathd -------------------------------------------------- */

static void
complain(struct block *b, struct block_watch *w, const char *why)
{
    if (!w->complained)
        log_warning("lun %s: multipathd does not take disablequeueing (%s): "
                    "it may have map %s queue again",
                    b->name, why, w->map.name);
    w->complained = true;
}

static void
take_answer(struct block *b, struct block_watch *w, char *text)
{
    text[strcspn(text, "\n")] = '\0'; /* of an order's answer, a word */
    if (strcmp(text, "ok") == 0)
        log_warning("lun %s: multipathd was told that map %s queues no more; "
                    "\"multipathd restorequeueing map %s\" takes it back",
                    b->name, w->map.name, w->map.name);
    else
        complain(b, w, text);
    w->show_ms = 0;
}

static void
take_map(struct block_watch *w, const char *text)
{
    w->have_said = multipathd_parse_map(text, &w->said) == 0;
    if (w->have_said)
        snprintf(w->daemon_text, sizeof w->daemon_text, "answers, queueing: %s",
                 w->said.queueing);
    else
        snprintf(w->daemon_text, sizeof w->daemon_text, "knows no such map");
}

static void
go_on_with_daemon(struct block *b, struct block_watch *w)
{
    int got = multipathd_go_on(&w->daemon, clock_ms());
    enum asked asked = w->asked;

    if (got == 0)
        return;
    w->asked = ASKED_NOTHING;
    w->look_ms = 0;
    if (got < 0) {
        w->have_said = false;
        snprintf(w->daemon_text, sizeof w->daemon_text, "does not answer: %s",
                 strerror(-got));
        if (asked == ASKED_DISABLE)
            complain(b, w, strerror(-got));
    } else if (asked == ASKED_DISABLE) {
        take_answer(b, w, w->daemon.reply);
    } else {
        take_map(w, w->daemon.reply);
    }
}

/* ---- looking ----------------------------------------------------- */

static void
log_path(const struct block *b, const struct lun_path *p,
         const struct lun_path *old)
{
    if (p->state == LUN_PATH_FAILED && (!old || old->state != p->state))
        log_warning("lun %s: path %s: %s", b->name, p->name, p->error);
    else if (!old)
        log_info("lun %s: path %s: new", b->name, p->name);
    else if (old->state != p->state)
        log_info("lun %s: path %s: good after %llu s", b->name, p->name,
                 (unsigned long long)(p->since_ms - old->since_ms) / 1000);
}

static void
log_paths(const struct block *b, const struct path_set *now,
          const struct path_set *before)
{
    for (size_t i = 0; i < now->n; i++)
        log_path(b, &now->paths[i], path_set_find(before, now->paths[i].name));
    for (size_t i = 0; i < before->n; i++)
        if (!path_set_find(now, before->paths[i].name))
            log_info("lun %s: path %s: gone", b->name, before->paths[i].name);
}

static void
fill_map_locked(struct block *b, const struct block_watch *w)
{
    struct lun_map *m = &b->map;

    memcpy(m->name, w->map.name, sizeof m->name);
    m->read_ms = w->read_ms;
    m->queues = w->queueing.queues;
    m->orders = w->queueing.orders;
    memcpy(m->multipathd, w->daemon_text, sizeof m->multipathd);
}

/* Put what was found where status finds it; s->device has not changed. */
static void
publish(struct block *b, struct block_watch *w, const struct subject *s)
{
    struct path_set seen, before;
    bool news, queued;

    block_paths_gather(s->device, &s->whole, w->have_map ? &w->map : NULL,
                       w->have_said ? &w->said : NULL, &seen);
    pthread_mutex_lock(&b->lock);
    if (b->generation != s->generation) {
        pthread_mutex_unlock(&b->lock);
        return;
    }
    before = b->paths;
    news = path_set_carry(&seen, &before, clock_ms());
    b->paths = seen;
    queued = b->map.queues;
    fill_map_locked(b, w);
    pthread_mutex_unlock(&b->lock);
    if (news) {
        log_paths(b, &seen, &before);
        w->show_ms = 0;
    }
    if (news || queued != w->queueing.queues)
        block_changed(b);
}

static struct subject
choose_subject(struct block *b)
{
    struct subject s;

    pthread_mutex_lock(&b->lock);
    s = (struct subject){
        .device = b->device ? device_get(b->device) : NULL,
        .generation = b->generation,
        .whole = b->path_state,
        .fail = b->fail_queued,
        .wrong_id = b->wrong_id,
    };
    snprintf(s.id, sizeof s.id, "%s", b->expected_id ? b->expected_id : b->id);
    pthread_mutex_unlock(&b->lock);
    return s;
}

/* Another device, or none: what was known is of the old one. */
static void
begin_anew(struct block_watch *w, unsigned generation)
{
    multipathd_fini(&w->daemon);
    w->generation = generation;
    w->asked = ASKED_NOTHING;
    w->have_map = w->have_said = false;
    w->map = (struct dm_map){.npaths = 0};
    w->queueing = (struct queueing){.orders = w->queueing.orders};
    w->daemon_text[0] = '\0';
    w->read_ms = w->map_ms = w->show_ms = 0;
}

static void
look(struct block *b, struct block_watch *w, bool news)
{
    struct subject s = choose_subject(b);
    uint64_t now_ms = clock_ms();
    dev_t dev;

    if (s.generation != w->generation)
        begin_anew(w, s.generation);
    /* Below a file there is nothing; block_watch_kick tells when it goes. */
    w->look_ms = s.device && s.device->file && !s.device->multipath
                     ? CLOCK_NEVER
                     : now_ms + LOOK_MS;
    if (find_map(b, &s, &dev)) {
        if (news || s.fail || now_ms >= w->map_ms)
            look_at_map(b, w, dev);
        tend_queueing(b, w, &s, dev);
        publish(b, w, &s);
        if (now_ms >= w->show_ms && w->asked == ASKED_NOTHING) {
            ask(w, ASKED_SHOW, dev);
            w->show_ms = now_ms + SHOW_MS;
        }
    } else {
        publish(b, w, &s);
    }
    device_put(s.device);
}

/* ---- the thread -------------------------------------------------- */

static bool
is_stopping(struct block *b)
{
    bool stop;

    pthread_mutex_lock(&b->lock);
    stop = b->stop;
    pthread_mutex_unlock(&b->lock);
    return stop;
}

/* Returns whether to look, and whether there is news to look for. */
static bool
wait_for_news(struct block *b, struct block_watch *w, bool *news)
{
    struct pollfd p[3] = {
        {.fd = b->watch_wake, .events = POLLIN},
        {.fd = w->events ? uevents_fd(w->events) : -1, .events = POLLIN},
        {.fd = multipathd_fd(&w->daemon),
         .events = multipathd_events(&w->daemon)},
    };
    uint64_t now_ms = clock_ms(), until_ms = w->look_ms, n;

    if (p[2].fd >= 0 && w->daemon.deadline_ms < until_ms)
        until_ms = w->daemon.deadline_ms;
    poll(p, 3, clock_left_ms(until_ms, now_ms));
    *news = false;
    if (p[0].revents) {
        (void)!read(b->watch_wake, &n, sizeof n);
        *news = true;
    }
    if (p[1].revents)
        *news |= hear(b, w);
    go_on_with_daemon(b, w);
    return *news || clock_ms() >= w->look_ms;
}

static void *
watch(void *opaque)
{
    struct block *b = opaque;
    struct block_watch *w = b->watch;
    bool news = true, due = true;

    w->events = uevents_open();
    if (!w->events)
        log_info("lun %s: no events from the kernel: %s; paths are looked at "
                 "four times a second",
                 b->name, strerror(errno));
    do {
        if (due)
            look(b, w, news);
        due = wait_for_news(b, w, &news);
    } while (!is_stopping(b));
    look(b, w, true); /* fail_queued may have been set for the end */
    multipathd_fini(&w->daemon);
    uevents_close(w->events);
    free(w);
    block_thread_end(b);
    return NULL;
}

int
block_watch_start(struct block *b)
{
    int err;

    b->watch = calloc(1, sizeof *b->watch);
    b->watch_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!b->watch || b->watch_wake < 0)
        err = -errno;
    else {
        multipathd_init(&b->watch->daemon, b->opt->multipathd);
        err = block_thread(b, watch);
    }
    if (err)
        free(b->watch);
    return err;
}

/* ---- from outside ------------------------------------------------ */

bool
block_get_map(void *opaque, struct lun_map *map)
{
    struct block *b = opaque;
    bool have;

    pthread_mutex_lock(&b->lock);
    have = b->device && b->device->multipath;
    *map = b->map;
    pthread_mutex_unlock(&b->lock);
    return have;
}

void
block_fail_queued(void *opaque, bool fail)
{
    struct block *b = opaque;
    bool news;

    pthread_mutex_lock(&b->lock);
    news = b->fail_queued != fail;
    b->fail_queued = fail;
    pthread_mutex_unlock(&b->lock);
    if (news)
        block_watch_kick(b);
}
