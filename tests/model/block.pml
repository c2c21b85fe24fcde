/* SPDX-License-Identifier: BSD-3-Clause */
/* Kernel devices: one nexus for each host, shared by its processes; what they
 * know of the LUN's keys, and the commands that change these.
 *
 * `Main' is the process that matters here: the plugin of the client's host,
 * the proxies of the others.  `Other' is the host's second process.
 *
 * Epochs only grow, and only two things count: is it the newest, or is it
 * an older one?
 */
#define NEWEST 1
#define OLDER  2

byte key[HOSTS];   /* on the LUN; 0: none */
byte held[HOSTS];  /* main: what it writes under; 0: nothing */
byte other[HOSTS]; /* the other process: the same */
byte sent[HOSTS];  /* a REGISTER under way, under the exclusive lock */
#ifdef NO_RULE_ANSWER
bool stray[HOSTS]; /* one that was given up, of an older epoch */
#endif
byte late[HOSTS];  /* a PREEMPT of somebody, aimed at this key of the host */
byte aimed[HOSTS]; /* by this fencer: what its PREEMPT under way is aimed at */

#define registered(h) (held[h] != 0)
#define can_submit(h) registered(h)
#define may_pass(h)   (key[h] != 0)
#define old_may_pass(h) may_pass(h)
#define tally_empty(h) (!own[h].net && !own[h].lun)
#define may_try_home(h) (drained(h) && buried(h))
#define may_die(h) true

/* Nobody else of the host has writes under way, or may submit some. */
#ifdef NO_RULE_LOCK
#define exclusive_main(h)  true
#define exclusive_other(h) true
#else
#define exclusive_main(h)  (other[h] == 0 && !old[h].net && !old[h].lun)
#define exclusive_other(h) \
    (held[h] == 0 && !own[h].net && !own[h].lun && \
     !old[h].net && !old[h].lun)
#endif
#ifdef NO_RULE_DRAIN
#define drained(h) true
#else
#define drained(h) (!own[h].net && !own[h].lun)
#endif
#ifdef NO_RULE_PREDECESSOR
#define buried(h) true
#else
#define buried(h) (!old[h].net && !old[h].lun)
#endif

inline begin(h)
{
    key[h] = NEWEST; held[h] = NEWEST;
    other[h] = (h == B -> 0 : NEWEST)
}

inline forget(h) { held[h] = 0 }
inline release(h) { held[h] = 0 }

/* Its I/O goes on in the kernel, on the same nexus. */
inline process_dies(h)
{
    bequeath(h);
    held[h] = 0
}

inline grow_old(k)
{
    if
    :: k == NEWEST -> k = OLDER
    :: else
    fi
}

/* A REGISTER leaves, under the next epoch. */
inline send_register(h)
{
    hurry(h);
    sent[h] = NEWEST;
#ifndef NO_RULE_EPOCH
    grow_old(key[h]); grow_old(held[h]); grow_old(other[h]);
    late[h] = 0; /* it hits nothing */
    grow_old_aim(H, h); grow_old_aim(A, h); grow_old_aim(B, h)
#endif
}

inline grow_old_aim(f, h)
{
    if
    :: aimed[f] && victim(f) == h -> aimed[f] = OLDER
    :: else
    fi
}

/* PREEMPT AND ABORT lands. */
inline preempt(h, k)
{
    if
    :: k && key[h] == k -> key[h] = 0; abort_own(h); abort_old(h)
    :: else
    fi
}

/* A fencer's PREEMPT under way outlives its process. */
inline drop_aim(f, v)
{
    if
    :: aimed[f] == NEWEST && !late[v] -> late[v] = NEWEST
    :: else
    fi;
    aimed[f] = 0
}

/* READ KEYS: nobody left?  Then the victim is done with; else PREEMPT. */
#define can_aim(f) (aimed[f] == 0 && !dead[f])
inline look(f, v)
{
    if
    :: key[v] == 0 -> cut_off(f, v)
    :: else -> aimed[f] = key[v]
    fi
}

#define can_land(f) (aimed[f] != 0 && !dead[f])
inline land(f, v)
{
    if
    :: key[f] != 0 -> preempt(v, aimed[f])
    :: else /* a conflict: the fencer was fenced */
    fi;
    aimed[f] = 0
}
