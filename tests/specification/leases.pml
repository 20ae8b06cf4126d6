/* Who may push to the devices of a shard: two processes, one lease in a store, and the store's replica.
 *
 * README.md beside this file says how to search it and what the switches are. All times are relative, so time has no
 * end. A process may ask at any moment, and its request and the answer may take any time, or never come.
 */
#define LEASE 3   /* in units of the longest time between the decision to push and the push */
#define PUSH 1
#ifndef BREAK
#define BREAK 0         /* or the number of a switch, which breaks one rule */
#endif
#define BREAK_COUNT 1   /* a process counts from the answer, not from when it asked */
#define BREAK_MARGIN 2  /* it decides to push although the lease may end before the push */
#define BREAK_NUMBER 3  /* the store renews a lease that somebody else has got since */
#define BREAK_DURABLE 4 /* a process does not wait for the replica */
#define BREAK_RECORD 5  /* the store accepts a record under an older lease */
#define MARGIN (BREAK == BREAK_MARGIN -> 0 : PUSH)
#ifndef GRANTS
#define GRANTS 3  /* how often the lease changes hands */
#endif

/* ---- the store and its replica */
byte number, left;             /* the lease: its number, and how long it lasts */
byte number2, left2;
byte grants;                   /* the greatest number so far; it is a time, so a failover does not undo it */
byte failovers;
byte stored;                   /* the number of the latest record */

/* ---- the processes */
mtype = { idle, asked, done };
mtype phase[2] = idle;
byte age[2];                   /* how long ago it asked */
byte answer[2];                /* the number that the store has given it, 0 for none */
bit is_durable[2];             /* whether the replica has this too */
byte mine[2], until[2];        /* the lease that it knows, and how long it lasts */
byte sends[2], under[2];       /* it will push before this time is over, if not 0; the lease at the decision */
byte pushed;                   /* the number under which the latest push was made */

inline older(time) { if :: time > 0 -> time-- :: else fi }

/* A unit of time passes. */
inline tick() {
    older(left); older(left2); older(until[0]); older(until[1]);
    if :: phase[0] != idle && age[0] < LEASE -> age[0]++ :: else fi;
    if :: phase[1] != idle && age[1] < LEASE -> age[1]++ :: else fi;
    older(sends[0]); older(sends[1])
}

inline ask(p) { phase[p] = asked }

inline forget_request(p) { phase[p] = idle; age[p] = 0; answer[p] = 0; is_durable[p] = 0 }

#define IS_RENEWAL(p) (mine[p] && (mine[p] >= number || BREAK == BREAK_NUMBER))

/* The store renews the lease, or grants it if it is free or has ended (Rules 1 to 3 of push/leases). */
inline lease(p) {
    phase[p] = done;
    is_durable[p] = 0;
    if
    :: IS_RENEWAL(p) -> answer[p] = mine[p]; number = mine[p]; left = LEASE
    :: !IS_RENEWAL(p) && left == 0 && grants < GRANTS ->
        grants++;
        number = grants; left = LEASE; answer[p] = number
    :: else -> answer[p] = 0
    fi
}

inline replicate() {
    number2 = number; left2 = left;
    is_durable[0] = phase[0] == done;
    is_durable[1] = phase[1] == done
}

/* The process hears the answer. It counts from when it asked (Rule 1). */
inline hear(p) {
    mine[p] = answer[p];
    until[p] = (answer[p] -> LEASE - (BREAK == BREAK_COUNT -> 0 : age[p]) : 0);
    forget_request(p)
}

inline fail_over() {
    failovers++;
    number = number2; left = left2;
    if :: phase[0] == done -> forget_request(0) :: else fi; /* the old primary answers nobody any more */
    if :: phase[1] == done -> forget_request(1) :: else fi
}

/* The process lets the shard go; the number stays, so that the next one is greater (Rule 4). */
inline release(p) {
    if :: number <= mine[p] -> number = mine[p]; left = 0 :: else fi;
    mine[p] = 0; until[p] = 0
}

inline crash(p) {
    forget_request(p);
    mine[p] = 0; until[p] = 0; sends[p] = 0; under[p] = 0
}

/* It pushes: nobody who came later has pushed before. */
inline push(p) {
    assert(under[p] >= pushed);
    pushed = under[p];
    sends[p] = 0;
    under[p] = 0
}

/* It records what it has sent; the store refuses a record under an older lease (Rule 2). */
inline record(p) {
    if
    :: mine[p] >= number || BREAK == BREAK_RECORD -> assert(mine[p] >= stored); stored = mine[p]
    :: else
    fi
}

#define OF_PROCESS(p) \
    :: d_step { phase[p] == idle -> ask(p) } \
    :: d_step { phase[p] == asked -> lease(p) } \
    :: d_step { phase[p] == done && (is_durable[p] || BREAK == BREAK_DURABLE) -> hear(p) } \
    :: d_step { phase[p] != idle && age[p] == LEASE -> forget_request(p) } \
    :: d_step { phase[p] == idle && mine[p] && !sends[p] -> release(p) } \
    :: d_step { mine[p] && until[p] > MARGIN && !sends[p] -> sends[p] = PUSH + 1; under[p] = mine[p] } \
    :: d_step { sends[p] -> push(p) } \
    :: d_step { mine[p] -> record(p) } \
    :: d_step { mine[p] || phase[p] != idle -> crash(p) }

init {
    do
    OF_PROCESS(0)
    OF_PROCESS(1)
    :: d_step { replicate() }
    :: d_step { failovers == 0 -> fail_over() }
    :: d_step { tick() }
    od
}
