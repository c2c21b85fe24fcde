/* SPDX-License-Identifier: BSD-3-Clause */
/* May what ran on a dead host be started elsewhere?
 *
 * A write that the dead host had sent to a peer is in one of these places, and
 * what the peer's proxy says shows each of them:
 *
 *   unread in the proxy's socket     the session is there, with connections
 *   read, not submitted              the same
 *   submitted                        the session is there, unfinished_writes
 *   given up, the same with a        the same, and orphans
 *     session that has ended
 *   left by a killed proxy           not settled; orphans (as soon as seen)
 *
 * The dead host opens no new session, so that an answer that was asked for
 * after its death and shows none of them holds for good: whatever becomes of
 * that proxy later, it has nothing of that host.  Hence no state of the proxy
 * is asked for but "settled", which serving implies: a drained one, or one
 * that has lost its paths with nothing under way, is as good.
 *
 * An orphan may be another host's; nobody can tell, so it counts.
 */
#include "health/gone.h"

#include <stdio.h>
#include <string.h>

#include "health/endpoint.h"
#include "health/fields.h"
#include "health/report.h"

/* An answer may have been made so long before it was asked for; twice, since
 * two hosts' clocks do not run quite alike. */
#define SLACK_S (2 * ENDPOINT_SHARED_MS / 1000.0)

#define WAIT_OR_OFF   "wait, or power it off and name it too"
#define COMPARE       "compare the configurations"
#define OTHER_RELEASE "compare the releases"

#define REASON_MAX 512

struct finding {
    bool clear, stale;
    char reason[REASON_MAX]; /* why not */
    const char *advice;
};

bool
gone_is(const struct gone *g, const struct config_host *h)
{
    for (size_t i = 0; i < g->nhosts; i++)
        if (g->hosts[i] == h)
            return true;
    return false;
}

bool
gone_concerns(const struct gone *g, const struct config_lun *l)
{
    if (g->lun && strcmp(g->lun, l->name) != 0)
        return false;
    for (size_t i = 0; i < g->nhosts; i++)
        if (config_lun_has(l, g->hosts[i]))
            return true;
    return false;
}

/* ---- one peer, one LUN --------------------------------------------------- */

static struct finding not_clear(const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static struct finding
not_clear(const char *advice, const char *fmt, ...)
{
    struct finding f = {.advice = advice};
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(f.reason, sizeof f.reason, fmt, ap);
    va_end(ap);
    return f;
}

static const json_t *
find(const json_t *array, const char *key, const char *text)
{
    const json_t *o;
    size_t i;

    json_array_foreach(array, i, o)
    {
        if (field_is(o, key, text))
            return o;
    }
    return NULL;
}

static bool
is_of_dead(const struct gone *g, const json_t *session)
{
    for (size_t i = 0; i < g->nhosts; i++)
        if (field_is(session, "host", g->hosts[i]->name))
            return true;
    return false;
}

/* Sessions of theirs, whichever client. */
static struct finding
judge_sessions(const struct gone *g, const json_t *sessions)
{
    size_t connections = 0, n = 0, i;
    const char *host = NULL;
    double writes = 0;
    const json_t *s;

    json_array_foreach(sessions, i, s)
    {
        if (!*field_text(s, "host"))
            return not_clear(OTHER_RELEASE,
                             "it does not say whose its sessions are");
        if (!is_of_dead(g, s))
            continue;
        n++;
        host = field_text(s, "host");
        connections += json_array_size(json_object_get(s, "connections"));
        writes += field_number(s, "unfinished_writes", 0);
    }
    if (n == 0)
        return (struct finding){.clear = true};
    if (connections > 0)
        return not_clear(WAIT_OR_OFF,
                         "a session of %s is open (%zu connections, %.0f "
                         "writes under way)",
                         host, connections, writes);
    return not_clear(WAIT_OR_OFF, "%.0f writes of %s have not come back",
                     writes, host);
}

/* Has it waited for what a killed predecessor left?  A release that does not
 * tell serves only if it has. */
static bool
is_settled(const json_t *share)
{
    return json_is_true(json_object_get(share, "settled")) ||
           field_is(share, "state", "serving") ||
           field_is(share, "state", "draining");
}

static struct finding
judge_share(const struct gone *g, const json_t *share)
{
    const json_t *sessions = json_object_get(share, "sessions");
    const json_t *lun = json_object_get(share, "lun_status");
    double orphans = field_number(lun, "orphans", -1);
    struct finding f;

    if (!json_is_array(sessions) || orphans < 0)
        return not_clear(OTHER_RELEASE,
                         "its proxy's answer cannot be understood");
    f = judge_sessions(g, sessions);
    if (!f.clear)
        return f;
    if (orphans > 0)
        return not_clear(WAIT_OR_OFF,
                         "%.0f writes were given up and may still come, "
                         "whosesoever they are",
                         orphans);
    if (!is_settled(share))
        return not_clear(WAIT_OR_OFF,
                         "its proxy is %s (%s) and has not served since it was "
                         "started: what one before it left may still come",
                         field_text(share, "state"),
                         field_text(share, "reason"));
    return f;
}

static struct finding
judge_proxy(const struct gone *g, const struct gone_word *w,
            const json_t *process, const char *lun)
{
    const json_t *answer = json_object_get(process, "answer");
    double asked_s = field_number(process, "asked_s", -1);
    const json_t *share;
    struct finding f;

    if (!json_is_true(json_object_get(process, "answers")))
        return not_clear(WAIT_OR_OFF, "its proxy does not answer: %s",
                         field_text(process, "error"));
    if (asked_s < 0)
        return not_clear(OTHER_RELEASE,
                         "it does not say how old its proxy's answer is");
    if (!field_is(answer, "process", "proxy") ||
        !field_is(answer, "host", w->peer->name))
        return not_clear(COMPARE, "its proxy answers as another one");
    if (asked_s + SLACK_S > w->after_s) {
        f = not_clear("ask again",
                      "its proxy's answer is older than the question");
        f.stale = true;
        return f;
    }
    share = find(json_object_get(answer, "luns"), "lun", lun);
    return share ? judge_share(g, share)
                 : not_clear(COMPARE, "its proxy does not know the LUN");
}

static struct finding
judge_word(const struct gone *g, const struct gone_word *w, const char *lun)
{
    const json_t *process;

    if (!w || !w->status)
        return not_clear("start its detour-health, or power it off and name "
                         "it too",
                         "its detour-health does not answer: %s",
                         w ? w->error : "not asked");
    if (!field_is(w->status, "cluster", g->config->cluster_name) ||
        !field_is(w->status, "host", w->peer->name))
        return not_clear(COMPARE, "host %s of cluster %s answers there",
                         field_text(w->status, "host"),
                         field_text(w->status, "cluster"));
    process = find(json_object_get(w->status, "processes"), "name", "proxy");
    if (!process)
        return not_clear("start its proxy, or power it off and name it too",
                         "no proxy runs there");
    return judge_proxy(g, w, process, lun);
}

/* ---- all of them --------------------------------------------------------- */

static const struct gone_word *
word_of(const struct gone_word *words, size_t n, const struct config_host *h)
{
    for (size_t i = 0; i < n; i++)
        if (words[i].peer == h)
            return &words[i];
    return NULL;
}

/* Texts from elsewhere may have been cut within a character. */
static json_t *
text_or_null(const char *text)
{
    char whole[REASON_MAX - 100]; /* shorter than what was cut before */

    if (!text)
        return json_null();
    field_print(whole, sizeof whole, "%s", text);
    return report_text(whole);
}

static int
add_line(json_t *lines, const char *peer, const char *lun,
         const struct finding *f)
{
    return json_array_append_new(
        lines, json_pack("{s:s, s:s, s:b, s:b, s:o, s:o}", "peer", peer, "lun",
                         lun, "clear", (int)f->clear, "stale", (int)f->stale,
                         "reason", text_or_null(f->clear ? NULL : f->reason),
                         "advice", text_or_null(f->advice)));
}

json_t *
gone_lines(const struct gone *g, const struct gone_word *words, size_t n)
{
    json_t *lines = json_array();

    for (size_t i = 0; lines && i < g->config->nluns; i++) {
        const struct config_lun *l = &g->config->luns[i];

        if (!gone_concerns(g, l))
            continue;
        for (size_t j = 0; j < l->nhosts; j++) {
            const struct config_host *peer = l->hosts[j];
            struct finding f;

            if (gone_is(g, peer))
                continue;
            f = judge_word(g, word_of(words, n, peer), l->name);
            if (add_line(lines, peer->name, l->name, &f) < 0) {
                json_decref(lines);
                return NULL;
            }
        }
    }
    return lines;
}

static bool
all_are(const json_t *lines, const char *key, bool value)
{
    const json_t *line;
    size_t i;

    json_array_foreach(lines, i, line)
    {
        if (json_is_true(json_object_get(line, key)) != value)
            return false;
    }
    return true;
}

bool
gone_clear(const json_t *lines)
{
    return all_are(lines, "clear", true);
}

bool
gone_stale(const json_t *lines)
{
    return !all_are(lines, "stale", false);
}
