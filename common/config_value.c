/* SPDX-License-Identifier: BSD-3-Clause */
/* Parses each kind of value that a configuration file holds. */
#include "common/config_value.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/iscsi_url.h"

/* The letters and digits of ASCII, whatever the locale says. */
static bool
is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9');
}

bool
config_value_is_name(const char *name)
{
    size_t len = strlen(name);

    if (len > CONFIG_NAME_MAX || !is_alnum(name[0]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_alnum(name[i]) && !strchr("._-", name[i]))
            return false;
    return true;
}

static void *
field(const struct config_key *k, void *object)
{
    return (char *)object + k->offset;
}

static void
keep(struct config_draft *d, const struct config_entry *e, char **kept)
{
    free(*kept); /* a default, or a doubled key, which was told */
    *kept = strdup(e->value);
    if (!*kept)
        d->f->error = -ENOMEM;
}

/* ---- text ---------------------------------------------------------------- */

void
config_value_word(struct config_draft *d, const struct config_entry *e,
                  const struct config_key *k, void *object)
{
    for (const char *c = e->value; *c; c++)
        if (isspace((unsigned char)*c) || iscntrl((unsigned char)*c)) {
            config_file_mistake(d->f, e->line, "%s: one word expected", e->key);
            return;
        }
    keep(d, e, field(k, object));
}

void
config_value_path(struct config_draft *d, const struct config_entry *e,
                  const struct config_key *k, void *object)
{
    if (e->value[0] != '/') {
        config_file_mistake(d->f, e->line,
                            "%s: '%s' must be a full path, from '/' on", e->key,
                            e->value);
        return;
    }
    keep(d, e, field(k, object));
}

void
config_value_device(struct config_draft *d, const struct config_entry *e,
                    const struct config_key *k, void *object)
{
    struct iscsi_url_parts parts;
    char why[256];

    if (e->value[0] != '/' && strncmp(e->value, "iscsi://", 8) != 0) {
        config_file_mistake(d->f, e->line,
                            "%s: '%s' is neither /dev/..., /path/to/file nor "
                            "iscsi://PORTAL[,PORTAL...]/IQN/LUN",
                            e->key, e->value);
        return;
    }
    if (e->value[0] != '/' &&
        iscsi_url_parse(e->value, &parts, why, sizeof why) < 0) {
        config_file_mistake(d->f, e->line, "%s: %s", e->key, why);
        return;
    }
    keep(d, e, field(k, object));
}

void
config_value_initiator(struct config_draft *d, const struct config_entry *e,
                       const struct config_key *k, void *object)
{
    const char *v = e->value;

    if (strncmp(v, "iqn.", 4) && strncmp(v, "eui.", 4) &&
        strncmp(v, "naa.", 4)) {
        config_file_mistake(d->f, e->line,
                            "%s: '%s' is no iSCSI name: iqn., eui. or naa. "
                            "begins one",
                            e->key, v);
        return;
    }
    config_value_word(d, e, k, object);
}

/* ---- numbers ---------------------------------------------------------------
 */

/* Digits, then unit; false: something else, or more than 32 bits hold. */
static bool
parse_number(const char *text, uint32_t *n, const char **unit)
{
    uint64_t value = 0;
    const char *c = text;

    for (; *c >= '0' && *c <= '9'; c++) {
        value = value * 10 + (uint64_t)(*c - '0');
        if (value > UINT32_MAX)
            return false;
    }
    *n = (uint32_t)value;
    *unit = c;
    return c > text;
}

static bool
read_number(struct config_draft *d, const struct config_entry *e,
            const struct config_key *k, unsigned *n)
{
    const char *unit;
    uint32_t value;

    if (!parse_number(e->value, &value, &unit) || *unit || value < k->min ||
        value > k->max) {
        config_file_mistake(d->f, e->line,
                            "%s: '%s' is not a number from %u to %u", e->key,
                            e->value, k->min, k->max);
        return false;
    }
    *n = value;
    return true;
}

void
config_value_number(struct config_draft *d, const struct config_entry *e,
                    const struct config_key *k, void *object)
{
    read_number(d, e, k, field(k, object));
}

void
config_value_port(struct config_draft *d, const struct config_entry *e,
                  const struct config_key *k, void *object)
{
    uint16_t *port = field(k, object);
    unsigned n;

    if (read_number(d, e, k, &n))
        *port = (uint16_t)n;
}

/* What one of the unit is in milliseconds; 0: no unit. */
static unsigned
unit_ms(const char *unit)
{
    if (strcmp(unit, "ms") == 0)
        return 1;
    if (strcmp(unit, "s") == 0)
        return 1000;
    if (strcmp(unit, "m") == 0)
        return 60000;
    return 0;
}

void
config_value_time(struct config_draft *d, const struct config_entry *e,
                  const struct config_key *k, void *object)
{
    unsigned *ms = field(k, object);
    const char *unit;
    uint32_t value;
    uint64_t total;

    if (!parse_number(e->value, &value, &unit) ||
        (!unit_ms(unit) && (*unit || value))) { /* "0" needs none */
        config_file_mistake(d->f, e->line,
                            "%s: '%s' is not a time such as 750ms, 10s or 5m",
                            e->key, e->value);
        return;
    }
    total = (uint64_t)value * unit_ms(unit);
    if (total < k->min || total > k->max) {
        config_file_mistake(d->f, e->line,
                            "%s: '%s' is not between %ums and %um", e->key,
                            e->value, k->min, k->max / 60000);
        return;
    }
    *ms = (unsigned)total;
}

/* ---- choices ---------------------------------------------------------------
 */

void
config_value_bool(struct config_draft *d, const struct config_entry *e,
                  const struct config_key *k, void *object)
{
    static const char *const words[] = {"no",  "yes", "false", "true",
                                        "off", "on",  "0",     "1"};
    bool *b = field(k, object);

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (strcmp(e->value, words[i]) == 0) {
            *b = i % 2;
            return;
        }
    config_file_mistake(d->f, e->line, "%s: '%s' is neither yes nor no", e->key,
                        e->value);
}

void
config_value_fence(struct config_draft *d, const struct config_entry *e,
                   const struct config_key *k, void *object)
{
    enum config_fence *fence = field(k, object);

    if (strcmp(e->value, "pr") == 0)
        *fence = CONFIG_FENCE_PR;
    else if (strcmp(e->value, "drain") == 0)
        *fence = CONFIG_FENCE_DRAIN;
    else
        config_file_mistake(d->f, e->line, "%s: '%s' is neither pr nor drain",
                            e->key, e->value);
}

/* ---- hosts -----------------------------------------------------------------
 */

/* Find the host that word names, and tell if there is none. */
static const struct config_host *
known_host(struct config_draft *d, const struct config_entry *e,
           const char *word)
{
    const struct config_host *h = config_host(d->c, word);

    if (!h)
        config_file_mistake(d->f, e->line, "%s: there is no [host %s]", e->key,
                            word);
    return h;
}

void
config_value_self(struct config_draft *d, const struct config_entry *e,
                  const struct config_key *k, void *object)
{
    struct config *c = object;

    (void)k;
    c->self = known_host(d, e, e->value);
}

typedef void each_word(struct config_draft *d, const struct config_entry *e,
                       void *object, const char *word);

/* Call fn for each of the words between commas. */
static void
for_each_word(struct config_draft *d, const struct config_entry *e,
              void *object, each_word *fn)
{
    char *copy = strdup(e->value);
    char *rest = copy;

    if (!copy)
        d->f->error = -ENOMEM;
    while (rest && !d->f->error) {
        char *word = strsep(&rest, ",");
        size_t len;

        word += strspn(word, " \t");
        len = strlen(word);
        while (len > 0 && isspace((unsigned char)word[len - 1]))
            word[--len] = '\0';
        if (len > 0)
            fn(d, e, object, word);
        else
            config_file_mistake(d->f, e->line,
                                "%s: nothing between two commas, or after the "
                                "last one",
                                e->key);
    }
    free(copy);
}

/* Kept in the one form that inet_ntop gives, so that two can be compared. */
static void
add_address(struct config_draft *d, const struct config_entry *e, void *object,
            const char *word)
{
    struct config_host *h = object;
    char **grown;
    int family = strchr(word, ':') ? AF_INET6 : AF_INET;
    char binary[sizeof(struct in6_addr)], text[INET6_ADDRSTRLEN];

    if (inet_pton(family, word, binary) != 1 ||
        !inet_ntop(family, binary, text, sizeof(text))) {
        config_file_mistake(d->f, e->line,
                            "%s: '%s' is no IPv4 or IPv6 address (names are "
                            "not looked up)",
                            e->key, word);
        return;
    }
    for (size_t i = 0; i < h->naddresses; i++)
        if (strcmp(h->addresses[i], text) == 0) {
            config_file_mistake(d->f, e->line, "%s: names %s a second time",
                                e->key, text);
            return;
        }
    grown = reallocarray(h->addresses, h->naddresses + 1, sizeof(*grown));
    if (grown)
        h->addresses = grown;
    if (!grown || !(grown[h->naddresses] = strdup(text)))
        d->f->error = -ENOMEM;
    else
        h->naddresses++;
}

void
config_value_addresses(struct config_draft *d, const struct config_entry *e,
                       const struct config_key *k, void *object)
{
    (void)k;
    for_each_word(d, e, object, add_address);
}

static void
add_host(struct config_draft *d, const struct config_entry *e, void *object,
         const char *word)
{
    struct config_lun *l = object;
    const struct config_host *h = known_host(d, e, word);
    const struct config_host **grown;

    if (!h)
        return;
    if (config_lun_has(l, h)) {
        config_file_mistake(d->f, e->line, "%s: names '%s' twice", e->key,
                            word);
        return;
    }
    grown = reallocarray(l->hosts, l->nhosts + 1, sizeof(*grown));
    if (!grown) {
        d->f->error = -ENOMEM;
        return;
    }
    grown[l->nhosts++] = h;
    l->hosts = grown;
}

void
config_value_hosts(struct config_draft *d, const struct config_entry *e,
                   const struct config_key *k, void *object)
{
    (void)k;
    for_each_word(d, e, object, add_host);
}
