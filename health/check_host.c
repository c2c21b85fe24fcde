/* SPDX-License-Identifier: BSD-3-Clause */
/* Settings of the host: sysctls, how long transports wait, nbdkit. */
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "health/check.h"

/* nbdkit before it aborts when a client vanishes amid replies. */
#define NBDKIT_MAJOR 1
#define NBDKIT_MINOR 34

/* The first line, without its end; false: there is no such file. */
static bool
read_line(const char *path, char *to, size_t room)
{
    FILE *f = fopen(path, "re");
    bool got = f && fgets(to, (int)room, f);

    if (f)
        fclose(f);
    if (got)
        to[strcspn(to, "\n")] = '\0';
    return got;
}

/* ---- sysctls ------------------------------------------------------------- */

static const struct sysctl {
    const char *name; /* below /proc/sys */
    const char *bad;
    enum check_level level;
    const char *hurts, *advice;
} sysctls[] = {
    {"kernel/hung_task_panic", "1", CHECK_PROBLEM,
     "a task that waits for a dead path brings the whole host down, with "
     "every VM on it",
     "sysctl kernel.hung_task_panic=0, and in /etc/sysctl.d"},
    {"kernel/io_uring_disabled", "2", CHECK_WARNING,
     "nobody may use io_uring: threads do its work for block devices and "
     "files, at more CPU time for each request",
     "sysctl kernel.io_uring_disabled=1 (or 0), and in /etc/sysctl.d"},
    {"kernel/io_uring_disabled", "1", CHECK_NOTE,
     "only privileged processes may use io_uring: others do its work with "
     "threads, at more CPU time; run detour as root, or name its group in "
     "kernel.io_uring_group",
     ""},
};

static void
check_sysctls(struct check *k)
{
    char path[4096], value[64];

    for (size_t i = 0; i < sizeof sysctls / sizeof sysctls[0]; i++) {
        const struct sysctl *s = &sysctls[i];

        snprintf(path, sizeof path, "%s/proc/sys/%s", k->sysroot, s->name);
        if (read_line(path, value, sizeof value) && strcmp(value, s->bad) == 0)
            check_add(k, s->level, "sysctl", s->advice, "%s is %s: %s", s->name,
                      value, s->hurts);
    }
}

/* ---- transports ---------------------------------------------------------- */

static const struct transport {
    const char *pattern; /* below /sys/class; seconds, or "off" */
    const char *advice;
} transports[] = {
    {"iscsi_session/*/recovery_tmo",
     "set fast_io_fail_tmo in multipath.conf (multipathd hands it on), or "
     "node.session.timeo.replacement_timeout in iscsid.conf"},
    {"fc_remote_ports/*/fast_io_fail_tmo",
     "set fast_io_fail_tmo in multipath.conf"},
    {"nvme/*/fast_io_fail_tmo",
     "nvme connect --fast_io_fail_tmo, or write it to that file"},
};

static void
check_transport(struct check *k, const struct transport *t)
{
    char pattern[4096], value[64];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/sys/class/%s", k->sysroot,
             t->pattern);
    if (glob(pattern, 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *path = found.gl_pathv[i];
        bool never;

        if (!read_line(path, value, sizeof value))
            continue;
        never = strcmp(value, "off") == 0 || value[0] == '-';
        if (never || atoi(value) * 1000L > CHECK_GUEST_MS)
            check_add(k, CHECK_WARNING, "transport", t->advice,
                      "%s is %s: I/O on a dead path waits %s%s, while a Linux "
                      "guest waits 30 s",
                      path + strlen(k->sysroot), value,
                      never ? "for ever" : value, never ? "" : " s");
    }
    globfree(&found);
}

/* ---- nbdkit -------------------------------------------------------------- */

static void
check_nbdkit(struct check *k)
{
    FILE *f = popen("nbdkit --version 2>/dev/null", "re");
    unsigned major = 0, minor = 0;
    int n = f ? fscanf(f, "nbdkit %u.%u", &major, &minor) : 0;

    if (f)
        pclose(f);
    if (n != 2)
        check_add(k, CHECK_WARNING, "nbdkit", "install nbdkit",
                  "there is no nbdkit in PATH: no VM can be served here");
    else if (major < NBDKIT_MAJOR ||
             (major == NBDKIT_MAJOR && minor < NBDKIT_MINOR))
        check_add(k, CHECK_NOTE, "nbdkit", "1.34 or later does not",
                  "version %u.%u aborts when a client vanishes amid replies: "
                  "with one nbdkit for each VM nobody else is hurt",
                  major, minor);
}

void
check_host(struct check *k)
{
    bool kernel = false;

    for (size_t i = 0; i < k->nluns; i++)
        kernel |= check_kernel_device(k->luns[i].config);
    check_sysctls(k);
    for (size_t i = 0; kernel && i < sizeof transports / sizeof transports[0];
         i++)
        check_transport(k, &transports[i]);
    check_nbdkit(k);
}
