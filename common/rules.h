/* SPDX-License-Identifier: BSD-3-Clause */
/* The rules that keep ghosts away, by name, so that a test can leave one out.
 *
 * A fault test that passes proves little unless it fails without the rule it
 * is about.  `make RULES=1 BUILD=build/rules` builds programs that read
 * DETOUR_LEAVE_OUT=NAME[,NAME] from the environment, once, and leave those
 * rules out (tests/fault/ghost-*.sh).  In every other build rule_kept is the
 * constant true and nothing of this is left in the programs.
 */
#ifndef DETOUR_RULES_H
#define DETOUR_RULES_H

#include <stdbool.h>

/* The names are those of tests/model/ and docs/fencing.md, but for the last
 * two: "every-key", which like "graves" is of the iscsi backend alone, and
 * "vanished". */
enum rule {
    /* "suspect-self": a local write that was abandoned makes us a suspect */
    RULE_SUSPECT_SELF,
    /* "suspect-peer": a connection that broke with a write unanswered makes
     * the peer one */
    RULE_SUSPECT_PEER,
    /* "fence": before GO, the proxy cuts off the suspects (step 4) */
    RULE_FENCE,
    /* "abort": a fence ends what the target has under way */
    RULE_ABORT,
    /* "older": before GO, sessions of lower generations are closed (step 3) */
    RULE_OLDER,
    /* "wait": and what they had submitted has come back */
    RULE_WAIT,
    /* "close": a session lives and dies with one registration */
    RULE_CLOSE,
    /* "answer": no write on a nexus before the answer to its REGISTER */
    RULE_ANSWER,
    /* "predecessor": what a killed process of our name had under way is cut
     * off (iscsi) */
    RULE_PREDECESSOR,
    /* "home-fence": a plugin that goes home cuts off its suspects itself */
    RULE_HOME_FENCE,
    /* "disk-suspects": a plugin takes over a killed predecessor's suspects */
    RULE_DISK_SUSPECTS,
    /* "disk-generation": and its generation */
    RULE_DISK_GENERATION,
    /* "graves": what was sent on a nexus of ours that died is cut off
     * before it is sent again on another */
    RULE_GRAVES,
    /* "every-key": all keys of a host are preempted, of all its processes */
    RULE_EVERY_KEY,
    /* "vanished": what was held is not sent for a client that is gone */
    RULE_VANISHED,
    RULE_COUNT
};

#ifdef DETOUR_RULES
/* rule_kept - false: the test that runs us wants r left out. */
bool rule_kept(enum rule r);
#else
static inline bool
rule_kept(enum rule r)
{
    (void)r;
    return true;
}
#endif

#endif
