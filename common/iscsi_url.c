/* SPDX-License-Identifier: BSD-3-Clause */
/* Parser of the iscsi:// device string. */
#include "common/iscsi_url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SCHEME "iscsi://"

static int __attribute__((format(printf, 3, 4)))
fail(char *err, size_t errlen, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, errlen, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* A decimal number up to max that fills len bytes; -1 when it is none. */
static long
number(const char *s, size_t len, long max)
{
    long n = 0;

    if (len == 0)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)s[i]))
            return -1;
        n = n * 10 + (s[i] - '0');
        if (n > max)
            return -1;
    }
    return n;
}

/* Splits ADDR[:PORT] or [V6][:PORT]; *port points behind the colon, or is
 * NULL.  Returns the family, or 0. */
static int
split_portal(const char *s, size_t len, const char **addr, size_t *addrlen,
             const char **port)
{
    const char *end = s + len;
    const char *stop;

    *port = NULL;
    if (len > 0 && s[0] == '[') {
        stop = memchr(s, ']', len);
        if (!stop)
            return 0;
        *addr = s + 1;
        *addrlen = (size_t)(stop - *addr);
        if (++stop == end)
            return AF_INET6;
        if (*stop != ':')
            return 0;
        *port = stop + 1;
        return AF_INET6;
    }
    stop = memchr(s, ':', len);
    *addr = s;
    *addrlen = stop ? (size_t)(stop - s) : len;
    if (stop)
        *port = stop + 1;
    return AF_INET;
}

static int
parse_portal(const char *s, size_t len, char portal[ISCSI_URL_PORTAL_MAX])
{
    unsigned char binary[sizeof(struct in6_addr)];
    char literal[INET6_ADDRSTRLEN];
    const char *addr;
    const char *port;
    size_t addrlen;
    long n = ISCSI_URL_PORT;
    int family = split_portal(s, len, &addr, &addrlen, &port);

    if (family == 0 || addrlen == 0 || addrlen >= sizeof(literal))
        return -EINVAL;
    memcpy(literal, addr, addrlen);
    literal[addrlen] = '\0';
    if (inet_pton(family, literal, binary) != 1)
        return -EINVAL;
    /* One spelling for each address, so that doubles are seen. */
    inet_ntop(family, binary, literal, sizeof(literal));
    if (port)
        n = number(port, (size_t)(s + len - port), 65535);
    if (n < 1)
        return -EINVAL;
    snprintf(portal, ISCSI_URL_PORTAL_MAX,
             family == AF_INET6 ? "[%s]:%ld" : "%s:%ld", literal, n);
    return 0;
}

static int
parse_portals(const char *s, size_t len, struct iscsi_url_parts *parts,
              char *err, size_t errlen)
{
    const char *end = s + len;

    parts->nportals = 0;
    for (;;) {
        const char *comma = memchr(s, ',', (size_t)(end - s));
        size_t n = (size_t)((comma ? comma : end) - s);
        char *portal = parts->portals[parts->nportals];

        if (parts->nportals == ISCSI_URL_PORTALS_MAX)
            return fail(err, errlen, "more than %d portals",
                        ISCSI_URL_PORTALS_MAX);
        if (parse_portal(s, n, portal) < 0)
            return fail(err, errlen,
                        "portal '%.*s' is not ADDRESS[:PORT] or "
                        "[ADDRESS]:PORT with an IP address",
                        (int)n, s);
        for (size_t i = 0; i < parts->nportals; i++)
            if (strcmp(parts->portals[i], portal) == 0)
                return fail(err, errlen, "portal %s is named twice", portal);
        parts->nportals++;
        if (!comma)
            return 0;
        s = comma + 1;
    }
}

/* RFC 7143 4.2.7.1: no white space, no control characters, ASCII letters in
 * lower case; iqn., eui. and naa. are the types there are. */
static int
parse_target(const char *s, size_t len, struct iscsi_url_parts *parts,
             char *err, size_t errlen)
{
    if (len >= sizeof(parts->target))
        return fail(err, errlen, "the target's name is longer than %d bytes",
                    ISCSI_URL_NAME_MAX - 1);
    if (len < 5 || (strncmp(s, "iqn.", 4) != 0 && strncmp(s, "eui.", 4) != 0 &&
                    strncmp(s, "naa.", 4) != 0))
        return fail(err, errlen,
                    "target '%.*s' does not begin with iqn., eui. or naa.",
                    (int)len, s);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] <= ' ' || s[i] == 0x7F)
            return fail(err, errlen, "the target's name holds white space");
    memcpy(parts->target, s, len);
    parts->target[len] = '\0';
    return 0;
}

int
iscsi_url_parse(const char *text, struct iscsi_url_parts *parts, char *err,
                size_t errlen)
{
    const char *portals;
    const char *target;
    const char *lun;
    long n;
    int r;

    if (strncmp(text, SCHEME, strlen(SCHEME)) != 0)
        return fail(err, errlen, "does not begin with " SCHEME);
    portals = text + strlen(SCHEME);
    target = strchr(portals, '/');
    lun = strrchr(portals, '/');
    if (!target || target == lun)
        return fail(err, errlen, "is not " SCHEME "PORTAL[,PORTAL...]/IQN/LUN");
    target++;
    if (memchr(target, '/', (size_t)(lun - target)))
        return fail(err, errlen, "has more than three parts");
    r = parse_portals(portals, (size_t)(target - 1 - portals), parts, err,
                      errlen);
    if (r < 0)
        return r;
    r = parse_target(target, (size_t)(lun - target), parts, err, errlen);
    if (r < 0)
        return r;
    n = number(lun + 1, strlen(lun + 1), 16383);
    if (n < 0)
        return fail(err, errlen, "LUN '%s' is not a number from 0 to 16383",
                    lun + 1);
    parts->lun = (uint16_t)n;
    return 0;
}
