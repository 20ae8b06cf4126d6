/* What a phone is sent: one log, two nodes that follow it, and one phone, which may move and connect again.
 *
 * README.md beside this file says how to search it and what it must find. An alert has up to LAST entries: revisions,
 * then perhaps a cancel. Revision i of alert a covers one of two places, the next revision the other one. Time is one
 * bit for each alert: whether it has ended.
 */
#ifndef ALERTS
#define ALERTS 1
#define LAST 2   /* entries that publishers append for an alert; a cancel that is put back may get one number more */
#define FAILOVERS 1
#define KILLS 0
#define LOSSES 1 /* how often the phone loses its connection, besides those to nodes that are killed */
#define MOVES 1
#define PROMPT 0 /* or 1: a node sends at once, as the core does, and the phone is never slow */
#define REPLAY 0 /* or 1: for random histories, of which most would otherwise end early */
#endif
#ifndef BREAK
#define BREAK 0  /* or the number of a switch, which breaks one rule */
#endif
#define BREAK_END 1       /* a message that is owed is not checked again when it is sent */
#define BREAK_HAS 2       /* what was sent is not recorded */
#define BREAK_NEWER 3     /* an entry that is read again counts as new */
#define BREAK_RECIPIENT 4 /* who was sent an alert is not recorded */
#define BREAK_CLAIMS 5    /* what a phone holds is forgotten if the node has not read it yet */
#define BREAK_HELLO 6     /* what is owed is not looked up when a phone connects */
#define BREAK_MOVE 7      /* … or moves */
#define BREAK_REWIND 8    /* a node reads on where it was, although the log was rewound */
#define BREAK_PUT_BACK 9  /* what a failover lost is not put back */
#define BREAK_CONFLICT 10 /* a lost cancel is dropped if another entry has its number */

#define NONE 2 /* the phone's node, if it is not connected */
#define ROOM (ALERTS * (LAST + 1))
#define COVERS(a, i, p) (((a) + (i) + (p)) % 2)
#define BIT(i) (1 << (i))
#define AT(n, a) ((n) * ALERTS + (a))
#define ENTRY(a, i, c) ((a) * 16 + (i) * 2 + (c))
#define ALERT(e) ((e) / 16)
#define NUMBER(e) (((e) % 16) / 2)
#define IS_CANCEL(e) ((e) % 2)
#define FOR_EACH_ALERT a = 0; do :: a < ALERTS ->
#define NEXT a++ :: else -> break od

/* ---- the log: entries in order, and what they say about each alert */
byte log[ROOM], size;
byte inlog[ALERTS];         /* the numbers that it has, as bits */
byte cancel[ALERTS];        /* the number of its cancel, or 0 */
bit over[ALERTS];           /* it has ended */
bit cancelled[ALERTS];      /* a cancel was accepted once */

/* ---- the nodes: what they have read, what they keep in memory, what they apply */
byte position[2];
bit stale[2];               /* has not noticed the failover yet */
bit down[2];
byte copies[2 * ALERTS];    /* numbers of revisions in memory, as bits */
byte copy[2 * ALERTS];      /* the number of the cancel in memory, or 0 */
byte back[2];               /* alerts whose copies it still puts back, as bits */
byte known[2 * ALERTS];     /* the revision that it applies, or 0 */
bit ended[2 * ALERTS];      /* it has applied the cancel */

/* ---- the session of the phone on its node */
byte node = NONE;
bit place_there;            /* where the node believes the phone to be */
bit is_recipient[ALERTS];
bit is_owed[ALERTS];        /* something is to be sent */
byte has[ALERTS];           /* the newest revision that it was sent or said it holds */
byte claim[ALERTS];         /* a revision in `holding` that the node has not read yet, or 0 */
byte newest[ALERTS];        /* what was sent on this connection: the newest number */
bit told_end[ALERTS];       /* and whether that was the cancel */

/* ---- the phone */
bit place;
byte shown[ALERTS];         /* the revision that it shows, or 0 */
bit gone[ALERTS];           /* its cancel came */
chan wire = [2] of { byte } /* from the node; if it is full, the phone is slow */

byte failovers, kills, losses, moves;
hidden byte a, i, e;        /* set before each use */

#define IS_NEWER(number, than) (BREAK == BREAK_NEWER -> (number) != (than) : (number) > (than))
#define IS_DUE(n, a) (ended[AT(n, a)] -> is_recipient[a] : IS_NEWER(known[AT(n, a)], has[a]) && \
                      (is_recipient[a] || COVERS(a, known[AT(n, a)], place_there)))
#define IS_OWED(n, a) (known[AT(n, a)] && !over[a] && IS_DUE(n, a))
#define OWE(n, a) is_owed[a] = is_owed[a] || (node == n && IS_OWED(n, a))

/* The node learns that the phone holds an alert: from its hello, or when it reads what it did not know then. */
inline claims(n, a, held) {
    if :: known[AT(n, a)] -> is_recipient[a] = 1; has[a] = held; claim[a] = (held > known[AT(n, a)] -> held : 0)
    :: else -> claim[a] = held
    fi;
    if :: BREAK == BREAK_CLAIMS -> claim[a] = 0 :: else fi
}

/* ---- the log */
inline put(a, number, c) {
    assert(size < ROOM); log[size] = ENTRY(a, number, c); size++;
    inlog[a] = inlog[a] | BIT(number);
    if :: c -> cancel[a] = number :: else fi
}

/* What a node has in memory only matters while there may be something to put back. */
#define MAY_PUT_BACK(n, a) (!over[a] && (failovers < FAILOVERS || stale[n] || (back[n] & BIT(a))))

inline keep(n, a, number, c) {
    if :: MAY_PUT_BACK(n, a) && c -> copy[AT(n, a)] = number
    :: MAY_PUT_BACK(n, a) && !c -> copies[AT(n, a)] = copies[AT(n, a)] | BIT(number)
    :: else fi
}

inline forget(n, a) { copies[AT(n, a)] = 0; copy[AT(n, a)] = 0 }

inline find_last(a) {
    i = LAST + 1;
    do :: i > 0 && !(inlog[a] & BIT(i)) -> i-- :: else -> break od
}

/* A publisher appends the next entry at node n, which then has all entries of the alert in memory. */
inline append(n, a, c) {
    if :: MAY_PUT_BACK(n, a) -> copies[AT(n, a)] = copies[AT(n, a)] | inlog[a] :: else fi;
    find_last(a); i++;
    put(a, i, c); keep(n, a, i, c);
    cancelled[a] = cancelled[a] || c;
    printf("append %d %d %d by %d\n", a, i, c, n)
}

/* The log loses all but its first entries. */
inline fail_over(left) {
    failovers++; size = left;
    FOR_EACH_ALERT inlog[a] = 0; cancel[a] = 0; NEXT;
    i = 0;
    do
    :: i < size ->
        inlog[ALERT(log[i])] = inlog[ALERT(log[i])] | BIT(NUMBER(log[i]));
        if :: IS_CANCEL(log[i]) -> cancel[ALERT(log[i])] = NUMBER(log[i]) :: else fi;
        i++
    :: i >= size && i < ROOM -> log[i] = 0; i++
    :: else -> break
    od;
    stale[0] = !down[0]; stale[1] = !down[1];
    printf("fail over %d\n", left)
}

/* Node n notices that the log was rewound: it reads all of it again, and will put back what is missing. */
inline notice(n) {
    stale[n] = 0;
    if :: BREAK != BREAK_REWIND -> position[n] = 0 :: else fi;
    if :: BREAK != BREAK_PUT_BACK -> back[n] = BIT(ALERTS) - 1 :: else fi;
    printf("notice by %d\n", n)
}

/* Node n puts back what the log has lost of an alert, with one script. */
inline put_back(n, a) {
    i = 1;
    do
    :: i <= LAST && !over[a] ->
        if :: (copies[AT(n, a)] & BIT(i)) && !(inlog[a] & BIT(i)) && (!cancel[a] || i < cancel[a]) -> put(a, i, 0)
        :: else fi;
        i++
    :: else -> break
    od;
    find_last(a);
    if :: !copy[AT(n, a)] || cancel[a] || over[a]
    :: else ->
        if :: i < copy[AT(n, a)] -> put(a, copy[AT(n, a)], 1)
        :: i >= copy[AT(n, a)] && BREAK != BREAK_CONFLICT -> i++; put(a, i, 1); copy[AT(n, a)] = i
        :: else fi
    fi;
    back[n] = back[n] & ~BIT(a);
    if :: MAY_PUT_BACK(n, a) :: else -> forget(n, a) fi;
    printf("put back %d by %d\n", a, n)
}

/* ---- nodes and the phone */
/* Node n reads the next entry and applies it. */
inline read(n) {
    e = log[position[n]]; a = ALERT(e); i = NUMBER(e); position[n]++;
    keep(n, a, i, IS_CANCEL(e));
    if :: IS_CANCEL(e) -> ended[AT(n, a)] = 1
    :: !IS_CANCEL(e) && !(ended[AT(n, a)] && known[AT(n, a)]) && IS_NEWER(i, known[AT(n, a)]) ->
        known[AT(n, a)] = i;
        if :: node == n && claim[a] -> claims(n, a, claim[a]) :: else fi
    :: else fi;
    OWE(n, a);
    printf("read %d %d %d by %d\n", a, i, IS_CANCEL(e), n)
}

inline disconnect() {
    node = NONE; place_there = 0;
    FOR_EACH_ALERT is_recipient[a] = 0; is_owed[a] = 0; has[a] = 0; claim[a] = 0; newest[a] = 0; told_end[a] = 0; NEXT;
    do :: len(wire) > 0 -> wire ? e :: len(wire) == 0 -> break od;
    printf("disconnect\n")
}

inline connect(n) {
    node = n; place_there = place;
    FOR_EACH_ALERT
        if :: shown[a] && !over[a] -> claims(n, a, shown[a]) :: else fi;
        if :: BREAK != BREAK_HELLO -> OWE(n, a) :: else fi;
    NEXT;
    printf("connect %d\n", n)
}

inline arrive() {
    place_there = place;
    if :: BREAK != BREAK_MOVE -> FOR_EACH_ALERT OWE(node, a); NEXT :: else fi;
    printf("arrive %d\n", place)
}

inline kill(n) {
    kills++; down[n] = 1; stale[n] = 0; position[n] = 0; back[n] = 0;
    FOR_EACH_ALERT forget(n, a); known[AT(n, a)] = 0; ended[AT(n, a)] = 0; NEXT;
    printf("kill %d\n", n);
    if :: node == n -> disconnect() :: else fi
}

/* The node sends what it owes, unless nothing is due any more. */
inline send(n, a) {
    is_owed[a] = 0; i = known[AT(n, a)];
    if :: !IS_OWED(n, a) && !(BREAK == BREAK_END && i && IS_DUE(n, a))
    :: else ->
        assert(!over[a]);     /* nothing after the end */
        assert(!told_end[a]); /* nothing after the cancel */
        if :: ended[AT(n, a)] -> told_end[a] = 1; is_recipient[a] = 0; has[a] = 0; wire ! ENTRY(a, 0, 1)
        :: else ->
            assert(i != newest[a]);                               /* each revision once on a connection */
            assert(i > newest[a]);                                /* no revision goes back */
            assert(is_recipient[a] || COVERS(a, i, place_there)); /* nobody outside is told */
            newest[a] = i;
            is_recipient[a] = BREAK != BREAK_RECIPIENT;
            if :: BREAK != BREAK_HAS -> has[a] = i :: else -> is_owed[a] = 1 fi;
            wire ! ENTRY(a, i, 0)
        fi;
        printf("sent %d %d %d\n", a, (ended[AT(n, a)] -> 0 : i), ended[AT(n, a)])
    fi
}

inline hear() {
    wire ? e; a = ALERT(e);
    if :: IS_CANCEL(e) -> shown[a] = 0; gone[a] = 1
    :: !IS_CANCEL(e) && !gone[a] && !over[a] && NUMBER(e) > shown[a] -> shown[a] = NUMBER(e)
    :: else fi
}

inline end(a) { over[a] = 1; shown[a] = 0; forget(0, a); forget(1, a); printf("end %d\n", a) }

/* Everything has come to rest: nobody inside is missed, and a cancel has reached everybody who was sent its alert. */
inline judge() {
    FOR_EACH_ALERT
        find_last(a);
        assert(over[a] || kills > 0 || !cancelled[a] || cancel[a]);
        assert(over[a] || !cancel[a] || !shown[a]);
        assert(over[a] || cancel[a] || !shown[a] || shown[a] >= i);
        assert(over[a] || cancel[a] || !i || !COVERS(a, i, place) || gone[a] || shown[a] >= i);
    NEXT
}

#if ALERTS > 1
#define EACH(of_alert) of_alert(0) of_alert(1)
#else
#define EACH(of_alert) of_alert(0)
#endif
#define IS_ANY_OWED (is_owed[0] || is_owed[ALERTS - 1])
#define STEP(guard) :: d_step { (!PROMPT || len(wire) == 0 && !IS_ANY_OWED) && (guard) ->
#define CAN_APPEND(n, a) (!down[n] && !cancel[a] && !over[a] && !(inlog[a] >> LAST))
#define OF_ALERT(n, a) \
    STEP(CAN_APPEND(n, a)) append(n, a, 0) } \
    STEP(CAN_APPEND(n, a) && inlog[a]) append(n, a, 1) } \
    STEP(back[n] & BIT(a)) put_back(n, a) } \
    :: d_step { node == n && is_owed[a] && nfull(wire) -> send(n, a) }
#define OF_0(a) OF_ALERT(0, a)
#define OF_1(a) OF_ALERT(1, a)
#define OF_NODE(n) \
    STEP(!down[n] && position[n] < size) read(n) } \
    STEP(stale[n]) notice(n) } \
    STEP(kills < KILLS && !down[n]) kill(n) } \
    STEP(down[n]) down[n] = 0 } \
    STEP(node == NONE && !down[n]) connect(n) } \
    EACH(OF_##n)
#define LOSS(left) STEP(failovers < FAILOVERS && size > left) fail_over(left) }
#define END(a) STEP(!over[a] && inlog[a] && (!REPLAY || cancel[a] || inlog[a] >> LAST)) end(a) }
#define IS_REACHED (node != NONE && place_there == place && len(wire) == 0 && !IS_ANY_OWED)
#define IS_AT_REST(n) (!down[n] && !stale[n] && !back[n] && position[n] == size)

init {
    do
    OF_NODE(0)
    OF_NODE(1)
    LOSS(0) LOSS(1) LOSS(2) LOSS(3) LOSS(4) EACH(END)
    STEP(node != NONE && losses < LOSSES) losses++; disconnect() }
    STEP(moves < MOVES) moves++; place = !place; printf("move %d\n", place) }
    STEP(node != NONE && place_there != place) arrive() }
    :: d_step { len(wire) > 0 -> hear() }
    :: d_step { !REPLAY && IS_AT_REST(0) && IS_AT_REST(1) && IS_REACHED -> judge(); skip }
    :: else -> break
    od;
    printf("done\n")
}
