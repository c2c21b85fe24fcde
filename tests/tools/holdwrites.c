/* SPDX-License-Identifier: BSD-3-Clause */
/* A library that is preloaded into tgtd and makes chosen commands late.
 *
 *   HOLD_DIR=DIR LD_PRELOAD=holdwrites.so tgtd ...
 *
 * Orders are lines written into the FIFO DIR/orders:
 *
 *   hold NAME at=request|medium [op=write|register] [from=ADDR[,ADDR]]
 *        [to=ADDR] [offset=BYTES count=BYTES] [max=N]
 *   release NAME
 *
 * at=request  The command waits in the socket's buffer, and with it all that
 *             its initiator sent behind it on this connection: it has reached
 *             the target's machine, but the target has not looked at it, so
 *             that it has not been checked against reservations.  It is seen
 *             by a look ahead before tgtd reads the header.
 * at=medium   tgtd is carrying it out: it passed all checks and waits right
 *             before the data would change.  A target answers no LUN RESET
 *             before such a command has ended, and tgtd keeps to this.
 *             op, from and to mean nothing here; a trim counts as a write.
 *
 * A command matches when its range overlaps offset and count; max is how many
 * are held in all (default: no limit).  What happens is told in DIR/events:
 *
 *   ready NAME | held NAME ... | passed NAME ... | released NAME
 *   landed write|trim OFFSET COUNT BYTE     (BYTE: the first one, hex)
 *
 * Threads: tgtd's main thread reads sockets and changes its epoll set, its
 * worker threads write; one of our own reads the orders.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define BLOCK      512 /* of the LUN */
#define HEADER     48  /* of an iSCSI PDU: RFC 7143, 11.2.1 */
#define RULES_MAX  16
#define SOCKET_MAX 1024
#define NAME_MAX_  32
#define TEXT_MAX   256

enum point {
    AT_REQUEST,
    AT_MEDIUM
};

enum op {
    OP_OTHER,
    OP_WRITE,
    OP_REGISTER
};

struct rule {
    char name[NAME_MAX_]; /* "": free */
    enum point point;
    enum op op;
    char from[TEXT_MAX]; /* ",ADDR,ADDR," or "" for any */
    char to[TEXT_MAX];
    uint64_t offset, count; /* count 0: any */
    unsigned left;
};

/* A socket that tgtd polls. */
struct polled {
    bool known;
    int epoll;
    struct epoll_event event; /* what tgtd wants */
    char holder[NAME_MAX_];   /* "": it is not held */
    char what[TEXT_MAX];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
/* guarded by lock */
static struct rule rules[RULES_MAX];
static struct polled polled[SOCKET_MAX];
/* fixed after start */
static int events = -1;
static char orders_path[512];

static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fallocate)(int, int, off_t, off_t);
static int (*real_epoll_ctl)(int, int, int, struct epoll_event *);

static void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void
tell(const char *fmt, ...)
{
    char line[2 * TEXT_MAX];
    va_list ap;
    int n;

    if (events < 0)
        return;
    va_start(ap, fmt);
    n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof line - 1)
        n = sizeof line - 2;
    line[n++] = '\n';
    if (write(events, line, (size_t)n) != n)
        abort(); /* the test would wait for ever */
}

/* ---- rules -------------------------------------------------------------- */

static struct rule *
find_rule_locked(const char *name)
{
    for (size_t i = 0; i < RULES_MAX; i++)
        if (strcmp(rules[i].name, name) == 0)
            return &rules[i];
    return NULL;
}

static bool
overlaps(const struct rule *r, uint64_t offset, uint64_t count)
{
    return r->count == 0 ||
           (offset < r->offset + r->count && r->offset < offset + count);
}

static bool
listed(const char *list, const char *address)
{
    char key[INET_ADDRSTRLEN + 2];

    snprintf(key, sizeof key, ",%s,", address);
    return list[0] == '\0' || strstr(list, key) != NULL;
}

/* ---- in the socket ------------------------------------------------------ */

struct command {
    enum op op;
    uint64_t offset, count; /* bytes */
    char from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN];
};

static uint64_t
big_endian(const unsigned char *p, size_t n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | *p++;
    return v;
}

/* RFC 7143, 11.3: opcode 1 is a SCSI command, its CDB begins at 32. */
static void
parse(const unsigned char *pdu, struct command *c)
{
    const unsigned char *cdb = pdu + 32;

    c->op = OP_OTHER;
    if ((pdu[0] & 0x3f) != 0x01)
        return;
    switch (cdb[0]) {
    case 0x2a: /* WRITE(10) */
        c->op = OP_WRITE;
        c->offset = big_endian(cdb + 2, 4) * BLOCK;
        c->count = big_endian(cdb + 7, 2) * BLOCK;
        break;
    case 0x8a: /* WRITE(16) */
        c->op = OP_WRITE;
        c->offset = big_endian(cdb + 2, 8) * BLOCK;
        c->count = big_endian(cdb + 10, 4) * BLOCK;
        break;
    case 0x5f: /* PERSISTENT RESERVE OUT */
        if ((cdb[1] & 0x1f) == 0)
            c->op = OP_REGISTER;
        break;
    }
}

static bool
address_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *), char *text)
{
    struct sockaddr_in sin;
    socklen_t len = sizeof sin;

    return get(fd, (struct sockaddr *)&sin, &len) == 0 &&
           sin.sin_family == AF_INET &&
           inet_ntop(AF_INET, &sin.sin_addr, text, INET_ADDRSTRLEN);
}

static bool
peek(int fd, struct command *c)
{
    unsigned char pdu[HEADER];

    if (recv(fd, pdu, sizeof pdu, MSG_PEEK | MSG_DONTWAIT) != HEADER)
        return false;
    parse(pdu, c);
    return c->op != OP_OTHER && address_of(fd, getpeername, c->from) &&
           address_of(fd, getsockname, c->to);
}

static struct rule *
match_request_locked(const struct command *c)
{
    for (size_t i = 0; i < RULES_MAX; i++) {
        struct rule *r = &rules[i];

        if (r->name[0] == '\0' || r->point != AT_REQUEST || r->left == 0 ||
            r->op != c->op || !listed(r->from, c->from) ||
            !listed(r->to, c->to))
            continue;
        if (c->op == OP_WRITE && !overlaps(r, c->offset, c->count))
            continue;
        r->left--;
        return r;
    }
    return NULL;
}

/* tgtd polls a held socket only to send answers that it has: a LUN RESET waits
 * for them. */
static void
poll_held_locked(int fd)
{
    const struct polled *p = &polled[fd];
    struct epoll_event e = p->event;

    e.events &= ~(uint32_t)EPOLLIN;
    real_epoll_ctl(p->epoll, EPOLL_CTL_DEL, fd, NULL);
    if (e.events & EPOLLOUT)
        real_epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &e);
}

static void
hold_socket_locked(int fd, const struct rule *r, const struct command *c)
{
    struct polled *p = &polled[fd];

    poll_held_locked(fd);
    snprintf(p->holder, sizeof p->holder, "%s", r->name);
    snprintf(p->what, sizeof p->what, "%s %llu %llu from %s to %s",
             c->op == OP_WRITE ? "write" : "register",
             (unsigned long long)c->offset, (unsigned long long)c->count,
             c->from, c->to);
    tell("held %s %s", r->name, p->what);
}

ssize_t
read(int fd, void *buf, size_t count)
{
    struct command c = {.op = OP_OTHER};
    bool hold = false;

    if (count == HEADER && fd >= 0 && fd < SOCKET_MAX && peek(fd, &c)) {
        const struct rule *r;

        pthread_mutex_lock(&lock);
        r = polled[fd].known ? match_request_locked(&c) : NULL;
        if (r)
            hold_socket_locked(fd, r, &c);
        hold = r != NULL;
        pthread_mutex_unlock(&lock);
    }
    if (hold) {
        errno = EAGAIN;
        return -1;
    }
    return real_read(fd, buf, count);
}

int
epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    struct polled *p = &polled[fd < 0 || fd >= SOCKET_MAX ? 0 : fd];
    bool held;
    int rc = 0;

    pthread_mutex_lock(&lock);
    held = p->holder[0] != '\0';
    p->known = op != EPOLL_CTL_DEL;
    p->epoll = epfd;
    if (event && p->known)
        p->event = *event;
    if (held && p->known) {
        poll_held_locked(fd);
    } else {
        p->holder[0] = '\0';
        rc = real_epoll_ctl(epfd, op, fd, event);
    }
    if (held)
        rc = 0; /* perhaps it was not polled */
    pthread_mutex_unlock(&lock);
    return rc;
}

static void
release_sockets_locked(const char *name)
{
    for (int fd = 0; fd < SOCKET_MAX; fd++) {
        struct polled *p = &polled[fd];

        if (p->holder[0] == '\0' || strcmp(p->holder, name) != 0)
            continue;
        tell("passed %s %s", name, p->what);
        p->holder[0] = '\0';
        real_epoll_ctl(p->epoll, EPOLL_CTL_DEL, fd, NULL);
        real_epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &p->event);
    }
}

/* ---- at the medium ------------------------------------------------------ */

static void
wait_at_medium(const char *what, uint64_t offset, uint64_t count)
{
    char name[NAME_MAX_] = "";

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < RULES_MAX && name[0] == '\0'; i++) {
        struct rule *r = &rules[i];

        if (r->name[0] == '\0' || r->point != AT_MEDIUM || r->left == 0 ||
            !overlaps(r, offset, count))
            continue;
        r->left--;
        strcpy(name, r->name);
        tell("held %s %s %llu %llu", name, what, (unsigned long long)offset,
             (unsigned long long)count);
    }
    if (name[0] != '\0') {
        while (find_rule_locked(name))
            pthread_cond_wait(&released, &lock);
        tell("passed %s %s %llu %llu", name, what, (unsigned long long)offset,
             (unsigned long long)count);
    }
    pthread_mutex_unlock(&lock);
}

ssize_t
pwrite64(int fd, const void *buf, size_t count, off64_t offset)
{
    ssize_t n;

    wait_at_medium("write", (uint64_t)offset, count);
    n = real_pwrite(fd, buf, count, offset);
    tell("landed write %llu %zu %02x", (unsigned long long)offset, count,
         count > 0 ? *(const unsigned char *)buf : 0);
    return n;
}

int
fallocate(int fd, int mode, off_t offset, off_t count)
{
    int rc;

    wait_at_medium("trim", (uint64_t)offset, (uint64_t)count);
    rc = real_fallocate(fd, mode, offset, count);
    tell("landed trim %llu %llu 00", (unsigned long long)offset,
         (unsigned long long)count);
    return rc;
}

/* ---- orders ------------------------------------------------------------- */

static bool
parse_word(struct rule *r, const char *word)
{
    const char *value = strchr(word, '=');

    if (!value++)
        return false;
    if (strncmp(word, "at=", 3) == 0)
        r->point = strcmp(value, "medium") == 0 ? AT_MEDIUM : AT_REQUEST;
    else if (strncmp(word, "op=", 3) == 0)
        r->op = strcmp(value, "register") == 0 ? OP_REGISTER : OP_WRITE;
    else if (strncmp(word, "from=", 5) == 0)
        snprintf(r->from, sizeof r->from, ",%s,", value);
    else if (strncmp(word, "to=", 3) == 0)
        snprintf(r->to, sizeof r->to, ",%s,", value);
    else if (strncmp(word, "offset=", 7) == 0)
        r->offset = strtoull(value, NULL, 0);
    else if (strncmp(word, "count=", 6) == 0)
        r->count = strtoull(value, NULL, 0);
    else if (strncmp(word, "max=", 4) == 0)
        r->left = (unsigned)strtoul(value, NULL, 0);
    else
        return false;
    return true;
}

static void
order_hold(const char *name, char *words)
{
    struct rule r = {.point = AT_REQUEST, .op = OP_WRITE, .left = ~0u};
    struct rule *place;
    char *rest = NULL;

    snprintf(r.name, sizeof r.name, "%s", name);
    for (char *w = strtok_r(words, " ", &rest); w;
         w = strtok_r(NULL, " ", &rest)) {
        if (!parse_word(&r, w)) {
            tell("wrong order: %s", w);
            return;
        }
    }
    pthread_mutex_lock(&lock);
    place = find_rule_locked(name);
    if (!place)
        place = find_rule_locked("");
    if (place)
        *place = r;
    pthread_mutex_unlock(&lock);
    tell("%s %s", place ? "ready" : "no room for", name);
}

static void
order_release(const char *name)
{
    struct rule *r;

    pthread_mutex_lock(&lock);
    r = find_rule_locked(name);
    if (r && name[0] != '\0')
        r->name[0] = '\0';
    release_sockets_locked(name);
    pthread_cond_broadcast(&released);
    tell("released %s", name);
    pthread_mutex_unlock(&lock);
}

static void *
take_orders(void *opaque)
{
    FILE *f = fopen(orders_path, "r+"); /* writing too: never at its end */
    char line[1024];

    (void)opaque;
    while (f && fgets(line, sizeof line, f)) {
        char *rest = line;
        char *verb;
        char *name;

        line[strcspn(line, "\n")] = '\0';
        verb = strsep(&rest, " ");
        name = strsep(&rest, " ");
        if (name && strcmp(verb, "hold") == 0)
            order_hold(name, rest ? rest : verb + strlen(verb));
        else if (name && strcmp(verb, "release") == 0)
            order_release(name);
        else
            tell("wrong order: %s", verb);
    }
    tell("no more orders");
    return NULL;
}

/* tgtd's workers tell its main thread by SIGUSR2, through a signalfd: it must
 * not find a thread that has not blocked it. */
static bool
start_thread(void)
{
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&thread, NULL, take_orders, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err == 0;
}

static void __attribute__((constructor)) start(void)
{
    const char *dir = getenv("HOLD_DIR");
    char path[512];
    real_read = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    real_pwrite = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(
        RTLD_NEXT, "pwrite64");
    real_fallocate =
        (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT, "fallocate");
    real_epoll_ctl = (int (*)(int, int, int, struct epoll_event *))dlsym(
        RTLD_NEXT, "epoll_ctl");
    if (!dir)
        return;
    snprintf(orders_path, sizeof orders_path, "%s/orders", dir);
    snprintf(path, sizeof path, "%s/events", dir);
    events = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (events < 0 || mkfifo(orders_path, 0600) < 0 || !start_thread()) {
        perror("holdwrites");
        abort();
    }
}
