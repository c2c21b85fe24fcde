/* SPDX-License-Identifier: BSD-3-Clause */
/* Fencing over iscsi, for tests: a hand in what is sent and answered, and a
 * target whose disk hangs. */
#ifndef DETOUR_TESTS_ISCSI_FENCING_H
#define DETOUR_TESTS_ISCSI_FENCING_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "lun/epoch.h"
#include "lun/iscsi_impl.h"
#include "lun/sense.h"
#include "tests/unit/iscsi_host.h"

/* ---- reaching in -------------------------------------------------------- */

int __real_iscsi_reserve_register(const struct iscsi_via *via, uint64_t key);
int __wrap_iscsi_reserve_register(const struct iscsi_via *via, uint64_t key);

/* Runs once, before a REGISTER of host 1 leaves. */
static void (*_Atomic before_register)(void);

int
__wrap_iscsi_reserve_register(const struct iscsi_via *via, uint64_t key)
{
    struct key k = {0};
    void (*hook)(void) = before_register;

    if (hook && key_unpack(key, &k) && k.host == 1) {
        before_register = NULL;
        hook();
    }
    return __real_iscsi_reserve_register(via, key);
}

struct sense_verdict __real_sense_judge_status(uint8_t status);
struct sense_verdict __wrap_sense_judge_status(uint8_t status);

/* Every answer tells of a reset. */
static atomic_bool always_reset;

struct sense_verdict
__wrap_sense_judge_status(uint8_t status)
{
    struct sense_verdict v = __real_sense_judge_status(status);

    if (always_reset)
        v.news |= SENSE_RESET;
    return v;
}

void __real_iscsi_control_start(struct iscsi_path *p, struct iscsi_control *c);
void __wrap_iscsi_control_start(struct iscsi_path *p, struct iscsi_control *c);

/* This portal swallows our commands, and answers probes. */
static const char *_Atomic deaf;

/* LUN RESETs, and requests that their senders had in the target then. */
static atomic_uint resets, sent_at_resets;
/* The target refuses LUN RESETs; so many until now. */
static atomic_bool refuses_reset;
static atomic_uint refusals;

static inline void
refuse(struct iscsi_path *p, struct iscsi_control *c)
{
    refusals++;
    pthread_mutex_lock(&p->lun->lock);
    c->error = -EOPNOTSUPP;
    c->done = true;
    pthread_cond_broadcast(&p->lun->changed);
    pthread_mutex_unlock(&p->lun->lock);
    iscsi_control_put(p->lun, c);
}

void
__wrap_iscsi_control_start(struct iscsi_path *p, struct iscsi_control *c)
{
    const char *portal = deaf;

    if (c->lun_reset) {
        pthread_mutex_lock(&p->lun->lock);
        atomic_fetch_add(&sent_at_resets, p->nsent);
        pthread_mutex_unlock(&p->lun->lock);
        atomic_fetch_add(&resets, 1);
    }
    if (c->lun_reset && refuses_reset) {
        refuse(p, c);
    } else if (portal && strncmp(p->portal, portal, strlen(portal)) == 0) {
        c->path = p;
        STAILQ_INSERT_TAIL(&p->issued, c, link);
    } else {
        __real_iscsi_control_start(p, c);
    }
}

/* ---- a target whose disk hangs ------------------------------------------ */

/* tests/tools/hangfs, which holds writes of the target that sits on it. */
struct hang {
    struct san san;
    char mount[150];
    FILE *to, *from;
    pid_t pid;
};

static char tool[PATH_MAX];

static inline int
hang_say(struct hang *g, const char *command)
{
    char line[64] = "";

    if (command) {
        fprintf(g->to, "%s\n", command);
        fflush(g->to);
    }
    assert_non_null(fgets(line, sizeof(line), g->from));
    return atoi(line);
}

static inline void
hang_exec(const struct hang *g, int in, int out)
{
    char size[32];

    snprintf(size, sizeof(size), "%u", SAN_SIZE);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0)
        _exit(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(tool, "hangfs", g->mount, size, NULL);
    _exit(1);
}

/* A target whose disk hangs on command. */
static inline void
hang_up(struct hang *g)
{
    char disk[200];
    char sandir[150];
    struct san_options opts = {
        .first = 30, .identity = "detour4", .disk = disk};
    int to[2];
    int from[2];

    snprintf(g->mount, sizeof(g->mount), "%s/hang", dir);
    snprintf(disk, sizeof(disk), "%s/disk", g->mount);
    snprintf(sandir, sizeof(sandir), "%s/hangsan", dir);
    mkdir(g->mount, 0700);
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    g->pid = fork();
    if (g->pid == 0)
        hang_exec(g, to[0], from[1]);
    close(to[0]);
    close(from[1]);
    g->to = fdopen(to[1], "w");
    g->from = fdopen(from[0], "r");
    hang_say(g, NULL); /* ready */
    assert_int_equal(san_start(&g->san, sandir, &opts), 0);
}

static inline void
hang_down(struct hang *g)
{
    san_stop(&g->san);
    fclose(g->to);
    fclose(g->from);
    waitpid(g->pid, NULL, 0);
}

/* All of a host's nexuses have joined, and the keeper rests, which looks once
 * more when the last key is there: a look of ours waits for its turn. */
static inline void
await_joined(struct host *h, unsigned number, int count)
{
    await_keys(number, count);
    assert_int_equal(lun_check_registration(h->lun, soon()), 0);
}

/* A test that failed in the middle must not take the next one with it. */
static inline int
each_teardown(void **state)
{
    (void)state;
    kill(san.pid, SIGCONT);
    san_heal();
    before_register = NULL;
    always_reset = false;
    refuses_reset = false;
    deaf = NULL;
    return 0;
}

#define iscsi_test(f) cmocka_unit_test_teardown(f, each_teardown)

#endif
