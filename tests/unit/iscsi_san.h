/* SPDX-License-Identifier: BSD-3-Clause */
/* A real iSCSI target for tests: tgtd in a network namespace of the test's
 * own, whose portals can be cut one by one.
 *
 * Portals are 127.0.0.2 to 127.0.0.5, port 3260.  Everything lives in the
 * namespace and in the test's own folder, so any number of tests may run side
 * by side.
 */
#ifndef DETOUR_TESTS_ISCSI_SAN_H
#define DETOUR_TESTS_ISCSI_SAN_H

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/clock.h"

#define SAN_IQN  "iqn.2024-01.org.detour.test:san"
#define SAN_SIZE (64u << 20)

struct san {
    char dir[200];
    pid_t pid; /* of tgtd, 0: not running */
};

/* san_run - a command line; its exit status. */
static inline int __attribute__((format(printf, 1, 2)))
san_run(const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    int status;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* san_namespace - a network of our own for this process; -errno. */
static inline int
san_namespace(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        return -errno;
    if (san_run("ip link set lo up") != 0)
        return -EIO;
    /* tgtd 1.0.85 freezes when a host is cut off while read data is queued
     * for it: let the kernel take it all. */
    san_run("sysctl -qw net.ipv4.tcp_wmem='4096 67108864 134217728'");
    return san_run("nft add table inet san && "
                   "nft 'add chain inet san in { type filter hook input "
                   "priority 0; }'") == 0
               ? 0
               : -EIO;
}

/* san_adm - one tgtadm command. */
#define san_adm(s, fmt, ...)                                                   \
    san_run("TGT_IPC_SOCKET=%s/ipc tgtadm -C 1 --lld iscsi " fmt " 2>&1 | "    \
            "sed 's/^/# tgtadm: /' >&2",                                       \
            (s)->dir, ##__VA_ARGS__)

struct san_options {
    int first;            /* portals 127.0.0.FIRST and the three behind it */
    const char *identity; /* becomes a part of the LUN's */
    const char *disk;     /* NULL: a file in dir */
    bool thin;            /* UNMAP and WRITE SAME work */
};

static inline void
san_set(const struct san *s, const char *name, const char *value)
{
    san_adm(s, "--op update --mode target --tid 1 --name %s --value %s", name,
            value);
}

/* The target with its LUN; tgtd runs. */
static inline void
san_configure(const struct san *s, const struct san_options *opt)
{
    char disk[256];

    snprintf(disk, sizeof(disk), "%s/disk", s->dir);
    san_adm(s, "--op new --mode target --tid 1 -T " SAN_IQN);
    san_adm(s,
            "--op new --mode logicalunit --tid 1 --lun 1 -b %s "
            "--bstype rdwr --bsoflags direct",
            opt->disk ? opt->disk : disk);
    san_adm(s,
            "--op update --mode logicalunit --tid 1 --lun 1 --params "
            "scsi_id=%s,scsi_sn=%s%s",
            opt->identity, opt->identity,
            opt->thin ? ",thin_provisioning=1" : "");
    san_set(s, "MaxRecvDataSegmentLength", "262144");
    san_set(s, "MaxXmitDataSegmentLength", "262144");
    san_set(s, "MaxBurstLength", "262144");
    san_set(s, "FirstBurstLength", "262144");
    san_set(s, "InitialR2T", "No");
    san_adm(s, "--op bind --mode target --tid 1 -I ALL");
}

static inline void
san_exec(const struct san *s, int first)
{
    char portals[256];
    char name[256];

    snprintf(name, sizeof(name), "%s/tgtd.log", s->dir);
    if (!freopen(name, "w", stdout) || dup2(1, 2) < 0)
        _exit(1);
    snprintf(name, sizeof(name), "%s/ipc", s->dir);
    setenv("TGT_IPC_SOCKET", name, 1);
    snprintf(portals, sizeof(portals),
             "portal=127.0.0.%d:3260,portal=127.0.0.%d:3260,"
             "portal=127.0.0.%d:3260,portal=127.0.0.%d:3260",
             first, first + 1, first + 2, first + 3);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it does not outlive the test */
    execlp("tgtd", "tgtd", "-f", "-C", "1", "--iscsi", portals, NULL);
    _exit(1);
}

/* san_start - tgtd with one LUN, number 1; everything lies in dir; -errno. */
static inline int
san_start(struct san *s, const char *dir, const struct san_options *opt)
{
    uint64_t until_ms = clock_ms() + 10000;

    snprintf(s->dir, sizeof(s->dir), "%s", dir);
    mkdir(dir, 0700);
    if (san_run("truncate -s %u %s/disk", SAN_SIZE, dir) != 0)
        return -EIO;
    s->pid = fork();
    if (s->pid == 0)
        san_exec(s, opt->first);
    while (san_run("TGT_IPC_SOCKET=%s/ipc tgtadm -C 1 --op show --mode sys "
                   ">/dev/null 2>&1",
                   dir) != 0) {
        if (clock_ms() > until_ms)
            return -ETIMEDOUT;
        usleep(10000);
    }
    san_configure(s, opt);
    return 0;
}

static inline void
san_stop(struct san *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGCONT);
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

/* san_cut - a portal swallows everything, or only what the target answers. */
static inline void
san_cut(int host)
{
    san_run("nft add rule inet san in ip daddr 127.0.0.%d drop; "
            "nft add rule inet san in ip saddr 127.0.0.%d drop",
            host, host);
}

static inline void
san_mute(int host)
{
    san_run("nft add rule inet san in ip saddr 127.0.0.%d drop", host);
}

/* san_reset - connections to a portal are reset, while this holds. */
static inline void
san_reset(int host)
{
    san_run("nft add rule inet san in ip daddr 127.0.0.%d tcp dport 3260 "
            "reject with tcp reset",
            host);
}

static inline void
san_heal(void)
{
    san_run("nft flush chain inet san in");
}

/* san_observer - a session of its own, beside those under test; NULL. */
static inline struct iscsi_context *
san_observer(int host)
{
    struct iscsi_context *ctx =
        iscsi_create_context("iqn.2024-01.org.detour.test:observer");
    char portal[64];

    snprintf(portal, sizeof(portal), "127.0.0.%d:3260", host);
    iscsi_set_targetname(ctx, SAN_IQN);
    iscsi_set_session_type(ctx, ISCSI_SESSION_NORMAL);
    iscsi_set_noautoreconnect(ctx, 1);
    if (iscsi_full_connect_sync(ctx, portal, 1) == 0)
        return ctx;
    iscsi_destroy_context(ctx);
    return NULL;
}

/* san_keys - the keys on the LUN; -1: it could not be asked. */
static inline int
san_keys(int host, uint64_t *keys, size_t max)
{
    struct iscsi_context *ctx = san_observer(host);
    struct scsi_persistent_reserve_in_read_keys *list;
    struct scsi_task *task = NULL;
    int n = -1;

    if (ctx)
        task = iscsi_persistent_reserve_in_sync(
            ctx, 1, SCSI_PERSISTENT_RESERVE_READ_KEYS, 4096);
    if (task && task->status == SCSI_STATUS_GOOD) {
        list = scsi_datain_unmarshall(task);
        n = list->num_keys;
        for (int i = 0; i < n && (size_t)i < max; i++)
            keys[i] = list->keys[i];
    }
    if (task)
        scsi_free_scsi_task(task);
    iscsi_destroy_context(ctx);
    return n;
}

/* One PERSISTENT RESERVE OUT; false: not answered with GOOD. */
static inline bool
san_pr_out(struct iscsi_context *ctx, int action, int type, uint64_t key,
           uint64_t action_key)
{
    struct scsi_persistent_reserve_out_basic basic = {
        .reservation_key = key, .service_action_reservation_key = action_key};
    struct scsi_task *task = iscsi_persistent_reserve_out_sync(
        ctx, 1, action, SCSI_PERSISTENT_RESERVE_SCOPE_LU, type, &basic);
    bool good = task && task->status == SCSI_STATUS_GOOD;

    if (task)
        scsi_free_scsi_task(task);
    return good;
}

/* san_reserve - all registrations go, and a stranger reserves the LUN. */
static inline bool
san_reserve(int host, uint64_t key, int type)
{
    struct iscsi_context *ctx = san_observer(host);
    bool good = ctx &&
                san_pr_out(ctx, SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, key) &&
                san_pr_out(ctx, SCSI_PERSISTENT_RESERVE_CLEAR, 0, key, 0) &&
                san_pr_out(ctx, SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, key) &&
                san_pr_out(ctx, SCSI_PERSISTENT_RESERVE_RESERVE, type, key, 0);

    iscsi_destroy_context(ctx);
    return good;
}

/* san_clear - all registrations and the reservation go. */
static inline bool
san_clear(int host, uint64_t key)
{
    struct iscsi_context *ctx = san_observer(host);
    bool good = ctx &&
                san_pr_out(ctx, SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, key) &&
                san_pr_out(ctx, SCSI_PERSISTENT_RESERVE_CLEAR, 0, key, 0);

    iscsi_destroy_context(ctx);
    return good;
}

#endif
