/* SPDX-License-Identifier: BSD-3-Clause */
/* The steps at which a test can have a program killed.
 *
 * In a test-only build (RULES=1, see common/rules.h) DETOUR_DIE_AT=NAME[:N] in
 * the environment makes the program kill itself with SIGKILL when it passes
 * that point for the Nth time (default: the first).  In every other build
 * point_pass does nothing and nothing of this is left in the programs.
 */
#ifndef DETOUR_POINT_H
#define DETOUR_POINT_H

/* In the order in which a redirect and the return pass them when paths are
 * lost; a planned move is "left", and "home-left", when all is ready. */
enum point {
    /* The plugin leaves its own paths, and opens a route: */
    POINT_LOST,         /* "lost": it is decided, nothing was done */
    POINT_LEFT,         /* "left": nobody is inside any more */
    POINT_SAVE,         /* "save": generation and suspects are to be saved */
    POINT_SAVED,        /* "saved" */
    POINT_GO_SENT,      /* "go-sent" */
    POINT_GO_GRANTED,   /* "go-granted": the answer came */
    POINT_OPENED,       /* "opened": requests take the new route */
    POINT_FORGET,       /* "forget": the suspects are to be forgotten on disk */
    POINT_FORGOTTEN,    /* "forgotten" */
    POINT_LINK_WRITTEN, /* "link-written": a peer has answered a write */

    /* The proxy lets the session in and serves it: */
    POINT_GO_RECEIVED, /* "go-received" */
    POINT_OLDER_TOLD,  /* "older-told": lower generations are to end */
    POINT_OLDER_GONE,  /* "older-gone": and so they have */
    POINT_FENCED,      /* "fenced": all suspects are cut off */
    POINT_LET_IN,      /* "let-in": GO is not answered yet */
    POINT_GO_ANSWERED, /* "go-answered": the answer is on the network */
    POINT_WRITE_SENT,  /* "write-sent": to the LUN */
    POINT_WRITE_DONE,  /* "write-done": it has come back */
    POINT_ANSWERED,    /* "answered": answers are on the network */

    /* The plugin comes home: */
    POINT_ASIDE,           /* "aside": registered while still redirected */
    POINT_HOME_LEFT,       /* "home-left": nobody is inside any more */
    POINT_HOME_REGISTERED, /* "home-registered" */
    POINT_HOME_FENCED,     /* "home-fenced" */
    POINT_HOME_SAVED,      /* "home-saved" */
    POINT_HOME_OPENED,     /* "home-opened": requests take our own paths */

    /* Either of them, on an iscsi LUN, before a command and after its
     * answer: */
    POINT_REGISTER,   /* "register": the key is on the host's disk */
    POINT_REGISTERED, /* "registered" */
    POINT_PREEMPT,    /* "preempt", with or without abort */
    POINT_PREEMPTED,  /* "preempted" */
    POINT_RESET,      /* "reset" */
    POINT_WAS_RESET,  /* "was-reset" */
    POINT_COUNT
};

#ifdef DETOUR_RULES
/* point_pass - does not return if this is where we are to die.
 * threads: any */
void point_pass(enum point p);
#else
static inline void
point_pass(enum point p)
{
    (void)p;
}
#endif

#endif
