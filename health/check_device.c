/* SPDX-License-Identifier: BSD-3-Clause */
/* The devices themselves: are they the LUNs they should be, and can they do
 * what detour will ask?  A device may hang, so that it is a child process
 * that looks at it, which is left to the kernel when it does. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "health/check.h"
#include "lun/device.h"
#include "lun/dm.h"
#include "lun/key.h"
#include "lun/pr_block.h"
#include "lun/sysfs.h"

#define DEVICE_TIMEOUT_MS 5000

/* What the child found out, step by step; small enough for one write. */
struct found {
    bool queues; /* the map's table has queue_if_no_path */
    int open_error;
    bool file, readonly, multipath;
    char name[SYSFS_NAME_MAX], holder[SYSFS_NAME_MAX], id[LUN_ID_MAX];
    uint64_t size;
    int pr_error;
    size_t paths;    /* 0: none below it */
    bool wrong_type; /* reserved, in a way that is not ours */
    uint64_t foreign_key;
};

/* ---- in the child -------------------------------------------------------- */

/* Without opening it: that may hang already. */
static void
look_at_map(struct found *d, const char *path)
{
    struct dm_map map;
    struct stat st;

    /* not as it was configured: what the kernel does now */
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode) &&
        sysfs_name(st.st_rdev, d->name) == 0 && dm_read(st.st_rdev, &map) == 0)
        d->queues = map.queues;
}

/* What takes a path of a map for the LUN: "dm-3". */
static void
look_for_map(struct found *d)
{
    char maps[64][SYSFS_NAME_MAX], slaves[LUN_PATH_MAX][SYSFS_NAME_MAX];
    size_t n = 0;

    for (unsigned i = 0; i < 64; i++) {
        snprintf(maps[i], sizeof maps[i], "dm-%u", i);
        n = sysfs_slaves(maps[i], slaves, LUN_PATH_MAX);
        for (size_t j = 0; j < n && j < LUN_PATH_MAX; j++)
            if (strcmp(slaves[j], d->name) == 0)
                memcpy(d->holder, maps[i], sizeof d->holder);
    }
}

static void
look_at_reservation(struct found *d, int fd, unsigned cluster)
{
    static struct pr_block_state s;
    struct key key;

    d->pr_error = pr_block_read_keys(fd, &s);
    if (d->pr_error == 0)
        d->pr_error = pr_block_read_reservation(fd, &s);
    if (d->pr_error)
        return;
    d->wrong_type = s.reserved && !s.usable_type;
    for (size_t i = 0; i < s.nkeys; i++)
        if (!key_unpack(s.keys[i], &key) || key.cluster != cluster)
            d->foreign_key = s.keys[i];
}

static void
look(int to, const struct config_lun *l, unsigned cluster)
{
    struct found d = {.queues = false};
    struct device *device;
    ssize_t n;

    look_at_map(&d, l->device);
    n = write(to, &d, sizeof d); /* it was seen, whatever comes now */
    device = device_open(l->device, true);
    if (!device)
        d.open_error = -errno;
    else {
        d.file = device->file;
        d.multipath = device->multipath;
        d.size = device->size;
        d.paths = device_count_paths(device);
        memcpy(d.name, device->name, sizeof d.name);
        memcpy(d.id, device->id, sizeof d.id);
        if (!d.file && !d.multipath)
            look_for_map(&d);
        if (!d.file && l->fence == CONFIG_FENCE_PR)
            look_at_reservation(&d, device->fd, cluster);
    }
    if (n == (ssize_t)sizeof d)
        n = write(to, &d, sizeof d);
    _exit(n == (ssize_t)sizeof d ? 0 : 1);
}

/* ---- its parent ---------------------------------------------------------- */

/* Returns how many times the child told something: 2 is all, with 1 it hangs
 * or has died. */
static int
listen_to(int fd, struct found *d)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int told = 0;

    while (told < 2 && poll(&p, 1, DEVICE_TIMEOUT_MS) > 0 &&
           read(fd, d, sizeof *d) == (ssize_t)sizeof *d)
        told++;
    return told;
}

static int
look_in_child(const struct config_lun *l, unsigned cluster, struct found *d)
{
    int fds[2], told = -1;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    pid = fork();
    if (pid == 0)
        look(fds[1], l, cluster);
    close(fds[1]);
    if (pid > 0) {
        told = listen_to(fds[0], d);
        kill(pid, SIGKILL);
        /* not for one that hangs in the kernel */
        waitpid(pid, NULL, told == 2 ? 0 : WNOHANG);
    }
    close(fds[0]);
    return told;
}

static void
judge_reservation(struct check *k, const struct config_lun *l,
                  const struct found *d)
{
    if (d->pr_error == -EOPNOTSUPP || d->pr_error == -ENOTTY)
        check_add(k, CHECK_PROBLEM, l->name,
                  "allow them in the array, or set fence = drain on all hosts",
                  "fence = pr, but the target of %s refuses persistent "
                  "reservations",
                  l->device);
    else if (d->pr_error == -EPERM || d->pr_error == -EACCES)
        check_add(k, CHECK_WARNING, l->name, "run the check as root",
                  "reservations cannot be looked at");
    else if (d->pr_error)
        check_add(k, CHECK_PROBLEM, l->name, "look at the paths and the array",
                  "reservations of %s cannot be read: %s", l->device,
                  strerror(-d->pr_error));
    else if (d->wrong_type)
        check_add(k, CHECK_PROBLEM, l->name,
                  "find out whose it is; sg_persist --clear removes it",
                  "%s carries a reservation of a type that detour cannot "
                  "use",
                  l->device);
    else if (d->foreign_key)
        check_add(k, CHECK_PROBLEM, l->name,
                  "find out who else uses reservations there, multipathd "
                  "perhaps, or another cluster",
                  "a key that is not of this cluster is registered on %s: "
                  "%016llx",
                  l->device, (unsigned long long)d->foreign_key);
}

static void
judge_fence(struct check *k, const struct config_lun *l, const struct found *d)
{
    if (l->fence == CONFIG_FENCE_DRAIN)
        return;
    if (d->file)
        check_add(k, CHECK_PROBLEM, l->name, "set fence = drain on all hosts",
                  "fence = pr, but %s is a file: it cannot be reserved",
                  l->device);
    else
        judge_reservation(k, l, d);
}

static void
judge_device(struct check *k, struct check_lun *lun, const struct found *d)
{
    const struct config_lun *l = lun->config;

    if (d->open_error) {
        check_add(k, CHECK_PROBLEM, l->name,
                  "correct device, or bring the device up", "%s: %s", l->device,
                  strerror(-d->open_error));
        return;
    }
    memcpy(lun->id, d->id, sizeof lun->id);
    lun->size = d->size;
    if (l->wwid && strcmp(l->wwid, d->id) != 0)
        check_add(k, CHECK_PROBLEM, l->name,
                  "correct device or wwid; detour refuses to use it",
                  "%s is %s, and wwid wants %s", l->device, d->id, l->wwid);
    if (d->holder[0])
        check_add(k, CHECK_PROBLEM, l->name, "name the map as device",
                  "%s is only one path of the multipath map %s", l->device,
                  d->holder);
    if (d->paths > LUN_PATH_MAX)
        check_add(k, CHECK_PROBLEM, l->name,
                  "take some away, in the zoning or at the array",
                  "%s has %zu paths, at most %d can be used: detour refuses "
                  "to use it",
                  l->device, d->paths, LUN_PATH_MAX);
    judge_fence(k, l, d);
}

/* Two names for one LUN would be fenced as if they were two. */
static void
check_twins(struct check *k)
{
    for (size_t i = 0; i < k->nluns; i++)
        for (size_t j = 0; j < i; j++)
            if (k->luns[i].id[0] && strcmp(k->luns[i].id, k->luns[j].id) == 0)
                check_add(k, CHECK_PROBLEM, k->luns[i].config->name,
                          "remove one of the two sections",
                          "it is the same LUN as %s: %s",
                          k->luns[j].config->name, k->luns[i].id);
}

void
check_devices(struct check *k)
{
    for (size_t i = 0; i < k->nluns; i++) {
        const struct config_lun *l = k->luns[i].config;
        struct found d = {.queues = false};
        int told;

        if (l->device[0] != '/')
            continue; /* iscsi: those who are logged in tell */
        told = look_in_child(l, k->config->cluster_number, &d);
        if (d.queues)
            check_add(
                k, CHECK_PROBLEM, l->name,
                "no_path_retry fail in multipath.conf; for now: "
                "multipathd disablequeueing map NAME",
                "the kernel's map of %s has queue_if_no_path now: "
                "without paths I/O waits in it until detour has it failed",
                l->device);
        if (told == 2)
            judge_device(k, &k->luns[i], &d);
        else
            check_add(k, CHECK_PROBLEM, l->name,
                      "look at its paths: multipath -ll, dmesg",
                      "%s does not answer within %d s", l->device,
                      DEVICE_TIMEOUT_MS / 1000);
    }
    check_twins(k);
}
