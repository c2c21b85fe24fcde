/* SPDX-License-Identifier: BSD-3-Clause */
/* What the configuration says although it has no mistakes: times, names,
 * folders, addresses. */
#include <arpa/inet.h>
#include <errno.h>
#include <fnmatch.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "health/check.h"

/* ---- times --------------------------------------------------------------- */

/* From the last path's death to the second peer's answer, the first one
 * having swallowed the question; common/timers.h tells the terms. */
static unsigned
longest_switch_ms(const struct config_timers *t)
{
    unsigned lost = t->probe_interval + t->probe_timeout;

    if (t->io_timeout > lost)
        lost = t->io_timeout;
    return lost + 2 * t->open_timeout;
}

void
check_timers(struct check *k)
{
    for (size_t i = 0; i < k->nluns; i++) {
        const struct config_lun *l = k->luns[i].config;
        unsigned ms = longest_switch_ms(&l->timers);

        if (ms > CHECK_GUEST_MS)
            check_add(k, CHECK_PROBLEM, l->name,
                      "lower open_timeout, io_timeout or probe_timeout; the "
                      "defaults make 11 s",
                      "the way to a second peer may take %u s, longer than "
                      "the 30 s after which a Linux guest fails its disk",
                      ms / 1000);
        if (l->timers.link_timeout > CHECK_GUEST_MS)
            check_add(k, CHECK_PROBLEM, l->name, "lower link_timeout",
                      "a dead peer is noticed after %u s, when a Linux guest "
                      "has failed its disk already",
                      l->timers.link_timeout / 1000);
        if (l->timers.queue_limit && l->timers.queue_limit < CHECK_GUEST_MS)
            check_add(k, CHECK_WARNING, l->name,
                      "set queue_limit to 0 (never), or above 30s",
                      "guests get I/O errors after %u ms without a route, "
                      "earlier than they would give up themselves",
                      l->timers.queue_limit);
    }
    if (k->config->health.redirect_alarm == 0)
        check_add(k, CHECK_NOTE, "health", "set redirect_alarm",
                  "redirect_alarm is 0: a detour that lasts for weeks never "
                  "fails /health");
}

/* ---- names and hosts ----------------------------------------------------- */

/* Kernel names are given in the order of discovery. */
static bool
may_change_name(const char *device)
{
    static const char *const names[] = {"/dev/sd[a-z]*", "/dev/dm-[0-9]*",
                                        "/dev/nvme[0-9]*", "/dev/vd[a-z]*"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (fnmatch(names[i], device, 0) == 0)
            return true;
    return false;
}

static void
check_lun_layout(struct check *k, const struct config_lun *l)
{
    if (may_change_name(l->device) && !l->wwid)
        check_add(k, CHECK_WARNING, l->name,
                  "name it /dev/mapper/... or /dev/disk/by-id/..., and set "
                  "wwid",
                  "%s may be another disk after the next boot", l->device);
    if (l->nhosts < 2)
        check_add(k, CHECK_WARNING, l->name,
                  "name the hosts that share it in hosts",
                  "this host is its only one: nobody can serve it when the "
                  "paths are gone");
    else if (l->standby_peers == 0)
        check_add(k, CHECK_WARNING, l->name, "set standby_peers to 1 or more",
                  "no connection to a peer is kept ready: a switch must "
                  "connect first");
}

/* ---- folders and addresses ----------------------------------------------- */

static void
check_folder(struct check *k, const char *key, const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        check_add(k, CHECK_PROBLEM, key,
                  "make it; the packaged units and tmpfiles do", "%s: %s", path,
                  strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        check_add(k, CHECK_PROBLEM, key, "name a folder", "%s is no folder",
                  path);
    else if (st.st_mode & S_IWOTH)
        check_add(k, CHECK_PROBLEM, key, "chmod o-w",
                  "%s: everybody may write there", path);
}

/* Only an address of our own can be bound. */
static bool
is_ours(const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    bool v6 = inet_pton(AF_INET6, address, &in6.sin6_addr) == 1;
    int fd, err = 0;

    if (!v6 && inet_pton(AF_INET, address, &in.sin_addr) != 1)
        return true;
    fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno != EAFNOSUPPORT;
    if (bind(fd, v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in,
             v6 ? sizeof in6 : sizeof in) < 0)
        err = errno;
    close(fd);
    return err != EADDRNOTAVAIL;
}

void
check_layout(struct check *k)
{
    const struct config *c = k->config;

    check_folder(k, "rundir", c->rundir);
    check_folder(k, "statedir", c->statedir);
    for (size_t i = 0; i < c->self->naddresses; i++)
        if (!is_ours(c->self->addresses[i]))
            check_add(k, CHECK_PROBLEM, c->self->name,
                      "correct host in [self], or the address in its [host] "
                      "section",
                      "this host has not its address %s",
                      c->self->addresses[i]);
    if (k->nluns == 0)
        check_add(k, CHECK_WARNING, "luns", "add it to hosts of a [lun]",
                  "%s is no member of any LUN", c->self->name);
    for (size_t i = 0; i < k->nluns; i++)
        check_lun_layout(k, k->luns[i].config);
}
