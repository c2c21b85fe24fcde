/* SPDX-License-Identifier: BSD-3-Clause */
/* Nexuses in user space: how a process gets, keeps and loses the right to
 * write, over paths that break. */

#ifdef NO_RULE_JOIN
#define still_stands(h) true
#else
#define still_stands(h) stands(h)
#endif

#define HOST_STEPS \
    /* READ KEYS shows none of ours */ \
    :: atomic { running && held[h] && nexus[h] == MEMBER && !key[h] && \
                !stands(h) -> fenced(h) } \
    :: atomic { running && held[h] && nexus[h] == MEMBER && !key[h] && \
                stands(h) -> nexus_dies(h) } \
    /* a path breaks */ \
    :: atomic { fault && nexus[h] != FRESH && closed(h) && \
                !old[h].net && !old[h].lun -> \
           faults--; nexus_dies(h) } \
    :: atomic { live == WAIT && place == h && can_submit(h) -> live = NET } \
    /* begin a registration, or join: a REGISTER leaves */ \
    :: atomic { running && !held[h] && wants(h) && nexus[h] == FRESH && \
                drained(h) && calm(h) -> hurry(h); nexus[h] = SENT } \
    :: atomic { running && held[h] && nexus[h] == FRESH && stands(h) && \
                calm(h) -> hurry(h); nexus[h] = SENT } \
    :: atomic { running && held[h] && nexus[h] == FRESH && !stands(h) -> \
           fenced(h) } \
    :: atomic { nexus[h] == SENT && !dead[h] -> \
           nexus[h] = ANSWERED; key[h] = true } \
    :: atomic { missing[h] -> missing[h] = false; grave[h] = true } \
    /* join: READ KEYS again */ \
    :: atomic { running && held[h] && nexus[h] == ANSWERED && \
                still_stands(h) && key[h] -> nexus[h] = MEMBER } \
    :: atomic { running && held[h] && nexus[h] == ANSWERED && \
                still_stands(h) && !key[h] -> nexus_dies(h) } \
    :: atomic { running && held[h] && nexus[h] == ANSWERED && \
                !still_stands(h) -> fenced(h) } \
    /* the graves, by a member or by who is about to begin */ \
    :: atomic { running && grave[h] && key[h] && \
                (nexus[h] == MEMBER || (nexus[h] == ANSWERED && !held[h])) -> \
           close_grave(h); abort_old(h) } \
    /* begin */ \
    :: atomic { running && !held[h] && nexus[h] == ANSWERED && key[h] && \
                buried(h) -> \
           held[h] = true; nexus[h] = MEMBER; registered_now(h) } \
    :: atomic { running && !held[h] && nexus[h] == ANSWERED && !key[h] -> \
           nexus_dies(h) } \
    TWIN_STEPS \
    :: atomic { late[h] -> preempt(h, late[h]); late[h] = 0 } \
    :: atomic { fault && key[h] && !late[h] -> faults--; late[h] = THIS } \
    :: atomic { fault && grave[h] && !late[h] -> faults--; late[h] = DEAD }

#ifdef NO_RULE_EPOCH
#define TWIN_STEPS :: atomic { running && !twin[h] -> twin[h] = true }
#else
#define TWIN_STEPS
#endif
