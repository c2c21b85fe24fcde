/* SPDX-License-Identifier: BSD-3-Clause */
/* The configuration file that all programs of a host share. */
#ifndef DETOUR_CONFIG_H
#define DETOUR_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CONFIG_DEFAULT_FILE "/etc/detour/detour.conf"
#define CONFIG_DEFAULT_PORT 10810
#define CONFIG_HEALTH_PORT  10811
#define CONFIG_CLUSTER_MAX  4095
#define CONFIG_HOST_MAX     4095 /* host numbers are 1 to this */
#define CONFIG_NAME_MAX     63   /* of a cluster, host or LUN */

enum config_fence {
    CONFIG_FENCE_PR,    /* persistent reservations arbitrate */
    CONFIG_FENCE_DRAIN, /* no reservations: wait for what is under way */
};

struct config_host {
    char *name;
    unsigned number;
    char **addresses; /* IPv4 or IPv6 literals, the preferred first */
    size_t naddresses;
    uint16_t port;
};

/* Times in milliseconds; what each means stands in common/timers.h. */
struct config_timers {
    unsigned probe_interval;
    unsigned probe_timeout;
    unsigned io_timeout;
    unsigned link_timeout;
    unsigned open_timeout;
    unsigned standby_interval;
    unsigned failback_after;
    unsigned failback_max;
    unsigned failback_jitter;
    unsigned queue_limit;
    unsigned slow_least;
    unsigned slow_window;
};

struct config_lun {
    char *name;   /* letters, digits, '.', '_' and '-'; at most CONFIG_NAME_MAX,
                     and the first is a letter or a digit; so are hosts' names */
    char *device; /* as written */
    char *wwid;   /* identity the operator expects, or NULL */
    enum config_fence fence;
    bool readonly;
    char *chap_user;        /* iscsi only, or NULL */
    char *chap_secret_file; /* iscsi only, or NULL */
    char *initiator;        /* iscsi only: our IQN; default made of names */
    const struct config_host **hosts; /* who may serve and use it */
    size_t nhosts;
    struct config_timers timers;
    unsigned standby_peers;
    unsigned connections;
    unsigned requests_per_connection;
    unsigned switch_limit; /* within an hour; 0: none */
    unsigned slow_factor;  /* 0: never slow */
    bool redirect_when_slow;
};

/* Of detour-health, which runs on a host if it has this section. */
struct config_health {
    struct config_host at;    /* addresses (none: those of self) and port; must
                                 stay the first member */
    char *group;              /* whose members may ask the processes' sockets */
    char *ca, *cert, *key;    /* cert and key make it TLS; or NULL */
    bool client_certificates; /* asked of everybody */
    unsigned redirect_alarm;  /* ms; 0: never */
};

struct config {
    char *file;
    char *cluster_name;
    unsigned cluster_number;
    struct config_host *hosts;
    size_t nhosts;
    const struct config_host *self;
    char *rundir;   /* default /run/detour */
    char *statedir; /* default /var/lib/detour */
    char *ca, *cert, *key;
    char *crl; /* or NULL */
    struct config_health health;
    struct config_lun *luns;
    size_t nluns;
};

/* config_load - read and check a whole configuration file.
 *
 * Every mistake is reported, not just the first: one line each on errors, as
 * "FILE:LINE: what is wrong and what to do".  Unknown sections and keys, bad
 * numbers, doubled names and host numbers, LUNs that name unknown hosts,
 * missing files (ca, cert, key, crl, chap_secret_file), timers that do not
 * fit together (common/timers.h) and keys readable by others are mistakes.
 * A timer is written as a number with ms, s or m behind it.  The files of a
 * LUN that this host is no member of are not looked at.
 *
 * errors:  NULL and errno: EINVAL the file has mistakes, else why it could
 *          not be read (also said on errors)
 * owns:    the caller ends it with config_destroy
 * threads: any
 */
struct config *config_load(const char *file, FILE *errors);

/* config_load_health - the same for detour-health, which is nobody special.
 *
 * Only the files of [health] are looked at; those of [self] and of the LUNs
 * may be closed to us.  config_load does not look at those of [health].
 */
struct config *config_load_health(const char *file, FILE *errors);

/* config_load_text - the same for those who only want to know what it says:
 * none of the files that it names is looked at. */
struct config *config_load_text(const char *file, FILE *errors);

/* config_destroy - free c; NULL is fine. */
void config_destroy(struct config *c);

/* config_lun, config_host - find by name; NULL when there is none.
 *
 * owns:    the answer lives as long as c
 */
const struct config_lun *config_lun(const struct config *c, const char *name);
const struct config_host *config_host(const struct config *c, const char *name);

/* config_lun_has - is h one of the hosts of l? */
bool config_lun_has(const struct config_lun *l, const struct config_host *h);

#endif
