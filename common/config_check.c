/* SPDX-License-Identifier: BSD-3-Clause */
/* Holds the values of a configuration against each other and the host. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_parts.h"
#include "common/config_value.h"
#include "common/export.h"

/* ---- files --------------------------------------------------------------- */

/* What libiscsi keeps of a secret: MAX_STRING_SIZE in its iscsi.h. */
#define SECRET_MAX 255

/* A secret may be read by a group that was made for it, never by others.
 * Returns whether all is well. */
static bool
check_file(struct config_draft *d, const struct config_section *s,
           const char *key, const char *path, bool secret)
{
    unsigned line = config_file_line(s, key);
    unsigned before = d->f->mistakes;
    struct stat st;

    if (!path)
        return true;
    if (stat(path, &st) < 0 || access(path, R_OK) < 0)
        config_file_mistake(d->f, line, "%s: %s: %s", key, path,
                            strerror(errno));
    else if (!S_ISREG(st.st_mode))
        config_file_mistake(d->f, line, "%s: %s is not a file", key, path);
    else if (secret && (st.st_mode & (S_IRWXO | S_IWGRP)))
        config_file_mistake(d->f, line,
                            "%s: %s is open to others: chmod 0600 or 0640", key,
                            path);
    return d->f->mistakes == before;
}

/* What is not refused here would be refused by the target, with no word of
 * why. */
static void
check_secret(struct config_draft *d, const struct config_section *s,
             const char *path)
{
    static const char key[] = "chap_secret_file";
    char text[SECRET_MAX + 2] = "";
    const char *wrong = NULL;
    size_t len;
    FILE *f;

    if (!path || !check_file(d, s, key, path, true))
        return;
    f = fopen(path, "re");
    if (!f || (!fgets(text, sizeof(text), f) && ferror(f)))
        wrong = strerror(errno);
    len = strcspn(text, "\r\n");
    if (!wrong && len == 0)
        wrong = "the secret is the first line, and the first line is empty";
    else if (!wrong && len > SECRET_MAX)
        wrong = "the secret, its first line, is longer than 255 characters";
    if (wrong)
        config_file_mistake(d->f, config_file_line(s, key), "%s: %s: %s", key,
                            path, wrong);
    explicit_bzero(text, sizeof(text));
    if (f)
        fclose(f);
}

/* ---- hosts -----------------------------------------------------------------
 */

static bool
share_address(const struct config_host *a, const struct config_host *b)
{
    if (a->port != b->port)
        return false;
    for (size_t i = 0; i < a->naddresses; i++)
        for (size_t j = 0; j < b->naddresses; j++)
            if (strcmp(a->addresses[i], b->addresses[j]) == 0)
                return true;
    return false;
}

static void
check_hosts(struct config_draft *d)
{
    const struct config *c = d->c;

    for (size_t i = 0; i < c->nhosts; i++)
        for (size_t j = 0; j < i; j++) {
            const struct config_host *a = &c->hosts[j], *b = &c->hosts[i];
            const struct config_section *s = config_section(d->f, "host", i);

            if (b->number && a->number == b->number)
                config_file_mistake(d->f, config_file_line(s, "number"),
                                    "number: %u is host %s's already",
                                    b->number, a->name);
            if (share_address(a, b))
                config_file_mistake(d->f, config_file_line(s, "address"),
                                    "address: with this port it is host %s's "
                                    "already",
                                    a->name);
        }
}

/* ---- timers ----------------------------------------------------------------
 */

struct rule {
    const char *key; /* the one to change */
    bool kept;
    const char *text;
};

/* The rules of common/timers.h. */
static void
check_timers(struct config_draft *d, const struct config_section *s,
             const struct config_lun *l)
{
    const struct config_timers *t = &l->timers;
    const struct rule rules[] = {
        {"probe_interval", t->probe_interval >= 50,
         "probe_interval must be at least 50ms"},
        {"probe_timeout", t->probe_timeout >= 2 * t->probe_interval,
         "probe_timeout must be at least twice probe_interval"},
        {"io_timeout", t->io_timeout >= t->probe_timeout,
         "io_timeout must be at least probe_timeout"},
        {"link_timeout", t->link_timeout >= 200,
         "link_timeout must be at least 200ms"},
        {"open_timeout", t->open_timeout >= 2 * t->link_timeout,
         "open_timeout must be at least twice link_timeout"},
        {"failback_max", t->failback_max >= t->failback_after,
         "failback_max must be at least failback_after"},
        {"queue_limit",
         t->queue_limit == 0 || t->queue_limit >= t->open_timeout +
                                                      t->probe_interval +
                                                      t->probe_timeout,
         "queue_limit must be 0 (never), or leave room for open_timeout + "
         "probe_interval + probe_timeout"},
        {"slow_least", l->slow_factor == 0 || t->slow_least < t->probe_timeout,
         "slow_least must be less than probe_timeout, or slow_factor 0"},
        {"slow_window",
         l->slow_factor == 0 || t->slow_window >= 4 * t->probe_interval,
         "slow_window must be at least four times probe_interval, or "
         "slow_factor 0"},
        {"redirect_when_slow", l->slow_factor != 0 || !l->redirect_when_slow,
         "redirect_when_slow needs a slow_factor"},
    };

    for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
        if (!rules[i].kept)
            config_file_mistake(d->f, config_file_line(s, rules[i].key),
                                "[lun %s]: %s", s->name, rules[i].text);
}

/* ---- LUNs ------------------------------------------------------------------
 */

/* Two names for one device would be fenced as if they were two devices. */
static void
check_device(struct config_draft *d, const struct config_section *s,
             const struct config_lun *l)
{
    for (const struct config_lun *other = d->c->luns; other < l; other++)
        if (l->device && other->device && strcmp(l->device, other->device) == 0)
            config_file_mistake(d->f, config_file_line(s, "device"),
                                "device: it is [lun %s]'s already",
                                other->name);
}

static void
check_iscsi(struct config_draft *d, const struct config_section *s,
            const struct config_lun *l)
{
    static const char *const only_iscsi[] = {"chap_user", "chap_secret_file",
                                             "initiator"};

    if (!l->chap_user != !l->chap_secret_file)
        config_file_mistake(d->f, s->line,
                            "[lun %s]: chap_user and chap_secret_file need "
                            "each other",
                            l->name);
    if (l->device && l->device[0] != '/')
        return;
    for (size_t i = 0; i < sizeof(only_iscsi) / sizeof(*only_iscsi); i++)
        if (config_file_line(s, only_iscsi[i]) != s->line)
            config_file_mistake(d->f, config_file_line(s, only_iscsi[i]),
                                "%s: only an iscsi:// device takes it",
                                only_iscsi[i]);
}

static void
check_lun(struct config_draft *d, const struct config_section *s,
          const struct config_lun *l)
{
    check_timers(d, s, l);
    check_device(d, s, l);
    check_iscsi(d, s, l);
    if (l->nhosts > EXPORT_FENCE_MAX)
        config_file_mistake(d->f, config_file_line(s, "hosts"),
                            "[lun %s]: %zu hosts, at most %d can share one",
                            l->name, l->nhosts, EXPORT_FENCE_MAX);
    if (d->files == CONFIG_FILES_OWN && d->c->self &&
        config_lun_has(l, d->c->self))
        check_secret(d, s, l->chap_secret_file);
}

static void
check_health(struct config_draft *d, const struct config_section *s)
{
    const struct config_health *h = &d->c->health;

    if (!h->cert != !h->key)
        config_file_mistake(d->f, s->line,
                            "[health]: cert and key need each other");
    if (h->client_certificates && !h->cert)
        config_file_mistake(d->f, config_file_line(s, "client_certificates"),
                            "client_certificates: only with cert and key");
    if (d->files != CONFIG_FILES_HEALTH)
        return;
    check_file(d, s, "ca", h->ca ? h->ca : d->c->ca, false);
    check_file(d, s, "cert", h->cert, false);
    check_file(d, s, "key", h->key, true);
}

void
config_check(struct config_draft *d)
{
    const struct config *c = d->c;
    const struct config_section *cluster = config_section(d->f, "cluster", 0);
    const struct config_section *self = config_section(d->f, "self", 0);
    const struct config_section *health = config_section(d->f, "health", 0);

    if (cluster && c->cluster_name && !config_value_is_name(c->cluster_name))
        config_file_mistake(d->f, config_file_line(cluster, "name"),
                            "name: '%s' is no name: letters, digits, '.', "
                            "'_' and '-', at most %d",
                            c->cluster_name, CONFIG_NAME_MAX);
    if (self && d->files == CONFIG_FILES_OWN) {
        check_file(d, self, "ca", c->ca, false);
        check_file(d, self, "cert", c->cert, false);
        check_file(d, self, "key", c->key, true);
        check_file(d, self, "crl", c->crl, false);
    }
    if (health)
        check_health(d, health);
    check_hosts(d);
    for (size_t i = 0; i < c->nluns; i++)
        check_lun(d, config_section(d->f, "lun", i), &c->luns[i]);
}
