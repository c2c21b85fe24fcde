/* SPDX-License-Identifier: BSD-3-Clause */
/* Kernel devices: how a host gets, keeps and loses the right to write. */

#define HOST_STEPS \
    /* its key is gone: seen by the monitor's tick or a conflict */ \
    :: atomic { running && held[h] && key[h] != held[h] -> fenced(h) } \
    :: atomic { running && other[h] && key[h] != other[h] -> other[h] = 0 } \
    /* the shared lock; the key on the LUN is the newest one: keep it */ \
    :: atomic { running && !held[h] && wants(h) && !sent[h] && \
                key[h] == NEWEST && drained(h) && buried(h) -> \
           held[h] = NEWEST; registered_now(h) } \
    :: atomic { running && h != B && !other[h] && !sent[h] && \
                key[h] == NEWEST -> other[h] = NEWEST } \
    /* the exclusive lock: register anew */ \
    :: atomic { running && !held[h] && wants(h) && !sent[h] && \
                key[h] != NEWEST && drained(h) && buried(h) && \
                exclusive_main(h) && calm(h) -> send_register(h) } \
    :: atomic { running && h != B && !other[h] && !sent[h] && \
                key[h] != NEWEST && exclusive_other(h) && calm(h) -> \
           send_register(h) } \
    /* it lands, and is answered */ \
    :: atomic { sent[h] && !dead[h] -> key[h] = NEWEST; sent[h] = 0 } \
    STRAY_STEPS \
    /* a PREEMPT of a host that is not modelled, or of a dead process */ \
    :: atomic { late[h] -> preempt(h, late[h]); late[h] = 0 } \
    :: atomic { fault && key[h] && !late[h] -> faults--; late[h] = NEWEST }

#ifdef NO_RULE_ANSWER
#define STRAY_STEPS \
    :: atomic { fault && sent[h] && !stray[h] -> \
           faults--; stray[h] = true; sent[h] = 0 } \
    :: atomic { stray[h] && key[h] == 0 -> key[h] = OLDER; stray[h] = false }
#else
#define STRAY_STEPS
#endif
