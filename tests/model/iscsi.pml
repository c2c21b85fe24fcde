/* SPDX-License-Identifier: BSD-3-Clause */
/* Nexuses in user space: each process has its own, each with a key of its own.
 *
 * A process has its present nexus, which `own' writes went through, and at
 * most one that died (its grave), which `old' ones did.  A key is used once;
 * so what is aimed at one that is gone hits nothing.
 */
#define FRESH    0 /* logged in, no key */
#define SENT     1 /* its REGISTER is under way */
#define ANSWERED 2
#define MEMBER   3 /* of the present registration */

byte nexus[HOSTS];
bool key[HOSTS];      /* on the LUN: that of the present nexus */
bool grave[HOSTS];    /* on the LUN: that of the dead one */
bool dirty[HOSTS];    /* the dead one may hold a write */
bool missing[HOSTS];  /* the dead one's REGISTER has not landed */
bool mourned[HOSTS];  /* the dead one was a member of the registration of now */
bool held[HOSTS];     /* there is a registration */
#ifdef NO_RULE_EPOCH
bool twin[HOSTS];     /* the host's other process has the same key there */
#endif

/* What a PREEMPT under way is aimed at. */
#define THIS  1
#define DEAD  2
#define STALE 3
#define LAST  4 /* NO_RULE_AGAIN: the only key there was */
byte aimed[HOSTS];    /* of this fencer */
byte late[HOSTS];     /* of somebody else, at this host */

#define registered(h)   (held[h])
#define may_pass(h)     key[h]
#define old_may_pass(h) grave[h]
#define closed(h)       (!grave[h] && !missing[h])
#define tally_empty(h) \
    (!own[h].net && !own[h].lun && !old[h].net && !old[h].lun)
#define may_try_home(h) drained(h)
#define may_die(h)      (closed(h) && !old[h].net && !old[h].lun)

#ifdef NO_RULE_ANSWER
#define writes_through(h) \
    (held[h] && (nexus[h] == MEMBER || nexus[h] == SENT))
#else
#define writes_through(h) (held[h] && nexus[h] == MEMBER)
#endif
#ifdef NO_RULE_GRAVES
#define can_submit(h) writes_through(h)
#define buried(h)     true
#else
#define can_submit(h) \
    (writes_through(h) && !old[h].net && !old[h].lun && \
     (closed(h) || !dirty[h]))
#define buried(h)     (closed(h) && !old[h].net && !old[h].lun)
#endif
#ifdef NO_RULE_DRAIN
#define drained(h) true
#else
#define drained(h) (!own[h].net && !own[h].lun)
#endif

inline begin(h)
{
#ifdef NO_RULE_EPOCH
    twin[h] = true;
#endif
    nexus[h] = MEMBER; key[h] = true; held[h] = true
}

/* The client's write, if it went over the present nexus: that copy becomes
 * an orphan there, and the write waits for another nexus. */
inline lose_live(h)
{
    if
    :: place == h && live == NET -> orphan(own[h].net, cur); live = WAIT
    :: place == h && live == LUN -> orphan(own[h].lun, cur); live = WAIT
    :: place == h && (live == DONE || live == GONE) -> live = WAIT
    :: else
    fi
}

/* The present nexus dies: it becomes the grave if its key is there, or may
 * come; else what is in the network can only meet a conflict. */
inline nexus_dies(h)
{
    lose_live(h);
    if
    :: key[h] || nexus[h] == SENT ->
        grave[h] = key[h];
        dirty[h] = own[h].net || own[h].lun || (place == h && live == WAIT);
        missing[h] = (nexus[h] == SENT);
        mourned[h] = held[h] && nexus[h] == MEMBER;
        age_aim(H, h); age_aim(A, h); age_aim(B, h);
        late[h] = (late[h] == THIS -> DEAD : 0)
    :: else ->
        own[h].net = 0;
        old[h].net = (closed(h) -> 0 : old[h].net)
    fi;
    bequeath(h);
    key[h] = false; nexus[h] = FRESH
}

inline age_aim(f, h)
{
    if
    :: aimed[f] && victim(f) == h ->
        aimed[f] = ((aimed[f] & 3) == THIS -> (aimed[f] & LAST) + DEAD :
                                              (aimed[f] & LAST) + STALE)
    :: else
    fi
}

inline close_grave(h)
{
    grave[h] = false; mourned[h] = false; dirty[h] = false;
    old[h].net = 0 /* it can only meet a conflict */
}

/* All nexuses are given up with the registration, and no write outlives it. */
inline forget(h)
{
    if
    :: nexus[h] != FRESH && (closed(h) || !key[h]) -> nexus_dies(h)
    :: else
    fi;
    if
    :: place == h && live == WAIT -> live = GONE
    :: else
    fi;
    held[h] = false; mourned[h] = false
}

inline release(h) { skip }

inline process_dies(h)
{
    nexus_dies(h);
    held[h] = false; mourned[h] = false
}

#ifdef NO_RULE_EPOCH
#define SAME || true
#define TWIN_AT(h) || twin[h]
#define stands(h) (grave[h] || twin[h])
#else
#define SAME
#define TWIN_AT(h)
#define stands(h) (grave[h] && mourned[h])
#endif

inline preempt(h, k)
{
    if
    :: ((k & 3) == THIS SAME) && key[h] -> key[h] = false; abort_own(h)
    :: else
    fi;
    if
    :: ((k & 3) == DEAD SAME) && grave[h] -> close_grave(h); abort_old(h)
    :: else
    fi
#ifdef NO_RULE_EPOCH
    ; twin[h] = false
#endif
}

inline drop_aim(f, v)
{
    if
    :: aimed[f] && (aimed[f] & 3) != STALE && !late[v] ->
        late[v] = aimed[f] & 3
    :: else
    fi;
    aimed[f] = 0
}

#define can_aim(f) (aimed[f] == 0 && !dead[f])
inline look(f, v)
{
    if
    :: !(key[v] || grave[v] TWIN_AT(v)) -> cut_off(f, v)
    :: key[v] -> aimed[f] = THIS + (grave[v] -> 0 : LAST)
    :: grave[v] TWIN_AT(v) -> aimed[f] = DEAD + (key[v] -> 0 : LAST)
    fi
}

#define can_land(f) (aimed[f] != 0 && !dead[f])
inline land(f, v)
{
    if
    :: key[f] -> preempt(v, aimed[f])
    :: else
    fi;
#ifdef NO_RULE_AGAIN
    if
    :: aimed[f] & LAST -> cut_off(f, v)
    :: else
    fi;
#endif
    aimed[f] = 0
}
