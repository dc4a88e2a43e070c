/* SPDX-License-Identifier: Apache-2.0
 *
 * The frame, arbiter and fork protocol of src/scope and src/core/fork.c, for spin. README.md says what corresponds to what, what
 * is checked and what is left out; check.sh runs it.
 *
 * Every load, every store and every compare-and-swap of what threads share is a step of its own. A d_step groups such a step only
 * with what is the thread's alone, or with ghosts: variables of the check that the code does not have.
 *
 * Parts of the world: FAIL, hooks may fail; HOOK, hooks enter and leave scopes; STAMP, the framework has a stamp and others change
 * its settings; JUMP, signal handlers jump out of the library; ATTACH, thread 2 attaches and detaches; FORK=n, thread 0 forks up
 * to n times; CALLS=n, each thread makes at most n calls, else any number. BREAK_...: faults that must be found.
 */
#define N 3 /* threads; each has one stack */
#ifndef DEPTH
#define DEPTH 2 /* how deep scopes nest */
#endif
#define FORKER 0
#define ATTACHER 2

/* ---- what is shared: the arbiter's word and variables, the stacks, the fork cell */

#define BUSY 1
#define ATTACHED 2
#define DEBT 4
#define ONE 8         /* of the count, which has three bits */
#define ATTACHMENT 64 /* one of the attachments' numbers, which has two: one attachment between load and swap must not go unseen */
#define COUNT(w) (((w) % ATTACHMENT) / ONE)
#ifdef BREAK_NUMBER
#define DETACHED(w) 0
#else
#define DETACHED(w) ((((w) / ATTACHMENT + 1) % 4) * ATTACHMENT)
#endif

short word;
bit ours, value, stamped;
bit counted[N];
byte depth[N], offs[N]; /* bit d: the frame at depth d is off; the frame at 0 never is */
#define OFF(i) ((offs[i] >> depth[i]) & 1)

#define QUIET 0
#define PENDING 1
#define EMPTY 2 /* the kernel has emptied the cell: a fork that ran no handlers */
byte cell;

bit flag; /* the framework's */
bit same; /* its stamp is what it was when the arbiter looked */
bit only; /* attached with DROWSE_FRAMEWORK_PARENT_ONLY */

/* ---- ghosts */

bit base;         /* what its user wants the flag to be */
bit attached;     /* attach has returned, detach has not begun */
bit promised[N];  /* the last call has returned OK with off current */
bit jumped[N];    /* the last call was abandoned */
bit meddled;      /* somebody else has set the flag while it was off for us */
bit left_alone;   /* a child of a framework that is the parent's only */
byte hooks;       /* running now */
byte calls;       /* of the library, going on now */
byte forks;
bit gone[N];      /* threads that a fork did not take along */

/* Invariant 6: where off was entered, the flag is off. */
inline check_promises() {
  assert(!(attached && flag && !meddled && (promised[0] || promised[1] || promised[2])));
}

/* ... and in both directions where nobody is in the middle of a call. A jump leaves work to that thread's next call, a fork to
 * the child's. */
inline check_rest() {
  if
  :: calls == 0 && cell == QUIET && (word & ATTACHED) ->
    assert(!(word & BUSY) && COUNT(word) == counted[0] + counted[1] + counted[2]);
    assert((counted[0] == OFF(0) || jumped[0]) && (counted[1] == OFF(1) || jumped[1]) &&
           (counted[2] == OFF(2) || jumped[2]));
    assert((word & DEBT) || meddled || flag == (COUNT(word) > 0 -> 0 : base));
    check_debt()
  :: calls == 0 && !(word & ATTACHED) && !left_alone -> assert(flag == base)
  :: else
  fi
}
#ifdef FAIL
inline check_debt() { skip }
#else
inline check_debt() { assert(!(word & DEBT)) }
#endif

mtype = { NONE, ENTER, END, OTHER, LOOK, RETURN, WAIT, SWAP, CROSS, COUNT_IT }; /* what a thread is doing */

/* ---- hooks (turn_off, turn_back, run_hook) */

#ifdef FAIL
#define HOOK_FAILS true
#else
#define HOOK_FAILS false
#endif

/* A hook that calls the library: dz_arbiter_settle() of its own thread, which is the busy one. Nobody else changes the word. */
inline hook_settles() {
  word = word + (OFF(me) - counted[me]) * ONE;
  counted[me] = OFF(me)
}
inline hook_scope(is_off) {
  d_step {
    offs[me] = (offs[me] & ((1 << (depth[me] + 1)) - 1)) | (is_off << (depth[me] + 1));
    depth[me] = depth[me] + 1;
    hook_settles();
    depth[me] = depth[me] - 1;
    offs[me] = offs[me] & ((1 << (depth[me] + 1)) - 1);
    hook_settles()
  }
}
inline hook_body() {
  if
  :: hook_scope(1)
  :: hook_scope(0)
  :: true
  fi
}
#ifdef HOOK
#define HOOK_BODY hook_body();
#else
#define HOOK_BODY
#endif

inline set_flag(to) {
  HOOK_BODY
  if
  :: d_step {
      flag = to;
      same = 0;
      check_promises()
    }
  :: HOOK_FAILS -> ok = 0
  fi
}

#ifdef STAMP
#define NOTE_STAMP d_step { same = 1; stamped = 1 }
#define UNSTAMP stamped = 0;
#else
#define NOTE_STAMP skip
#define UNSTAMP
#endif

#ifdef BREAK_VALUE
#define WAS_OURS 0
#else
#ifdef BREAK_FOREIGN_DEBT
#define WAS_OURS ours
#else
#define WAS_OURS (ours && !(stamped && !same))
#endif
#endif

inline turn_off() {
  if
  :: on = flag
  :: HOOK_FAILS -> ok = 0
  fi;
  if
  :: ok ->
    d_step {
      was_ours = WAS_OURS;
      value = (was_ours -> value : on)
    }
#ifndef BREAK_OURS
    ours = 1;
#endif
#ifndef BREAK_STAMPED
    UNSTAMP
#endif
    if
    :: on -> set_flag(0)
    :: else
    fi;
#ifdef BREAK_OURS
    ours = 1;
#endif
    if
    :: !ok -> ours = was_ours
    :: else -> meddled = 0
    fi;
    NOTE_STAMP
  :: else
  fi
}

inline turn_back() {
  if
  :: ours && value && !(stamped && !same) ->
    set_flag(1);
    if
    :: !ok -> NOTE_STAMP
    :: else
    fi
  :: else
  fi;
  if
  :: d_step {
      ok ->
      ours = 0;
      meddled = 0
    }
  :: else
  fi
}

/* ok tells how it went. */
inline run_hook(is_off) {
  d_step {
    assert(hooks == 0 && !left_alone); /* one after another; none in a child that is to leave the framework alone */
    hooks++;
    ok = 1;
    hook_off = (is_off)
  }
  if
  :: hook_off -> turn_off()
  :: else -> turn_back()
  fi;
  d_step {
    hooks--;
    hook_off = 0;
    on = 0;
    was_ours = 0
  }
}

/* ---- being busy */

inline wait_idle() {
  !(word & BUSY)
}

/* then: the new word. Nobody else changes it meanwhile. */
inline stop_busy() {
  word = then & ~BUSY
}

/* won: whether a framework is attached. */
inline become_busy() {
  won = 0;
  do
  :: now = word;
    if
    :: !(now & ATTACHED) -> break
    :: (now & ATTACHED) && (now & BUSY) -> wait_idle()
    :: else ->
      d_step {
        won = (word == now);
        word = (won -> now | BUSY : word)
      }
      if
      :: won -> break
      :: else
      fi
    fi
  od;
  now = 0
}

/* ---- fork: the child's memory is the parent's at that moment; only the forking thread is there */

inline count_all_in_child() {
  i = 0;
  do
  :: i < N ->
    counted[i] = OFF(i);
    i++
  :: else -> break
  od
}

#ifdef BREAK_RECOUNT
#define CHILD_COUNT COUNT(word)
#else
#define CHILD_COUNT (counted[0] + counted[1] + counted[2])
#endif
#ifdef BREAK_CHILD_BUSY
#define CHILD_WRONG ((word & DEBT) || (CHILD_COUNT > 0) != ours)
#else
#define CHILD_WRONG ((word & (BUSY | DEBT)) || (CHILD_COUNT > 0) != ours)
#endif
#ifdef BREAK_PEND
#define PEND QUIET
#else
#define PEND PENDING
#endif
#ifdef BREAK_ONLY
#define CHILD_DETACHES !(word & ATTACHED)
#else
#define CHILD_DETACHES (!(word & ATTACHED) || only)
#endif

/* dz_arbiter_child() */
inline child() {
  d_step {
    cell = QUIET;
    if
    :: CHILD_DETACHES -> word = DETACHED(word)
    :: else ->
      count_all_in_child();
      i = 0;
      now = DETACHED(word) + ATTACHED + CHILD_COUNT * ONE;
      cell = (CHILD_WRONG -> PEND : QUIET);
      word = (CHILD_WRONG -> now + DEBT : now);
      now = 0
    fi
  }
}

/* fork() runs the handlers, bare: _Fork() and clone() leave that to the next call. */
inline fork_here(bare) {
  d_step {
    forks++;
    i = 1;
    do
    :: i < N ->
      gone[i] = 1;
      depth[i] = 0;
      offs[i] = 0;
      promised[i] = 0;
      jumped[i] = 0;
      i++
    :: else -> break
    od;
    i = 0;
    hooks = 0;
    calls = (kind != NONE);
    promised[FORKER] = 0; /* until the child's next call */
    attached = (word & ATTACHED) && !only;
    left_alone = left_alone || ((word & ATTACHED) && only);
    cell = EMPTY
  }
  if
  :: bare
  :: !(bare) -> child()
  fi
}

/* dz_arbiter_check_fork(), dz_arbiter_after_fork() */
inline check_fork() {
  if
  :: cell == EMPTY -> child()
  :: else
  fi;
  if
  :: d_step {
      cell == PENDING ->
      cell = QUIET;
      calls++
    }
    become_busy();
    if
    :: won ->
      run_hook(COUNT(word) > 0);
      then = (ok -> word & ~DEBT : word);
      stop_busy()
    :: else
    fi;
    d_step {
      then = 0;
      won = 0;
      ok = 1;
      calls--
    }
  :: else
  fi
}
#ifdef FORK
#define CHECK_FORK check_fork();
#else
#define CHECK_FORK
#endif

/* ---- counting (settle, cross): ok tells how it went */

inline cross() {
  was_counted = counted[me];
#ifdef BREAK_BUSY
  counted[me] = off;
#endif
  run_hook(COUNT(word + (off - counted[me]) * ONE) > 0);
  counts = (ok || ending -> off : was_counted);
#ifdef BREAK_HOOK_COUNT
  then = word + (counts - was_counted) * ONE;
#else
  then = word + (counts - counted[me]) * ONE;
#endif
  counted[me] = counts;
#ifdef BREAK_DEBT
  then = (ok -> then & ~DEBT : then);
#else
  then = (ok -> then & ~DEBT : (ending -> then | DEBT : then));
#endif
  d_step {
    stop_busy();
    was_counted = 0;
    counts = 0;
    forget_look()
  }
}

#ifdef BREAK_BUSY /* the crossing counts at once, and who does not cross does not wait for its hook */
#define MUST_WAIT ((now & BUSY) && crosses)
#define CROSSING (then | BUSY)
#else
#define MUST_WAIT (now & BUSY)
#define CROSSING (now | BUSY)
#endif

/* Only attaching writes another stack's counted: without it looking at one's own is no step. */
#ifdef ATTACH
#define PRIVATE
#else
#define PRIVATE d_step
#endif

/* What was loaded is kept only for the swap, to have fewer states. */
inline look() {
  PRIVATE {
    now = word;
    d_step {
      off = OFF(me);
      then = now + (off - counted[me]) * ONE;
      crosses = (COUNT(now) == 0) != (COUNT(then) == 0) || (now & DEBT);
      next = SWAP;
      if
      :: !(now & ATTACHED) -> next = RETURN
      :: else ->
        if
        :: MUST_WAIT -> next = WAIT
        :: !MUST_WAIT && then == now && !crosses -> next = RETURN
        :: else
        fi
      fi;
      if
      :: next != SWAP -> forget_look()
      :: else
      fi
    }
  }
}

inline forget_look() {
  now = 0;
  then = 0;
  off = 0;
  crosses = 0
}

inline settle() {
  do
  :: look();
    if
    :: next == RETURN -> break
    :: next == WAIT && !(word & BUSY)
    :: d_step {
        next == SWAP ->
        next = LOOK;
        assert(word != now || then >= 0);
        if
        :: word == now && crosses -> word = CROSSING; next = CROSS
        :: word == now && !crosses -> word = then; next = COUNT_IT
        :: else -> forget_look()
        fi
      }
      if
      :: next == CROSS -> cross(); break
      :: d_step {
          next == COUNT_IT ->
          counted[me] = off;
          forget_look()
        }
        break
      :: next == LOOK
      fi
    fi
  od;
  next = LOOK
}

/* concerns_arbiter() */
#ifdef BREAK_JUMP
#define NOT_CONCERNED !(was || OFF(me))
#else
#define NOT_CONCERNED !(was || OFF(me) || counted[me])
#endif
#ifdef BREAK_SETTLE_FORK
#define CHECK_FORK_AGAIN
#else
#define CHECK_FORK_AGAIN CHECK_FORK
#endif
#ifdef BREAK_THREAD_FENCE
#define NOT_ATTACHED early
#else
#define NOT_ATTACHED !(word & ATTACHED)
#endif

/* dz_arbiter_settle(). The fence stands where the store and this load are two steps in this order; signals are blocked behind it,
 * so a fork in a signal handler has its last chance before the second look at the fork cell. */
inline dz_arbiter_settle() {
  if
  :: NOT_CONCERNED || NOT_ATTACHED -> ok = 1
  :: else -> CHECK_FORK_AGAIN settle()
  fi
}

#ifdef CALLS
#define MAY_CALL (left > 0)
#define SPEND left--
#else
#define MAY_CALL true
#define SPEND skip
#endif

/* ---- frames (push, dz_frame_end) */

/* Makes the frame at a new depth current by one store. What lies above is forgotten, to have fewer states; so what a frame's place
 * holds is never seen without its depth, which release and acquire see to in the code. */
inline store_depth(to) {
  depth[me] = to;
  offs[me] = my_offs & ((1 << (to + 1)) - 1);
  my_depth = to;
  my_offs = offs[me]
}

#ifdef BREAK_THREAD_FENCE /* the load of the word overtakes the store of the frame */
#define LOAD_EARLY early = !(word & ATTACHED);
#else
#define LOAD_EARLY
#endif

/* A call begins, and changes the depth. */
inline push(is_off) {
  LOAD_EARLY
  d_step {
    MAY_CALL && depth[me] < DEPTH ->
    SPEND;
    kind = ENTER;
    calls++;
    promised[me] = 0;
    target = depth[me] + 1;
    was = OFF(me);
    my_offs = my_offs | (is_off << target);
    store_depth(target)
  }
}

inline end_frames(to, possible) {
  LOAD_EARLY
  d_step {
    MAY_CALL && (possible) ->
    SPEND;
    kind = END;
    calls++;
    promised[me] = 0;
    was = OFF(me);
    ending = 1;
    store_depth(to)
  }
}

/* A call is over, or abandoned. */
inline forget() {
  kind = NONE;
  was = 0;
  early = 0;
  target = 0;
  ending = 0;
  ok = 1;
  now = 0;
  then = 0;
  off = 0;
  crosses = 0;
  won = 0;
  next = LOOK;
  calls--
}

inline end_call() {
  d_step {
    /* Invariant 5, and 4: the frame is what the scopes that are open say. */
    assert(depth[me] == my_depth && ((offs[me] ^ my_offs) & ((1 << (my_depth + 1)) - 1)) == 0);
    jumped[me] = 0;
    promised[me] = ok && OFF(me);
    forget();
    check_promises();
    check_rest()
  }
}

inline abandon_call() {
  d_step {
    jumped[me] = 1;
    forget()
  }
}

#ifdef FORK
#define FORKS FORK
#else
#define FORKS 0
#endif
#ifdef JUMP
#define JUMPS true
#else
#define JUMPS false
#endif

/* Between the two halves of a change: a signal handler may jump, or fork. */
inline interrupted() {
  if
  :: me == FORKER && forks < FORKS -> fork_here(0)
  :: me == FORKER && forks < FORKS -> fork_here(1)
  :: JUMPS -> goto abandoned
  :: true
  fi
}
#if defined(FORK) || defined(JUMP)
#define INTERRUPTED interrupted();
#else
#define INTERRUPTED
#endif

/* ---- attaching */

inline framework_attach() {
  CHECK_FORK
  now = word;
  d_step {
    won = !(now & (ATTACHED | BUSY)) && word == now;
    word = (won -> now | BUSY : word)
  }
  if
  :: won ->
    if
    :: only = 0
#ifdef FORK
    :: only = 1
#endif
    fi;
    d_step {
      ours = 0;
      stamped = 0;
      base = (left_alone -> flag : base);
      left_alone = 0
    }
#ifndef BREAK_ATTACH_FENCE
    word = now | BUSY | ATTACHED;
#endif
    then = 0;
    i = 0;
    do
    :: i < N ->
      d_step {
#ifndef BREAK_COUNTED
        counted[i] = OFF(i);
#endif
        then = then + OFF(i) * ONE;
        i++
      }
    :: else -> i = 0; break
    od;
    word = (now | BUSY | ATTACHED) + then;
    ok = 1;
    if
    :: then > 0 -> run_hook(1)
    :: else
    fi;
    d_step {
      then = (ok -> (now | ATTACHED) + then : now);
      stop_busy();
      attached = ok;
      check_promises()
    }
  :: else
  fi;
  d_step {
    now = 0;
    then = 0;
    won = 0
  }
}

inline framework_detach() {
  CHECK_FORK
  become_busy();
  if
  :: won ->
    attached = 0;
    ok = 1;
    if
    :: ours -> run_hook(0)
    :: else
    fi;
    d_step {
      then = (ok -> DETACHED(word) : word);
      stop_busy();
      attached = !ok;
      check_promises()
    }
  :: else
  fi;
  d_step {
    then = 0;
    won = 0
  }
}

/* ---- a thread and its user, who may do anything at any time */

inline begin_other() {
  d_step {
    MAY_CALL && me == ATTACHER ->
    SPEND;
    kind = OTHER;
    calls++
  }
}

inline end_other() {
  d_step {
    forget();
    check_rest()
  }
}

/* Somebody else sets the flag, and means it. */
inline meddle() {
  d_step {
    MAY_CALL && !(word & BUSY) && cell == QUIET && !(forks > 0 && (word & DEBT)) ->
    SPEND;
    flag = !flag;
    base = flag;
    same = 0;
    meddled = ours
  }
}

proctype thread(byte me) {
  mtype kind = NONE, next = LOOK;
  short now, then;
  byte target, my_depth, my_offs, i;
  bit was, off, crosses, won, early, ending, ok = 1, on, was_ours, was_counted, counts, hook_off;
#ifdef CALLS
  byte left = CALLS;
#endif

begin:
  {
end_idle:
    do
    :: CHECK_FORK
      if
      :: push(1) -> goto entered
      :: push(0) -> goto entered
      :: end_frames(0, depth[me] > 0 || jumped[me]) -> goto ended /* leave, unwind, the end of a thread: any depth below */
      :: end_frames(depth[me] - 1, depth[me] > 1) -> goto ended
      :: end_frames(depth[me], depth[me] > 0 && jumped[me]) -> goto ended
      fi
#ifdef ATTACH
    :: begin_other() -> framework_attach(); end_other()
    :: begin_other() -> framework_detach(); end_other()
#endif
#ifdef STAMP
    :: meddle()
#endif
#ifdef FORK
    :: me == FORKER && forks < FORK -> fork_here(0)
    :: me == FORKER && forks < FORK -> fork_here(1)
#endif
#ifdef CALLS
    :: left == 0 -> goto stop
#endif
    od;

entered:
    INTERRUPTED
    dz_arbiter_settle();
    if
    :: d_step {
        !ok ->
        store_depth(target - 1);
        ending = 1
      }
#ifndef BREAK_POP
      dz_arbiter_settle();
#endif
      ok = 0
    :: else
    fi;
    end_call();
    goto end_idle;

ended:
    INTERRUPTED
    dz_arbiter_settle();
    end_call();
    goto end_idle;

abandoned:
    abandon_call();
    goto end_idle
  }
#ifdef FORK
  unless {
    gone[me];
end_gone:
    d_step {
      cell != EMPTY -> /* the child starts a thread of its own, with a stack of its own */
      gone[me] = 0;
      counted[me] = 0;
      my_depth = 0;
      my_offs = 0;
      i = 0;
      on = 0;
      was_ours = 0;
      was_counted = 0;
      counts = 0;
      hook_off = 0;
      calls++;
      forget()
    }
    goto begin
  }
#endif
stop:
  skip
}

init {
  atomic {
    if
    :: flag = 1
    :: flag = 0
    fi;
    base = flag;
#ifndef ATTACH
    word = ATTACHED;
    attached = 1;
    if
    :: only = 0
#ifdef FORK
    :: only = 1
#endif
    fi;
#endif
    run thread(0);
    run thread(1);
    run thread(2)
  }
}
