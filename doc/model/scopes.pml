/* SPDX-License-Identifier: Apache-2.0
 *
 * The frame, arbiter and fork protocol of src/scope and src/core/fork.c, for spin. README.md says what corresponds to what, what
 * is checked and what is left out; check.sh runs it.
 *
 * Every load, store and compare-and-swap that another thread could see, or come between, is a step of its own. A d_step groups
 * such a step only with what is the thread's alone, and with ghosts: variables of the check that the code does not have.
 *
 * Parts of the world: FAIL, hooks may fail; HOOK, hooks enter and leave scopes; ATTACH, thread 1 attaches and detaches, with
 * ATTACH=2 between scopes of its own; FORK=n, thread 0 forks up to n times; ONLY, the framework is the parent's only; JUMP,
 * signal handlers jump out of calls of thread 0; STAMP, the framework has a stamp, and others change its flag. DEPTH=n: scopes
 * nest so deep. CALLS=n: each thread begins at most n calls, the one that forks one more; else any number. BREAK_...: faults,
 * each of which must be found.
 */
#define N 3 /* threads, each with a stack of its own */
#define FORKER 0
#define JUMPER 0
#define ATTACHER 1 /* in a child: the thread that the child starts */
#define MEDDLER 2
#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef FORK
#define FORK 0
#endif
#if defined(ATTACH) && ATTACH < 2
#define MAY_ENTER (me != ATTACHER)
#else
#define MAY_ENTER true
#endif
#ifdef USUAL
#define ALL true
#else
#define ALL false
#endif
#ifdef FAIL
#define HOOKS_FAIL true
#else
#define HOOKS_FAIL false
#endif
#ifdef ONLY
#define PARENT_ONLY true
#else
#define PARENT_ONLY false
#endif
/* Only attaching looks at another thread's stack; and only a fork can come upon what the busy one does half done. Where neither
 * is there these steps are one. */
#ifdef ATTACH
#define STACKS_OWN
#define UNSEEN
#else
#define STACKS_OWN d_step
#define UNSEEN atomic
#endif
#if FORK > 0
#define BUSY_ONES
#else
#define BUSY_ONES d_step
#endif

/* ---- what threads share */

#define BUSY 1
#define ATTACHED 2
#define DEBT 4
#define ONE 8 /* of the count */
#define COUNT(w) ((w) / ONE)
short word;

/* The attachment's number is part of the word, too, and never comes twice. So all that matters of it is whether it is still the
 * one that a thread has seen. */
#define NOTHING 0
#define THIS 1
#define EARLIER 2
byte saw[N];

byte top[N];    /* the current place of a stack; 0: no scope is open */
byte places[N]; /* bit p: the frame at place p says off; the first never does */
bit counted[N];
#define OFF(i) ((places[i] >> top[i]) & 1)

bit ours, value, stamped; /* the busy one's */

#define QUIET 0
#define PENDING 1
#define EMPTY 2 /* the kernel has emptied the cell: a fork that ran no handlers */
byte cell;

bit flag; /* the framework's */
bit same; /* its stamp is still what it was when the arbiter noted it */

/* ---- ghosts */

#define OUTSIDE 0 /* its last call returned OK, or it has made none */
#define FAILED 1  /* ... returned an error */
#define JUMPED 2  /* ... was abandoned, or a fork came: what that left undone its next call does */
#define INSIDE 3
byte stage[N];

bit base;       /* what the flag's owner wants it to be */
bit attached;   /* attach has returned, detach has not begun */
bit meddled;    /* somebody else has changed the flag while it was ours */
bit left_alone; /* a child where the framework is not to be touched */
bit gone[N];    /* threads that a fork did not take along */
bit hook_runs;
byte forks;
bit over; /* nobody begins a call any more: each that has begun must end, or spin tells of an invalid end state */

/* ---- what must hold */

#define HAS_PROMISE(i) (stage[i] == OUTSIDE && OFF(i))
#define IS_SETTLED(i) (counted[i] == OFF(i) || stage[i] == JUMPED)
#define AT_REST (stage[0] != INSIDE && stage[1] != INSIDE && stage[2] != INSIDE && cell == QUIET && !left_alone)

/* Invariant 6, at every moment: where a call has returned with off current, the flag is off. */
inline check_promises() {
  assert(!(attached && flag && !meddled && cell == QUIET && (HAS_PROMISE(0) || HAS_PROMISE(1) || HAS_PROMISE(2))))
}

/* ... and in both directions where no call is going on. */
inline check_rest() {
  if
  :: AT_REST && (word & ATTACHED) ->
    assert(!(word & BUSY) && COUNT(word) == counted[0] + counted[1] + counted[2]);
    assert(IS_SETTLED(0) && IS_SETTLED(1) && IS_SETTLED(2));
    assert((word & DEBT) || meddled || flag == (COUNT(word) == 0 && base));
    assert(!(word & DEBT) || HOOKS_FAIL)
  :: AT_REST && !(word & ATTACHED) -> assert(flag == base)
  :: else
  fi
}

/* What a place above the top holds means nothing. Forgetting it makes states fewer and hides no fault: only who attaches may have
 * loaded the top before, and look at the place now, and where off has ended he was waited for. */
inline forget_above() {
  places[me] = places[me] & ((2 << top[me]) - 1)
}

/* A push fills the place above the top, then makes it the top. */
inline fill_place(is_off) {
  places[me] = (places[me] & ~(2 << top[me])) | (is_off << (top[me] + 1))
}

/* ---- the word */

inline load_word() {
  d_step {
    now = word;
    saw[me] = THIS
  }
}

#ifdef BREAK_NUMBER
#define IS_STILL_THIS true
#else
#define IS_STILL_THIS (saw[me] == THIS)
#endif
inline compare_and_swap(new) {
  d_step {
    won = (word == now && IS_STILL_THIS);
    word = (won -> new : word);
    saw[me] = NOTHING
  }
}

inline wait_idle() {
  d_step {
    !(word & BUSY) ->
    saw[me] = NOTHING
  }
}

/* then: the new word. */
inline stop_busy() {
  d_step {
    assert(then >= 0);
    word = then & ~BUSY;
    hook_runs = 0
  }
}

/* won: it is, and a framework is attached. */
inline become_busy() {
  do
  :: load_word();
    if
    :: !(now & ATTACHED) -> won = 0; break
    :: (now & ATTACHED) && (now & BUSY) -> wait_idle()
    :: else ->
      compare_and_swap(now | BUSY);
      if
      :: won -> break
      :: else
      fi
    fi
  od
}

/* ---- hooks. ok: how they went */

/* A hook that calls the library is on the busy thread: it neither waits nor runs hooks. */
inline settle_in_hook() {
  now = word;
  then = now + (OFF(me) - counted[me]) * ONE;
  d_step {
    assert(word == now);
    word = then
  };
  counted[me] = OFF(me)
}

inline scope_in_hook(says_off) {
  BUSY_ONES {
    fill_place(says_off);
    top[me] = top[me] + 1;
    settle_in_hook();
    top[me] = top[me] - 1;
    settle_in_hook();
    forget_above()
  }
}

inline hook_body() {
#ifdef HOOK
  if
  :: scope_in_hook(1)
  :: scope_in_hook(0)
  :: true
  fi
#else
  skip
#endif
}

inline set_flag(to) {
  hook_body();
  if
  :: d_step {
      flag = to;
      same = 0;
      check_promises()
    }
  :: HOOKS_FAIL -> ok = 0
  fi
}

#define IS_FOREIGN (stamped && !same)
inline note_stamp() {
#if defined(BREAK_STAMP)
  stamped = 1;
  same = 1
#elif defined(STAMP)
  same = 1;
  stamped = 1
#else
  skip
#endif
}
inline forget_stamp() {
#ifdef STAMP
  stamped = 0
#else
  skip
#endif
}

#ifdef BREAK_FOREIGN
#define WAS_OURS ours
#else
#define WAS_OURS (ours && !IS_FOREIGN)
#endif
inline turn_off() {
  if
  :: BUSY_ONES {
      on = flag;
      was_ours = WAS_OURS;
      value = (was_ours -> value : on);
#ifndef BREAK_OURS
      ours = 1;
#endif
      forget_stamp()
    };
    if
    :: on -> set_flag(0)
    :: else
    fi;
    BUSY_ONES {
      d_step {
        ours = (ok -> 1 : was_ours);
        meddled = meddled && !ok
      };
      note_stamp()
    }
  :: HOOKS_FAIL -> ok = 0 /* to tell what the flag is */
  fi
}

inline turn_back() {
  if
  :: ours && value && !IS_FOREIGN ->
    set_flag(1);
    if
    :: !ok ->
      BUSY_ONES {
        note_stamp()
      }
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

inline run_hook(off_is_wanted) {
  d_step {
    assert(!hook_runs && !left_alone); /* one after another; and none where it is not to be touched: invariant 7 */
    hook_runs = 1;
    ok = 1;
    to_off = (off_is_wanted)
  }
  if
  :: to_off -> turn_off()
  :: else -> turn_back()
  fi
}

/* ---- forks. The child's memory is the parent's at that moment, and only the thread that forked is there. In the parent nothing
 * has changed: so a run goes on as the child. */

#ifdef BREAK_RECOUNT
#define CHILD_COUNT COUNT(word)
#else
#define CHILD_COUNT (OFF(0) + OFF(1) + OFF(2))
#endif
#ifdef BREAK_CHILD_BUSY
#define IN_THE_MIDDLE DEBT
#else
#define IN_THE_MIDDLE (BUSY | DEBT)
#endif
#ifdef BREAK_ONLY
#define CHILD_DETACHES !(word & ATTACHED)
#else
#define CHILD_DETACHES (!(word & ATTACHED) || PARENT_ONLY)
#endif
#ifdef BREAK_PEND
#define PEND QUIET
#else
#define PEND PENDING
#endif

/* Nobody else is there. */
inline child() {
  d_step {
    cell = QUIET;
    if
    :: CHILD_DETACHES -> word = 0
    :: else ->
      then = ATTACHED + CHILD_COUNT * ONE;
      counted[0] = OFF(0);
      counted[1] = OFF(1);
      counted[2] = OFF(2);
      if
      :: (word & IN_THE_MIDDLE) || (COUNT(then) > 0) != ours -> word = then | DEBT; cell = PEND
      :: else -> word = then
      fi
    fi;
    then = 0
  }
}

inline lose(i) {
  gone[i] = 1;
  top[i] = 0;
  places[i] = 0;
  stage[i] = OUTSIDE;
  saw[i] = NOTHING
}

inline fork_here() {
  d_step {
    forks++;
    lose(1);
    lose(2);
    hook_runs = 0;
    stage[FORKER] = (stage[FORKER] == INSIDE -> INSIDE : JUMPED);
    attached = (word & ATTACHED) && !PARENT_ONLY;
    left_alone = left_alone || ((word & ATTACHED) && PARENT_ONLY);
    cell = EMPTY
  };
  if
  :: child() /* fork() runs the handlers, */
  :: true    /* _Fork() and clone() leave that to the next call */
  fi
}

inline notice_fork() {
  if
  :: cell == EMPTY -> child()
  :: else
  fi
}

/* Signals are blocked here: else a fork could come behind the look. */
inline check_fork() {
  notice_fork();
  if
  :: cell == PENDING ->
    cell = QUIET;
    become_busy();
    if
    :: won ->
      run_hook(COUNT(word) > 0);
      then = (ok -> word & ~DEBT : word);
      stop_busy()
    :: else
    fi
  :: else
  fi
}

/* Where they are not blocked a handler may fork, or jump away. */
inline interrupted() {
#if FORK > 0 || defined(JUMP)
  if
#if FORK > 0
  :: me == FORKER && forks < FORK -> fork_here()
#endif
#ifdef JUMP
  :: me == JUMPER -> goto abandoned
#endif
  :: true
  fi
#else
  skip
#endif
}

/* ---- counting */

/* A hook has failed while a scope began: the frame goes before anybody else may look at it. */
inline take_back() {
  if
  :: !ok && !ending -> top[me] = top[me] - 1
  :: else
  fi
}

#ifdef BREAK_TAKE_BACK
#define COUNTS (ok || ending -> off : was_counted)
#else
#define COUNTS OFF(me)
#endif
#ifdef BREAK_DEBT
#define LEAVES_DEBT false
#else
#define LEAVES_DEBT (!ok && (ending || counts != was_counted))
#endif
#ifdef BREAK_HOOK_COUNTS
#define IS_COUNTED was_counted
#else
#define IS_COUNTED counted[me]
#endif
inline cross() {
#ifdef BREAK_BUSY
  counted[me] = off;
#endif
  was_counted = counted[me];
  run_hook(COUNT(word + (off - counted[me]) * ONE) > 0);
#ifndef BREAK_TAKE_BACK
  take_back();
#endif
  d_step {
    counts = COUNTS;
    then = word + (counts - IS_COUNTED) * ONE;
    then = (ok -> then & ~DEBT : then);
    then = (LEAVES_DEBT -> then | DEBT : then);
    counted[me] = counts
  };
  stop_busy();
#ifdef BREAK_TAKE_BACK
  take_back()
#endif
}

#ifdef BREAK_BUSY /* it is counted before its hook has run, and who does not cross zero does not wait for that */
#define MUST_WAIT ((now & BUSY) && crosses)
#define CROSSING (then | BUSY)
#else
#define MUST_WAIT (now & BUSY)
#define CROSSING (now | BUSY)
#endif
inline look() {
  d_step {
    off = OFF(me);
    then = now + (off - counted[me]) * ONE;
    crosses = (COUNT(now) == 0) != (COUNT(then) == 0) || (now & DEBT);
    next = (crosses -> CROSSING : then)
  }
}

inline settle() {
  do
  :: STACKS_OWN {
      load_word();
      look()
    };
    if
    :: !(now & ATTACHED) -> break
    :: (now & ATTACHED) && MUST_WAIT -> wait_idle()
    :: (now & ATTACHED) && !MUST_WAIT && then == now && !crosses -> break
    :: else ->
      compare_and_swap(next);
      if
      :: won && crosses -> cross(); break
      :: won && !crosses -> counted[me] = off; break
      :: else
      fi
    fi
  od
}

inline arbiter_settle() {
  if
  :: special && is_attached ->
#if FORK > 0 && !defined(BREAK_NOTICE) /* signals are blocked from here on: the last look at the cell */
    notice_fork();
#endif
    ok = 1;
    settle()
  :: else
  fi
}

/* ---- frames. The call looks before it changes anything whether it has to do with the arbiter, and again behind that; the usual
 * one has not. */

#ifdef BREAK_JUMP
#define LEFT_UNDONE false
#else
#define LEFT_UNDONE counted[me]
#endif

/* The fence is that the store of the top and the load of the word are two steps in this order. */
inline set_top() {
#ifdef BREAK_THREAD_FENCE
  is_attached = (word & ATTACHED) != 0;
#endif
  STACKS_OWN {
    top[me] = target;
    special = special && (before || OFF(me) || LEFT_UNDONE)
  };
  interrupted();
#ifndef BREAK_THREAD_FENCE
  is_attached = (word & ATTACHED) != 0
#endif
}

/* ---- attaching */

inline count_stack(i) {
  seen_top = top[i];
  off = (places[i] >> seen_top) & 1;
  counted[i] = off;
  found = found + counted[i]
}

inline count_all() {
  found = 0;
  count_stack(0);
  count_stack(1);
  count_stack(2)
}

inline attach() {
  load_word();
  if
  :: now & (ATTACHED | BUSY) -> won = 0
  :: else -> compare_and_swap(now | BUSY)
  fi;
  if
  :: won ->
    d_step {
      ours = 0;
      stamped = 0;
      base = (left_alone -> flag : base);
      left_alone = 0
    };
#ifdef BREAK_ATTACH_FENCE /* the loads of the frames overtake the store */
    count_all();
    word = BUSY | ATTACHED;
#else
    word = BUSY | ATTACHED;
    count_all();
#endif
    word = (BUSY | ATTACHED) + found * ONE;
    if
    :: found > 0 -> run_hook(1)
    :: else
    fi;
    d_step {
      then = (ok -> ATTACHED + found * ONE : 0);
      stop_busy();
      attached = ok
    }
  :: else
  fi
}

inline renumber(i) {
  saw[i] = (saw[i] == NOTHING -> NOTHING : EARLIER)
}

inline detach() {
  become_busy();
  if
  :: won ->
    attached = 0;
    if
    :: ours -> run_hook(0)
    :: else
    fi;
    d_step {
      then = (ok -> 0 : word);
      stop_busy();
      if
      :: ok -> renumber(0); renumber(1); renumber(2)
      :: else -> attached = 1
      fi
    }
  :: else
  fi
}

/* ---- a thread, whose user may do anything at any time */

#ifdef CALLS
#define MAY_CALL (!over && calls < CALLS + (me == FORKER && FORK > 0))
#define COUNT_CALL calls = (cell == QUIET -> calls + 1 : calls)
#else
#define MAY_CALL !over
#define COUNT_CALL skip
#endif

inline begin() {
  stage_before = stage[me];
  stage[me] = INSIDE;
  COUNT_CALL;
  before = OFF(me)
}

inline begin_enter(says_off) {
  d_step {
    MAY_CALL && cell == QUIET && top[me] < DEPTH && (says_off || OFF(me) || ALL) && MAY_ENTER ->
    begin();
    target = top[me] + 1;
    wants = says_off;
    special = before || wants || LEFT_UNDONE;
    fill_place(wants)
  }
}

/* leave, unwind, a frame that died, the end of a thread. */
inline begin_end(to, possible) {
  d_step {
    MAY_CALL && cell == QUIET && (possible) ->
    begin();
    target = to;
    ending = 1;
    special = before || ((places[me] >> target) & 1) || LEFT_UNDONE
  }
}

inline begin_other(possible) {
  d_step {
    !over && (possible) ->
    begin()
  }
}

inline forget_call() {
  now = 0;
  then = 0;
  next = 0;
  target = 0;
  seen_top = 0;
  found = 0;
  wants = 0;
  before = 0;
  special = 0;
  is_attached = 0;
  ending = 0;
  off = 0;
  crosses = 0;
  won = 0;
  on = 0;
  was_ours = 0;
  was_counted = 0;
  counts = 0;
  to_off = 0;
  ok = 1;
  saw[me] = NOTHING;
  forget_above()
}

/* open_top, open_places: the scopes that are open as the user knows them. Invariants 4 and 5: so it is. */
inline note_enter() {
  open_top = open_top + 1;
  open_places = open_places | (wants << open_top)
}

inline note_end() {
  open_top = target;
  open_places = open_places & ((2 << target) - 1)
}

inline end_call() {
  d_step {
    if
    :: ending -> note_end()
    :: !ending && target > 0 && ok -> note_enter()
    :: else
    fi;
    if
    :: ok && (ending || target > 0 || won) -> stage[me] = OUTSIDE
    :: !ok && (ending || target == 0) -> stage[me] = FAILED
    :: else -> stage[me] = stage_before /* who failed to enter, or found nothing to do, has changed nothing */
    fi;
    stage_before = OUTSIDE;
    forget_call();
    assert(top[me] == open_top && places[me] == open_places);
    check_promises();
    check_rest()
  }
}

inline abandon_call() {
  d_step {
    stage[me] = JUMPED;
    stage_before = OUTSIDE;
    forget_call();
    open_top = top[me];
    open_places = places[me]
  }
}

/* Somebody else changes the flag and means it: which can be told only where a stamp has been noted. */
inline meddle() {
  d_step {
    MAY_CALL && !(word & BUSY) && cell == QUIET && (stamped || !ours) ->
    COUNT_CALL;
    flag = !flag;
    base = flag;
    same = 0;
    meddled = ours
  }
}

proctype thread(byte me) {
  short now, then, next;
  byte target, seen_top, found, stage_before, open_top, open_places;
  bit wants, before, special, is_attached, ending, off, crosses, won, on, was_ours, was_counted, counts, to_off, ok = 1;
#ifdef CALLS
  byte calls;
#endif

end_begin:
  {
end_idle:
    do
    :: UNSEEN {
        if
        :: begin_enter(0)
        :: begin_enter(1)
        fi;
        interrupted();
        set_top()
      };
      arbiter_settle();
      end_call()
    :: UNSEEN {
        if
        :: begin_end(0, top[me] > 0 || stage[me] == JUMPED)
        :: begin_end(top[me] - 1, top[me] > 1)
        :: begin_end(top[me], top[me] > 0 && stage[me] == JUMPED)
        fi;
        set_top()
      };
      arbiter_settle();
      end_call()
#ifdef ATTACH
    :: begin_other(MAY_CALL && me == ATTACHER && cell == QUIET) -> attach(); end_call()
    :: begin_other(MAY_CALL && me == ATTACHER && cell == QUIET) -> detach(); end_call()
#endif
#ifdef STAMP
    :: me == MEDDLER -> meddle()
#endif
#if FORK > 0
    :: me == FORKER && !over && forks < FORK -> fork_here()
    :: begin_other(cell != QUIET) -> check_fork(); end_call() /* before whatever is called next */
#endif
    od;

abandoned:
    skip;
    abandon_call();
    goto end_idle
  }
#if FORK > 0
  unless {
    gone[me]
  };
end_gone:
  d_step { /* the child starts a thread, with a stack of its own */
    me == ATTACHER && cell != EMPTY ->
    gone[me] = 0;
    counted[me] = 0;
    open_top = 0;
    open_places = 0;
    stage_before = OUTSIDE;
    forget_call()
  };
  goto end_begin
#endif
}

init {
  atomic {
    if
    :: base = 1
    :: base = 0
    fi;
    flag = base;
    word = ATTACHED;
    attached = 1;
    run thread(0);
    run thread(1);
    run thread(2)
  };
#ifndef CALLS /* else they stop anyway */
end_init:
  over = 1
#endif
}
