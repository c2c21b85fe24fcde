/* SPDX-License-Identifier: BSD-3-Clause */
/* No ghost: section 5 of docs/design.md as a model; README.md explains it.
 *
 * One client writes one block N times, each write after the one before it was
 * acknowledged, over its own host H or through the proxies of A and B.
 */
#ifndef N
#define N 3 /* writes */
#endif
#ifndef FAULTS
#define FAULTS 3 /* connections broken, processes killed, moves, fences */
#endif

#define H     0
#define A     1
#define B     2
#define HOSTS 3
#define bit(n) (1 << (n))

/* ---- the client's write --------------------------------------------------
 *
 * Its newest copy, the one whose answer counts, is `live'; copies that were
 * given up are orphans, in sets of writes: `own' of the process that is there
 * now, `old' of one that was killed, `unread' in the socket buffers of
 * connections the plugin has left.
 */
#define NONE   0
#define UNREAD 1 /* in the socket buffer of the peer's proxy */
#define NET    2 /* in the initiator or in the network */
#define LUN    3 /* in the target, past its check of the reservation */
#define DONE   4 /* carried out; the answer is on its way */
#define GONE   5 /* cut off; nobody has noticed */
#define WAIT   6 /* iscsi: held until its path's grave is closed */

typedef port {
    byte net; /* in the initiator or in the network */
    byte lun  /* in the target, past its check */
}

byte cur = 1;     /* the write that is to be acknowledged next */
byte content;     /* the write that took effect last */
byte live;
port own[HOSTS], old[HOSTS];
byte faults = FAULTS;

/* ---- the plugin ----------------------------------------------------------*/

#define HELD    0 /* requests wait */
#define OPENING 1 /* GO was sent to peer */
#define PEER    2
#define HOMING  3 /* registering */
#define FENCING 4 /* registered; fencing the suspects */
#define LOCAL   5

byte phase;
byte peer;
byte suspects;
byte disk; /* the suspects its successor will find */
/* A clean move: the peer that is asked while the present route serves; 0: none.
 * ready: it has answered GO, which fenced nobody. */
byte early;
bool ready;

/* ---- the proxies of A and B ------------------------------------------------
 */

byte unread[HOSTS];  /* requests of connections that the plugin has left */

#define GO_NONE  0
#define GO_SENT  1
#define GO_OLDER 2 /* step 3: waits for what lower generations submitted */
#define GO_FENCE 3 /* step 4 */
byte go[HOSTS];
bool go_wanted[HOSTS]; /* the plugin waits for the answer */
#ifdef NO_RULE_DISK_GENERATION
bool last[HOSTS];      /* whom the predecessor opened, to be asked again under
                        * the same generation */
#endif
byte to_fence[HOSTS];  /* by this host: hosts not yet fenced */
bool dead[HOSTS];      /* its paths, for good */

/* With REACH_x the model fails where x happens, which shows that it does. */
#ifdef REACH_FENCED
#define NOTE_FENCED assert(false)
#else
#define NOTE_FENCED skip
#endif
#ifdef REACH_ABORTED
#define NOTE_ABORTED(set) assert(!(set))
#else
#define NOTE_ABORTED(set) skip
#endif
#ifdef REACH_HOME
#define NOTE_HOME assert(!ORPHANS_AT(A) && !ORPHANS_AT(B))
#else
#define NOTE_HOME skip
#endif
#ifdef REACH_READ
#define NOTE_READ assert(false)
#else
#define NOTE_READ skip
#endif
#ifdef REACH_EARLY
#define NOTE_EARLY assert(false)
#else
#define NOTE_EARLY skip
#endif
#define ORPHANS_AT(p) (unread[p] || own[p].net || old[p].net)

#define running (cur <= N)
#define fault   (running && faults > 0)
#define place   (phase == LOCAL -> H : peer)
#define wants(h) \
    (!dead[h] && (h != H || phase == HOMING || phase == PEER))
#define serves(p) (registered(p) && !dead[p])

#define fencing(f) (f == H -> phase == FENCING : go[f] == GO_FENCE)

#ifdef NO_RULE_STEP1
#define STEP1 && false
#else
#define STEP1
#endif
#ifdef NO_RULE_OLDER
#define CLOSES_OLDER false
#elif defined NO_RULE_DISK_GENERATION
#define CLOSES_OLDER !last[p]
#else
#define CLOSES_OLDER true
#endif
#ifdef NO_RULE_WAIT
#define older_ended(p) true
#else
#define older_ended(p) tally_empty(p)
#endif
#ifdef NO_RULE_FENCE
#define NAMED & 0
#else
#define NAMED
#endif

#define wants_home (!dead[H])
#ifdef NO_RULE_HOME_FENCE
#define AT_HOME & 0
#else
#define AT_HOME
#endif


/* ---- what happens to writes ------------------------------------------------
 */

inline apply(w)
{
    content = w;
    assert(w >= cur - 1) /* no older one after a newer one's answer */
}

/* PREEMPT AND ABORT: what is in the target ends; the network is not reached,
 * but what is in it meets a conflict. */
inline abort_own(h)
{
#ifdef NO_RULE_ABORT
    skip
#else
    NOTE_ABORTED(own[h].lun);
    own[h].lun = 0;
    if
    :: live == LUN && place == h -> live = GONE
    :: else
    fi
#endif
}

inline abort_old(h)
{
#ifdef NO_RULE_ABORT
    skip
#else
    NOTE_ABORTED(old[h].lun);
    old[h].lun = 0
#endif
}

inline orphan(set, w)
{
#ifndef BROKEN
    assert(!(set & bit(w))); /* one copy at most: sets lose nothing */
#endif
    set = set | bit(w)
}

#define victim(f) \
    (to_fence[f] & bit(H) -> H : (to_fence[f] & bit(A) -> A : B))

/* A host that registers again before its fencer has read the keys makes it go
 * round once more.  For ever, in theory: it counts as a fault. */
#define fenced_by(f, h) ((to_fence[f] & bit(h)) && fencing(f))
#define being_fenced(h) (fenced_by(H, h) || fenced_by(A, h) || fenced_by(B, h))
#define calm(h)         (faults > 0 || !being_fenced(h))
inline hurry(h)
{
    if
    :: being_fenced(h) -> faults--
    :: else
    fi
}

inline cut_off(f, v) { to_fence[f] = to_fence[f] & ~bit(v) }

inline bequeath(h)
{
    old[h].net = old[h].net | own[h].net;
    old[h].lun = old[h].lun | own[h].lun;
    own[h].net = 0;
    own[h].lun = 0
}

#ifdef ISCSI
#include "iscsi.pml"
#else
#include "block.pml"
#endif

inline stop_fencing(f)
{
    if
    :: to_fence[f] -> drop_aim(f, victim(f)); to_fence[f] = 0
    :: else
    fi
}

inline stop_homing() { stop_fencing(H); phase = HELD }

inline suspect(h)
{
    if
#ifdef NO_RULE_SUSPECT_SELF
    :: h == H -> skip
#endif
#ifdef NO_RULE_SUSPECT_PEER
    :: h != H -> skip
#endif
    :: else -> suspects = suspects | bit(h)
    fi
}

/* A session that stood ready is closed, its GO no longer waited for. */
inline drop_early()
{
    if
    :: early && !ready -> go_wanted[early] = false
    :: else
    fi;
    early = 0; ready = false
}

/* The plugin leaves its route, with a write unanswered or without.  `cut':
 * the proxy has closed the connection, or is no more. */
inline leave(cut)
{
#ifdef NO_RULE_EARLY
    if
    :: !ready -> drop_early()
    :: else
    fi;
#else
    drop_early();
#endif
    if
    :: live && phase == LOCAL ->
        suspect(H);
        if
        :: live == NET -> orphan(own[H].net, cur)
        :: live == LUN -> orphan(own[H].lun, cur)
        :: else
        fi
    :: live && phase == PEER ->
        suspect(peer);
        if
        :: live == UNREAD && !cut -> orphan(unread[peer], cur)
        :: live == NET -> orphan(own[peer].net, cur)
        :: live == LUN -> orphan(own[peer].lun, cur)
        :: else
        fi
    :: else
    fi;
    if
    :: phase == LOCAL -> release(H)
    :: else
    fi;
    live = NONE;
    phase = HELD;
    peer = 0
}

/* ---- proxies ---------------------------------------------------------------
 */

inline close_session(p)
{
    if
    :: phase == PEER && peer == p -> leave(true)
    :: else
    fi;
    if
    :: early == p && ready -> drop_early()
    :: else
    fi;
    unread[p] = 0
}

inline end_go(p, granted)
{
    if
    :: go_wanted[p] && early == p ->
        ready = granted;
        early = (granted -> p : 0)
    :: go_wanted[p] && granted && early != p ->
        phase = PEER; live = UNREAD; suspects = 0; disk = bit(p)
    :: go_wanted[p] && !granted && early != p -> phase = HELD; peer = 0
    :: else
    fi;
    go[p] = GO_NONE; go_wanted[p] = false; to_fence[p] = 0
}

/* Its registration is over: for the plugin, and for a proxy. */
inline fenced(h)
{
    forget(h);
    if
    :: h == H && phase == LOCAL -> leave(false)
    :: h == H && (phase == HOMING || phase == FENCING) -> stop_homing()
    :: h == H && phase < HOMING
    :: h != H ->
#ifndef NO_RULE_CLOSE
        close_session(h);
#endif
        if
        :: go[h] > GO_SENT -> stop_fencing(h); end_go(h, false)
        :: else
        fi
    fi
}

/* ---- fencing ---------------------------------------------------------------
 */

inline come_home()
{
    NOTE_HOME;
    phase = LOCAL; live = (can_submit(H) -> NET : WAIT); suspects = 0; disk = bit(H)
}

inline registered_now(h)
{
    if
    :: h == H && phase == HOMING ->
        to_fence[H] = (suspects & ~bit(H)) AT_HOME;
        phase = FENCING
    :: else
    fi
}

/* ---- the target ------------------------------------------------------------
 */

#define EACH_WRITE(set, action) \
    :: atomic { (set & bit(1)) -> action(1) } \
    :: atomic { (set & bit(2)) -> action(2) } \
    :: atomic { (set & bit(3)) -> action(3) }

#define PASS_OWN(w) own[h].net = own[h].net & ~bit(w); check(own[h].lun, w, may_pass(h))
#define PASS_OLD(w) old[h].net = old[h].net & ~bit(w); check(old[h].lun, w, old_may_pass(h))
#define END_OWN(w)  own[h].lun = own[h].lun & ~bit(w); apply(w)
#define END_OLD(w)  old[h].lun = old[h].lun & ~bit(w); apply(w)

inline check(set, w, passes)
{
    if
    :: passes -> orphan(set, w)
    :: else -> NOTE_FENCED
    fi
}

#ifdef ISCSI
#include "iscsi_host.pml"
#else
#include "block_host.pml"
#endif

/* The client's next write follows at once, or the route is left cleanly. */
inline acknowledged()
{
    assert(content == cur);
    cur++;
    if
    :: cur > N -> live = NONE; suspects = 0; disk = 0
    :: cur <= N && phase == PEER -> live = UNREAD
    :: cur <= N && phase == LOCAL -> live = (can_submit(H) -> NET : WAIT)
    fi
}

/* The last write was answered, the next one goes to whom stands ready. */
inline move()
{
    NOTE_EARLY;
    if
    :: phase == LOCAL -> release(H)
    :: else
    fi;
    if
    :: cur <= N -> live = UNREAD
    :: else -> live = NONE
    fi;
    phase = PEER; peer = early; disk = bit(early); early = 0; ready = false
}

/* A host, and what the target does about it. */
proctype host(byte h)
{
end:
    do
    HOST_STEPS
    /* one step of fencing the next victim */
    :: atomic { running && to_fence[h] && fencing(h) && can_aim(h) ->
           look(h, victim(h)) }
    :: atomic { to_fence[h] && can_land(h) ->
           land(h, victim(h)) }
    :: atomic { live == NET && place == h && !dead[h] ->
           if
           :: may_pass(h) -> live = LUN
           :: !may_pass(h) && h == H -> live = NONE; fenced(h)
           :: !may_pass(h) && h != H -> live = GONE; fenced(h)
           fi }
    :: atomic { live == LUN && place == h -> live = DONE; apply(cur) }
    :: atomic { live == DONE && place == h ->
           acknowledged() }
    :: atomic { live == DONE && place == h && fault ->
           faults--; acknowledged(); live = NONE; leave(false) }
    :: atomic { live == DONE && place == h && ready ->
           acknowledged(); move() }
    EACH_WRITE(own[h].net, PASS_OWN)
    EACH_WRITE(old[h].net, PASS_OLD)
    EACH_WRITE(own[h].lun, END_OWN)
    EACH_WRITE(old[h].lun, END_OLD)
    od
}

/* ---- a proxy ---------------------------------------------------------------
 */

#define READ(w) NOTE_READ; unread[p] = unread[p] & ~bit(w); orphan(own[p].net, w)

/* Step 1, and the first half of 3: sessions of lower generations are closed.
 * (Step 2: an opening that was given up is answered here before the next one
 * to the same peer; README.md tells why nothing is lost by that.) */
inline claim(p)
{
    if
    :: !serves(p) STEP1 -> end_go(p, false)
    :: else ->
        if
        :: CLOSES_OLDER -> close_session(p)
        :: else
        fi;
        go[p] = GO_OLDER
    fi
}

inline kill_proxy(p)
{
    close_session(p);
    if
    :: go[p] -> stop_fencing(p); end_go(p, false)
    :: else
    fi;
    process_dies(p)
}

proctype proxy(byte p)
{
end:
    do
    :: atomic { running && go[p] == GO_SENT -> claim(p) }
    :: atomic { running && go[p] == GO_OLDER && older_ended(p) ->
           go[p] = GO_FENCE }
    :: atomic { running && go[p] == GO_FENCE && !to_fence[p] ->
           end_go(p, true) }
    /* a request is read, and submitted under the registration of now */
    :: atomic { live == UNREAD && peer == p && can_submit(p) && !dead[p] ->
           live = NET }
    :: atomic { (unread[p] & bit(1)) && can_submit(p) -> READ(1) }
    :: atomic { (unread[p] & bit(2)) && can_submit(p) -> READ(2) }
    :: atomic { (unread[p] & bit(3)) && can_submit(p) -> READ(3) }
    /* killed, and started again */
    :: atomic { fault && may_die(p) -> faults--; kill_proxy(p) }
    od
}

/* ---- the plugin ------------------------------------------------------------
 */

inline open(p)
{
    peer = p;
    phase = OPENING;
    disk = suspects | bit(p);
    go[p] = GO_SENT; go_wanted[p] = true;
    to_fence[p] = (suspects & ~bit(p)) NAMED
}

/* What suspects would be for, there is nothing to fence with this one. */
inline ask_early(p)
{
    early = p;
    disk = disk | bit(p);
    go[p] = GO_SENT; go_wanted[p] = true;
    to_fence[p] = 0
}

inline give_up_go()
{
    go_wanted[peer] = false;
    phase = HELD;
    peer = 0
}

inline kill_plugin()
{
    if
    :: phase == OPENING -> give_up_go()
    :: phase == HOMING || phase == FENCING -> stop_homing()
    :: phase == PEER || phase == LOCAL -> leave(false)
    :: else
    fi;
    drop_early();
    suspects = disk;
#ifdef NO_RULE_DISK_SUSPECTS
    suspects = 0;
#endif
#ifdef NO_RULE_DISK_GENERATION
    last[A] = disk & bit(A);
    last[B] = disk & bit(B);
#endif
    process_dies(H)
}

#define may_open(p) (!go[p] && serves(p))
#define may_ask(p) \
    (fault && (phase == PEER || phase == LOCAL) && peer != p && !early && \
     !suspects && may_open(p))

proctype plugin()
{
end:
    do
    /* somewhere to go */
    :: atomic { running && phase == HELD && may_open(A) -> open(A) }
    :: atomic { running && phase == HELD && may_open(B) -> open(B) }
    :: atomic { running && phase == HELD && wants_home && may_try_home(H) ->
           phase = HOMING;
           if
           :: registered(H) -> registered_now(H)
           :: else
           fi }
    :: atomic { running && phase == FENCING && !to_fence[H] && drained(H) &&
                buried(H) ->
           come_home() }
    /* what nobody notices but by waiting for it */
    :: atomic { running && live == GONE -> leave(false) }
    :: atomic { running && phase == OPENING && dead[peer] -> give_up_go() }
    /* a clean move begins */
    :: atomic { may_ask(A) -> faults--; ask_early(A) }
    :: atomic { may_ask(B) -> faults--; ask_early(B) }
#ifdef NO_RULE_EARLY
    :: atomic { running && phase == HELD && ready ->
           phase = PEER; peer = early; live = UNREAD; suspects = 0;
           disk = bit(early); early = 0; ready = false }
#endif
    /* a move; a connection or a path that breaks; patience that ends */
    :: atomic { fault && (phase == PEER || phase == LOCAL) ->
           faults--; leave(false) }
    :: atomic { fault && phase == OPENING -> faults--; give_up_go() }
    :: atomic { fault && (phase == HOMING || phase == FENCING) ->
           faults--; stop_homing() }
    :: atomic { fault && may_die(H) -> faults--; kill_plugin() }
    od
}

/* ---- paths that are lost for good; whoever can be served is served ---------
 */

inline die(h)
{
    dead[h] = true;
    fenced(h)
}

proctype judge()
{
end:
    do
#ifndef DEATHS
    :: false
#else
    :: atomic { fault && !dead[H] -> faults--; die(H) }
    :: atomic { fault && !dead[A] -> faults--; die(A) }
#endif
#ifndef BROKEN /* which counts ghosts only */
    :: timeout -> assert(cur > N); break
#endif
    od
}

init
{
    atomic {
        begin(H); begin(A); begin(B);
        disk = bit(H);
        phase = LOCAL; live = NET;
        run plugin();
        run proxy(A); run proxy(B);
        run host(H); run host(A); run host(B);
        run judge()
    }
}
