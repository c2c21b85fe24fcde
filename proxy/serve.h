/* SPDX-License-Identifier: BSD-3-Clause */
/* May this LUN be served to peers now?  A pure step function: no I/O, no
 * clock, no thread; the share carries out what it says. */
#ifndef DETOUR_PROXY_SERVE_H
#define DETOUR_PROXY_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "lun/lun.h"

enum serve_state {
    SERVE_WAITING,     /* not usable, or a register is due later */
    SERVE_REGISTERING, /* lun_register is under way */
    SERVE_SERVING,     /* sessions are accepted */
    SERVE_DRAINING,    /* sessions end; none is accepted */
    SERVE_DRAINED,     /* nothing is under way for peers */
    SERVE_CLOSING,     /* sessions were cut; waiting for them to be gone */
};

/* After a register that failed. */
#define SERVE_RETRY_MS 250

/* What the world looks like. */
struct serve_sample {
    bool usable;     /* the monitor's verdict */
    const char *why; /* its reason */
    bool drain;      /* somebody asked for it */
    bool arbiter;    /* LUN_FENCE_PR: a registration is needed */
    enum lun_registration registration;
    uint64_t registration_no;
    unsigned members;   /* open connections */
    unsigned pending;   /* their writes not come back, orphans included */
    bool register_done; /* lun_register has returned since the last step */
    int register_error; /* what it said */
};

/* What is to be done; a set. */
enum serve_action {
    SERVE_CUT = 1,       /* SESSION_ABANDON to all members */
    SERVE_REGISTER = 2,  /* call lun_register, tell when it is done */
    SERVE_RELEASE = 4,   /* call lun_release */
    SERVE_WIND_DOWN = 8, /* SESSION_DRAIN to all members */
    SERVE_RESUME = 16,   /* SESSION_RUN to those that were winding down */
    SERVE_CHANGED = 32,  /* the state did: log it */
};

struct serve {
    enum serve_state state;
    uint64_t since_ms;        /* of the last change of state */
    uint64_t registration_no; /* sessions of now are admitted under it */
    bool held;         /* lun_register succeeded and no lun_release since */
    bool settled;      /* it succeeded once, and so has waited for, or fenced,
                          what a killed predecessor left under way */
    uint64_t retry_ms; /* no register before */
    char reason[200];  /* for people; never empty */
};

/* serve_init - SERVE_WAITING since now_ms. */
void serve_init(struct serve *s, uint64_t now_ms);

/* serve_step - one look at the world.
 *
 * returns: the actions, to be carried out in full before the next step
 */
unsigned serve_step(struct serve *s, const struct serve_sample *w,
                    uint64_t now_ms);

/* serve_due_ms - when a step is due though nothing happened. */
uint64_t serve_due_ms(const struct serve *s, uint64_t now_ms);

/* serve_state_name - one lower-case word, as status has it. */
const char *serve_state_name(enum serve_state s);

#endif
