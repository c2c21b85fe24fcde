/* SPDX-License-Identifier: BSD-3-Clause */
/* May this LUN be served to peers now?
 *
 *  state        event                          next         action
 *  -----------  -----------------------------  -----------  ------------------
 *  WAITING      drain asked                    DRAINED
 *               usable, retry time has come    REGISTERING  register
 *               held, nothing pending          WAITING      release
 *  REGISTERING  register done, error           WAITING
 *               done, drain asked              DRAINED
 *               done                           SERVING
 *  SERVING      registration gone or another   CLOSING      cut
 *               not usable                     CLOSING      cut
 *               drain asked                    DRAINING     wind down
 *  DRAINING     registration gone, not usable  CLOSING      cut
 *               no connection, none pending    DRAINED      release
 *               drain taken back               SERVING      resume
 *  DRAINED      drain taken back               WAITING
 *               held, nothing pending          DRAINED      release
 *  CLOSING      no connection left             WAITING
 *
 * A session lives and dies with one registration: the only way back to
 * SERVING with another one leads over CLOSING, where all of them are gone.
 * Orphans are waited for by lun_register itself (on iscsi it is what proves
 * them dead), so CLOSING must not wait for them.
 */
#include "proxy/serve.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/rules.h"

static const char *const names[] = {
    [SERVE_WAITING] = "waiting", [SERVE_REGISTERING] = "registering",
    [SERVE_SERVING] = "serving", [SERVE_DRAINING] = "draining",
    [SERVE_DRAINED] = "drained", [SERVE_CLOSING] = "closing",
};

const char *
serve_state_name(enum serve_state s)
{
    return names[s];
}

void
serve_init(struct serve *s, uint64_t now_ms)
{
    *s = (struct serve){.state = SERVE_WAITING, .since_ms = now_ms};
    snprintf(s->reason, sizeof s->reason, "starting");
}

static void
because(struct serve *s, const char *reason)
{
    if (reason == s->reason)
        return;
    snprintf(s->reason, sizeof s->reason, "%s", reason);
}

static unsigned
enter(struct serve *s, enum serve_state next, const char *reason,
      uint64_t now_ms, unsigned actions)
{
    s->state = next;
    s->since_ms = now_ms;
    because(s, reason);
    return actions | SERVE_CHANGED;
}

static unsigned
release_when_idle(struct serve *s, const struct serve_sample *w)
{
    if (!s->held || w->members > 0 || w->pending > 0)
        return 0;
    s->held = false;
    return SERVE_RELEASE;
}

/* Why sessions cannot go on; NULL: they can. */
static const char *
must_close(const struct serve *s, const struct serve_sample *w)
{
    if (w->arbiter && w->registration == LUN_FENCED)
        return "fenced by another host";
    if (w->arbiter && (w->registration != LUN_REGISTERED ||
                       w->registration_no != s->registration_no))
        return "registration lost";
    return w->usable ? NULL : w->why;
}

static unsigned
waiting(struct serve *s, const struct serve_sample *w, uint64_t now_ms)
{
    if (w->drain)
        return enter(s, SERVE_DRAINED, "drained", now_ms, 0);
    if (!w->usable) {
        because(s, w->why);
        return release_when_idle(s, w);
    }
    if (now_ms < s->retry_ms)
        return 0;
    return enter(s, SERVE_REGISTERING, "paths are good", now_ms,
                 SERVE_REGISTER);
}

static unsigned
registering(struct serve *s, const struct serve_sample *w, uint64_t now_ms)
{
    char text[sizeof s->reason];

    if (!w->register_done)
        return 0;
    if (w->register_error) {
        s->retry_ms = now_ms + SERVE_RETRY_MS;
        snprintf(text, sizeof text, "cannot register: %s",
                 strerror(-w->register_error));
        return enter(s, SERVE_WAITING, text, now_ms, 0);
    }
    s->held = true;
    s->settled = true;
    s->registration_no = w->registration_no;
    if (w->drain)
        return enter(s, SERVE_DRAINED, "drained", now_ms, 0);
    return enter(s, SERVE_SERVING, "registered", now_ms, 0);
}

static unsigned
draining(struct serve *s, const struct serve_sample *w, uint64_t now_ms)
{
    if (!w->drain)
        return enter(s, SERVE_SERVING, "drain taken back", now_ms,
                     SERVE_RESUME);
    if (w->members > 0 || w->pending > 0)
        return 0;
    return enter(s, SERVE_DRAINED, "drained", now_ms, release_when_idle(s, w));
}

unsigned
serve_step(struct serve *s, const struct serve_sample *w, uint64_t now_ms)
{
    const char *why;

    switch (s->state) {
    case SERVE_WAITING:
        return waiting(s, w, now_ms);
    case SERVE_REGISTERING:
        return registering(s, w, now_ms);
    case SERVE_SERVING:
    case SERVE_DRAINING:
        why = must_close(s, w);
        if (why)
            return enter(s, SERVE_CLOSING, why, now_ms, SERVE_CUT);
        if (s->state == SERVE_DRAINING)
            return draining(s, w, now_ms);
        if (w->drain)
            return enter(s, SERVE_DRAINING, "drain asked for", now_ms,
                         SERVE_WIND_DOWN);
        return 0;
    case SERVE_DRAINED:
        if (!w->drain)
            return enter(s, SERVE_WAITING, "drain taken back", now_ms, 0);
        return release_when_idle(s, w);
    case SERVE_CLOSING:
        if (w->members > 0 && rule_kept(RULE_CLOSE))
            return 0;
        return enter(s, SERVE_WAITING, s->reason, now_ms, 0);
    }
    return 0;
}

uint64_t
serve_due_ms(const struct serve *s, uint64_t now_ms)
{
    switch (s->state) {
    case SERVE_WAITING:
        return s->retry_ms > now_ms ? s->retry_ms : now_ms + 1000;
    case SERVE_DRAINING:
    case SERVE_DRAINED:
    case SERVE_CLOSING:
        return now_ms + (s->held ? 100 : 1000);
    case SERVE_SERVING: /* whatever ends that is told */
        return now_ms + 5000;
    default:
        return now_ms + 1000;
    }
}
