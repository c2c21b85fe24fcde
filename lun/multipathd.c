/* SPDX-License-Identifier: BSD-3-Clause */
/* multipathd's command socket, never waited for. */
#include "lun/multipathd.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- talking ----------------------------------------------------- */

void
multipathd_init(struct multipathd *m, const char *socket)
{
    *m = (struct multipathd){.fd = -1};
    snprintf(m->socket, sizeof m->socket, "%s",
             socket ? socket : MULTIPATHD_SOCKET);
}

static void
hang_up(struct multipathd *m)
{
    if (m->fd >= 0)
        close(m->fd);
    m->fd = -1;
}

void
multipathd_fini(struct multipathd *m)
{
    hang_up(m);
    free(m->reply);
    m->reply = NULL;
}

/* An abstract name is anybody's when multipathd does not run. */
static int
check_listener(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return -errno;
    return peer.uid == 0 || peer.uid == geteuid() ? 0 : -EPERM;
}

static int
reach(struct multipathd *m)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strnlen(m->socket, sizeof a.sun_path - 1);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);

    memcpy(a.sun_path + 1, m->socket, n);
    m->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* to a Unix socket that is done at once, or not at all */
    if (m->fd < 0 || connect(m->fd, (const struct sockaddr *)&a, len) < 0)
        return -errno;
    return check_listener(m->fd);
}

int
multipathd_ask(struct multipathd *m, const char *command, uint64_t deadline_ms)
{
    size_t len = strlen(command) + 1;
    int err;

    multipathd_fini(m);
    if (len > sizeof m->out - sizeof len)
        return -E2BIG;
    memcpy(m->out, &len, sizeof len);
    memcpy(m->out + sizeof len, command, len);
    m->out_len = sizeof len + len;
    m->out_done = m->in_len = m->in_done = 0;
    m->deadline_ms = deadline_ms;
    err = reach(m);
    if (err)
        hang_up(m);
    return err;
}

int
multipathd_fd(const struct multipathd *m)
{
    return m->fd;
}

short
multipathd_events(const struct multipathd *m)
{
    return m->out_done < m->out_len ? POLLOUT : POLLIN;
}

/* returns: 1 all of it; 0 not yet; -errno */
static int
send_some(struct multipathd *m)
{
    while (m->out_done < m->out_len) {
        ssize_t n = send(m->fd, m->out + m->out_done, m->out_len - m->out_done,
                         MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -ECONNRESET;
        m->out_done += (size_t)n;
    }
    return 1;
}

/* Up to want bytes in all into buf, of which m->in_done are there.
 * returns: as send_some */
static int
read_some(struct multipathd *m, char *buf, size_t want)
{
    while (m->in_done < want) {
        ssize_t n = recv(m->fd, buf + m->in_done, want - m->in_done, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return -ECONNRESET;
        m->in_done += (size_t)n;
    }
    return 1;
}

/* The length's bytes, which are kept where the length is. */
static int
read_length(struct multipathd *m)
{
    int got = read_some(m, (char *)&m->in_len, sizeof m->in_len);

    if (got <= 0)
        return got;
    if (m->in_len == 0 || m->in_len > MULTIPATHD_REPLY_MAX)
        return -EBADMSG;
    m->reply = malloc(m->in_len + 1);
    m->in_done = 0;
    return m->reply ? 1 : -ENOMEM;
}

static int
talk(struct multipathd *m)
{
    int got = send_some(m);

    if (got > 0 && !m->reply)
        got = read_length(m);
    if (got > 0)
        got = read_some(m, m->reply, m->in_len);
    if (got > 0)
        m->reply[m->in_len] = '\0';
    return got;
}

int
multipathd_go_on(struct multipathd *m, uint64_t now_ms)
{
    int got;

    if (m->fd < 0)
        return 0;
    got = talk(m);
    if (got == 0 && now_ms >= m->deadline_ms)
        got = -ETIMEDOUT;
    if (got != 0)
        hang_up(m);
    if (got < 0)
        multipathd_fini(m);
    return got;
}

/* ---- what it says of a map --------------------------------------- */

static void
copy_text(const json_t *o, const char *key, char *to, size_t len)
{
    const char *text = json_string_value(json_object_get(o, key));

    snprintf(to, len, "%s", text ? text : "");
}

static void
add_path(const json_t *path, struct multipathd_map *map)
{
    struct multipathd_path *p = &map->paths[map->npaths];
    json_int_t priority = json_integer_value(json_object_get(path, "pri"));

    if (map->npaths == LUN_PATH_MAX)
        return;
    copy_text(path, "dev", p->name, sizeof p->name);
    copy_text(path, "checker", p->checker, sizeof p->checker);
    copy_text(path, "chk_st", p->state, sizeof p->state);
    p->priority = priority < -1 || priority > 65535 ? -1 : (int)priority;
    map->npaths += p->name[0] != '\0';
}

int
multipathd_parse_map(const char *json, struct multipathd_map *map)
{
    json_t *root = json_loads(json, 0, NULL), *m, *group, *path;
    size_t i, j;

    *map = (struct multipathd_map){.npaths = 0};
    m = json_object_get(root, "map");
    if (!json_is_object(m)) {
        json_decref(root);
        return -EBADMSG;
    }
    copy_text(m, "queueing", map->queueing, sizeof map->queueing);
    json_array_foreach(json_object_get(m, "path_groups"), i, group)
    {
        json_array_foreach(json_object_get(group, "paths"), j, path)
        {
            add_path(path, map);
        }
    }
    json_decref(root);
    return 0;
}
