/* SPDX-License-Identifier: BSD-3-Clause */
/* The judgement on a LUN's own paths, one sample at a time. */
#include "health/verdict.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lun/error.h"

/* What a sample says, looked at from the worst to the best; the first line
 * that holds decides.  "bad" lines move bad_ms and end the good run.
 *
 *   state    the sample says                               next
 *   any      it is another LUN                       bad   LOST
 *   UNKNOWN  anything bad, younger than io_timeout   bad   UNKNOWN
 *   any      no path left; path error; overdue       bad   LOST
 *   UNKNOWN  nothing, and io_timeout has passed      bad   LOST
 *   LOST     no good answer to a later probe               LOST
 *   UNKNOWN  no good answer yet                            UNKNOWN
 *   any      it takes far longer than usual                SLOW
 *   any      paths missing, or a probe overdue but
 *            contradicted                                  DEGRADED
 *   any      else                                          GOOD
 */

static void say(struct verdict *v, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void
say(struct verdict *v, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(v->reason, sizeof v->reason, fmt, ap);
    va_end(ap);
}

void
verdict_init(struct verdict *v, uint64_t now_ms)
{
    memset(v, 0, sizeof *v);
    v->state = VERDICT_UNKNOWN;
    v->since_ms = now_ms;
    say(v, "nothing was heard yet");
}

bool
verdict_usable(const struct verdict *v)
{
    return v->state == VERDICT_GOOD || v->state == VERDICT_DEGRADED ||
           v->state == VERDICT_SLOW;
}

const char *
verdict_state_name(enum verdict_state s)
{
    static const char *const names[] = {
        [VERDICT_UNKNOWN] = "unknown",   [VERDICT_GOOD] = "good",
        [VERDICT_DEGRADED] = "degraded", [VERDICT_SLOW] = "slow",
        [VERDICT_LOST] = "lost",
    };

    return s <= VERDICT_LOST ? names[s] : "?";
}

/* Samples are gathered beside the clock, so that a time may be a little later
 * than now. */
static uint64_t
age_ms(uint64_t then_ms, uint64_t now_ms)
{
    return then_ms < now_ms ? now_ms - then_ms : 0;
}

static bool
overdue(uint64_t sent_ms, unsigned timeout_ms, uint64_t now_ms)
{
    return sent_ms != 0 && age_ms(sent_ms, now_ms) >= timeout_ms;
}

static bool
heard_within(uint64_t then_ms, unsigned window_ms, uint64_t now_ms)
{
    return then_ms != 0 && age_ms(then_ms, now_ms) < window_ms;
}

static const char *
error_text(int error)
{
    const char *text = strerrordesc_np(-error);

    return text ? text : "unknown error";
}

static bool
is_answer(int error)
{
    enum lun_class c = lun_error_class(error);

    return c == LUN_CLASS_OK || c == LUN_CLASS_LUN || c == LUN_CLASS_FENCED;
}

/* -EAGAIN, "nothing known yet", speaks neither for the device nor against. */
static bool
is_failure(const struct verdict_sample *s)
{
    return s->probe_done && !is_answer(s->probe_error) &&
           !(s->probe_error == -EAGAIN && !s->known);
}

/* Does anything but the overdue probe show that the device answers? */
static bool
contradicted(const struct verdict *v, const struct verdict_options *opt,
             const struct verdict_sample *s, uint64_t now_ms)
{
    if (heard_within(v->answer_ms, opt->probe_timeout_ms, now_ms) ||
        heard_within(s->io_done_ms, opt->probe_timeout_ms, now_ms))
        return true;
    return s->io_done_ms == 0 && s->io_sent_ms != 0;
}

static bool
speaks_for_lost(struct verdict *v, const struct verdict_options *opt,
                const struct verdict_sample *s, uint64_t now_ms)
{
    bool probe_late = overdue(s->probe_sent_ms, opt->probe_timeout_ms, now_ms);
    bool io_late = overdue(s->io_sent_ms, opt->io_timeout_ms, now_ms);

    if (s->wrong_id)
        say(v, "it is not the LUN that was expected");
    else if (s->paths_known > 0 && s->paths_good == 0)
        say(v, "no path left (%u known)", s->paths_known);
    else if (is_failure(s))
        say(v, "a probe failed: %s", error_text(s->probe_error));
    else if (s->io_path_error)
        say(v, "a request came back with a path error");
    else if (probe_late && io_late)
        say(v, "a request and a probe are overdue");
    else if (probe_late && !contradicted(v, opt, s, now_ms))
        say(v, "a probe is overdue and nothing else was answered");
    else
        return false;
    return true;
}

static enum verdict_state
judge_paths(struct verdict *v, const struct verdict_options *opt,
            const struct verdict_sample *s, uint64_t now_ms)
{
    bool io_late = overdue(s->io_sent_ms, opt->io_timeout_ms, now_ms);

    if (overdue(s->probe_sent_ms, opt->probe_timeout_ms, now_ms)) {
        v->good_ms = 0;
        say(v, "a probe is overdue, but others are answered");
        return VERDICT_DEGRADED;
    }
    if (s->paths_good < s->paths_known) {
        say(v, "%u of %u paths work", s->paths_good, s->paths_known);
        return VERDICT_DEGRADED;
    }
    if (io_late)
        say(v, "a request is overdue, but probes are answered");
    else if (s->paths_known == 1)
        say(v, "the only path works");
    else if (s->paths_known > 0)
        say(v, "all %u paths work", s->paths_known);
    else
        say(v, "probes are answered");
    return VERDICT_GOOD;
}

static enum verdict_state
judge_usable(struct verdict *v, const struct verdict_options *opt,
             const struct verdict_sample *s, uint64_t now_ms)
{
    enum verdict_state state = judge_paths(v, opt, s, now_ms);
    char paths[sizeof v->reason];

    if (s->slow_us == 0)
        return state;
    v->slow_ms = now_ms;
    memcpy(paths, v->reason, sizeof paths);
    say(v, "probes take %u ms, and took %.1f ms lately; %.80s",
        s->slow_us / 1000, s->usual_us / 1000.0, paths);
    return VERDICT_SLOW;
}

static enum verdict_state
judge(struct verdict *v, const struct verdict_options *opt,
      const struct verdict_sample *s, uint64_t now_ms)
{
    bool grace = v->state == VERDICT_UNKNOWN &&
                 age_ms(v->since_ms, now_ms) < opt->io_timeout_ms;
    bool answered = s->known && s->probe_done && is_answer(s->probe_error);
    bool proven = answered && s->done_sent_ms > v->bad_ms;

    if (answered)
        v->answer_ms = now_ms;
    if (speaks_for_lost(v, opt, s, now_ms)) {
        v->bad_ms = now_ms;
        v->good_ms = 0;
        return grace && !s->wrong_id ? VERDICT_UNKNOWN : VERDICT_LOST;
    }
    if (proven && v->good_ms == 0)
        v->good_ms = now_ms;
    if (proven || verdict_usable(v))
        return judge_usable(v, opt, s, now_ms);
    if (v->state == VERDICT_UNKNOWN && !grace) {
        v->bad_ms = now_ms;
        say(v, "nothing was heard of the device");
        return VERDICT_LOST;
    }
    return v->state;
}

bool
verdict_step(struct verdict *v, const struct verdict_options *opt,
             const struct verdict_sample *s, uint64_t now_ms)
{
    enum verdict_state next = judge(v, opt, s, now_ms);

    if (next == v->state)
        return false;
    v->state = next;
    v->since_ms = now_ms;
    return true;
}
