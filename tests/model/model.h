/* SPDX-License-Identifier: Apache-2.0
 *
 * The model: random sequences of every public call, by several threads, beside a reference that is simple and obviously right.
 *
 * A sequence is a string of bytes: one for what is run with, then five for each step. Any bytes are a sequence, so a fuzzer may
 * change them as it likes, and what is left when some steps are taken out is one, too. A step names one of the threads; each does
 * its own, in order, while the others do theirs.
 *
 *   step.c        bytes and steps; sequences made from a seed
 *   reference.c   what is known of tags and blocks, and what a call may say of it
 *   memory.c, motion.c, looks.c, frames.c, faults.c   the steps: each makes its calls, and compares
 *   run.c         a sequence from beginning to end, and what may be left
 *   shrink.c      the shortest sequence that still fails
 *   child.c       a run in a process of its own, and how it ended
 *   test_model.c, fuzz.c   sequences from seeds and files; libFuzzer's entry
 *
 * Each thread has tags of its own. Of these it knows exactly what they do, but while an operation of its own moves them. Others
 * are shared: they may be in any state at any time, and a call may say whatever fits one of the states. A thread that is alone
 * owns them all. Blocks are always their allocator's, and what is in them is compared always.
 */
#ifndef MODEL_H
#define MODEL_H

#include "config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "driver/driver.h"
#include "drowse.h"
#include "fault/expect.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GRANULE (2 * MIB)

enum {
  THREADS_MOST = 3,
  TAGS = 5,
  SLOTS = 10,
  STREAMS = 3,
  OPS = 2,
  SCOPES = 70,
  STACKS = 3,
  MARKS = 3,
  BYTES_MOST = 700 * 1024
};
enum { TAG_DEFAULT = 2 }; /* what no scope names; those before it are a thread's own in any case */
#define MODEL_LIMIT (4 * MIB)

/* ---- sequences */

struct sequence {
  unsigned char *bytes;
  size_t size;
};

struct step {
  unsigned thread, kind, a, b, c;
};

enum { HEAD_BYTES = 1, STEP_BYTES = 5 };

/* What a sequence is run with. */
struct setting {
  unsigned threads;
  bool limited;  /* there is not enough host memory for a backup of all */
  bool discrete; /* expandable segments are off, where no frame says */
  bool presses;  /* a pressure hook gives the tenant's memory back */
  bool abrupt;   /* the heap is closed as it is at the end of the sequence */
};

/* May be injected: refused, full, done, each once. They never are with more than one thread: nobody could say whom they met. */
extern bool model_faults;

struct setting sequence_setting(const struct sequence *sequence);
size_t sequence_steps(const struct sequence *sequence);
struct step sequence_step(const struct sequence *sequence, size_t number);

/* A new sequence from a seed, to be freed. */
struct sequence sequence_make(uint64_t seed, unsigned threads, size_t steps);

/* A number of no particular kind, the same in every run. */
uint64_t next_random(uint64_t *state);

/* ---- statuses: sets of them */

#define STATUS(status) (UINT64_C(1) << -(DROWSE_##status))

/* ---- tags: in which of these states one can be */

enum {
  AWAKE = 1,
  FALLING = 2,
  ASLEEP = 4, /* its contents have a backup */
  LOST = 8,   /* it sleeps, and they have been discarded */
  WAKING = 16,
  ANY = 31
};

struct ref_tag {
  const char *name;
  bool shared;     /* several threads use it: states is ANY for ever, and nothing else is known of it */
  bool loses;      /* it may be discarded */
  bool seals;      /* it may be sealed; then the device does not write to it, unless it is known not to be */
  unsigned states; /* that it can be in */
  bool sealed;
  unsigned holds;
  unsigned moving; /* operations of its owner's that have it and have not been waited for */
  bool muddled;    /* ... more than one of them has had it: it can end in any way */
};

/* ---- blocks */

struct ref_block {
  unsigned char *ptr; /* NULL: none */
  size_t bytes;
  unsigned tag;
  drowse_stream stream;
  bool retired; /* that stream has been */
  unsigned char *contents;
  size_t dim_from, dim_to; /* nobody knows what is in these */
};

/* ---- operations */

struct ref_op {
  drowse_op *op; /* NULL: none */
  bool wakes, together, canceled;
  bool held;     /* its thread holds a tag of it */
  bool blocked;  /* ... so that it cannot end */
  bool timed;    /* it waits for holds and for work, but not for ever */
  bool to_host;  /* its backups go there */
  bool is_short; /* of device memory */
  size_t count;
  unsigned tags[TAGS]; /* that it moves, of its thread's own; in order */
  unsigned before[TAGS], after[TAGS];
  bool any_shared;
  uint64_t done_bytes; /* at the last look */
  unsigned faults;     /* that had been injected when it began */
};

/* ---- frames */

struct ref_frame {
  unsigned tag;
  drowse_expandable expandable;
  uint64_t serial;
};

struct ref_stack {
  drowse_stack *stack; /* NULL: the thread's own, or none */
  bool exists;
  struct ref_frame frames[SCOPES];
  drowse_scope scopes[SCOPES];
  size_t depth;
  uint64_t serial;
};

struct ref_mark {
  drowse_mark mark;
  unsigned stack;
  uint64_t serial, life; /* of the stack at that place in the array */
  bool set;
};

/* ---- a thread */

struct actor {
  unsigned number;
  pthread_t thread;
  struct ref_tag tags[TAGS];
  struct ref_block blocks[SLOTS];
  void *stale; /* freed last */
  CUstream streams[STREAMS];
  unsigned seen[STREAMS]; /* by the heap: SEEN_... */
  struct ref_op ops[OPS];
  struct ref_stack stacks[STACKS]; /* [0]: its own */
  uint64_t lives[STACKS];
  unsigned current;
  struct ref_mark marks[MARKS];
};

enum { SEEN_NOT, SEEN_MAYBE, SEEN };

/* What all threads share. */
extern drowse_heap *model_heap;
extern struct setting model_setting;
extern struct actor model_actors[THREADS_MOST];
extern char model_directory[];

static inline bool is_alone(void) {
  return model_setting.threads == 1;
}

/* ---- reference.c */

enum call { CALL_ALLOC, CALL_COPY, CALL_MOVE, CALL_SEAL, CALL_CLEAR, CALL_HOLD };

/* What a call may say of a tag in one of these states. */
uint64_t ref_allowed(enum call call, unsigned states);

/* What the failure of a call of the driver's, or of libc's, may be told as. */
extern const uint64_t ref_of_faults;

/* Returns the status, which must be in the set, or be a fault's. Says in words what was called, and what came of it. */
drowse_status ref_check(const struct actor *actor, drowse_status status, uint64_t allowed, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The thread's last failure is taken as it is: a call that says nothing may have had one. */
void ref_forgive(void);

void ref_begin(struct actor *actor, unsigned number, unsigned threads);
const char *ref_own_name(unsigned thread, unsigned number);
const struct ref_block *ref_overlapping(const struct actor *actor, const void *ptr, size_t bytes);
void ref_add(struct ref_block *block, unsigned tag, void *ptr, size_t bytes, drowse_stream stream);
void ref_remove(struct ref_block *block);
void ref_write(struct ref_block *block, size_t offset, const void *bytes, size_t count);
void ref_dim(struct ref_block *block, size_t offset, size_t count);
bool ref_has(const struct ref_block *block, size_t offset, const unsigned char *bytes, size_t count);
void ref_fill(struct actor *actor, unsigned tag, int value); /* all blocks of a tag; < 0: with what nobody knows */
void ref_clear(struct actor *actor, unsigned tag);

/* Blocks, and bytes, each rounded up to 512, of a tag. */
uint64_t ref_live(const struct actor *actor, unsigned tag, uint64_t *bytes);

/* Whether there may be too little memory: the device has enough for all blocks that there can be, unless there is a tenant, who
 * goes when the pressure hook is asked. */
bool ref_is_short(bool presses);
bool ref_is_short_of_backups(const struct actor *actor);

/* A second heap on the same device has taken all memory that was free (looks.c). */
bool ref_has_tenant(void);

/* ---- the steps */

struct kind {
  const char *name;
  void (*run)(struct actor *actor, const struct step *step);
  unsigned weight; /* how often it is among those made from a seed */
  bool alone;      /* only where there is one thread */
};
extern const struct kind model_kinds[];
extern const unsigned model_kind_count;

/* memory.c */
void step_alloc(struct actor *actor, const struct step *step);
void step_alloc_with(struct actor *actor, const struct step *step);
void step_alloc_odd(struct actor *actor, const struct step *step);
void step_free(struct actor *actor, const struct step *step);
void step_free_on(struct actor *actor, const struct step *step);
void step_free_odd(struct actor *actor, const struct step *step);
void step_record(struct actor *actor, const struct step *step);
void step_retire(struct actor *actor, const struct step *step);
void step_clear(struct actor *actor, const struct step *step);
void step_trim(struct actor *actor, const struct step *step);
void step_write(struct actor *actor, const struct step *step);
void step_read(struct actor *actor, const struct step *step);
void step_use(struct actor *actor, const struct step *step);
void memory_see(struct actor *actor, unsigned stream, drowse_status status); /* a call has been given it */
void memory_compare(struct actor *actor, const struct ref_block *block);

/* motion.c */
void step_sleep(struct actor *actor, const struct step *step);
void step_wake(struct actor *actor, const struct step *step);
void step_sleep_odd(struct actor *actor, const struct step *step);
void step_op_wait(struct actor *actor, const struct step *step);
void step_op_look(struct actor *actor, const struct step *step);
void step_op_cancel(struct actor *actor, const struct step *step);
void step_op_release(struct actor *actor, const struct step *step);
void step_hold(struct actor *actor, const struct step *step);
void step_unhold(struct actor *actor, const struct step *step);
void step_seal(struct actor *actor, const struct step *step);
void step_reserve(struct actor *actor, const struct step *step);
void step_backup_trim(struct actor *actor, const struct step *step);
void motion_end(struct actor *actor); /* every operation, and every hold */
void motion_after_close(struct actor *actor);
drowse_stats motion_stats(const char *tag); /* NULL: the heap's */

/* looks.c */
void step_stats(struct actor *actor, const struct step *step);
void step_tags(struct actor *actor, const struct step *step);
void step_tag_wait(struct actor *actor, const struct step *step);
void step_block(struct actor *actor, const struct step *step);
void step_look(struct actor *actor, const struct step *step);
void step_tenant(struct actor *actor, const struct step *step);
drowse_status tenant_press(void *nothing, uint64_t bytes); /* the pressure hook of model_heap */
void tenant_leave(struct actor *actor);

/* frames.c */
void step_enter(struct actor *actor, const struct step *step);
void step_leave(struct actor *actor, const struct step *step);
void step_mark(struct actor *actor, const struct step *step);
void step_unwind(struct actor *actor, const struct step *step);
void step_jump(struct actor *actor, const struct step *step);
void step_stack(struct actor *actor, const struct step *step);
void step_swap(struct actor *actor, const struct step *step);
void step_framework(struct actor *actor, const struct step *step);
void step_hook_fails(struct actor *actor, const struct step *step);
void frames_check(struct actor *actor); /* after each step */
void frames_end(struct actor *actor);
const struct ref_frame *frames_current(const struct actor *actor);

/* faults.c */
void step_fault(struct actor *actor, const struct step *step);
void faults_prepare(void); /* once in a process */
void faults_begin_step(void);
void faults_end_step(const struct kind *kind);
unsigned faults_met(void); /* how many have been injected, ever */
bool faults_met_in_step(void);

/* run.c */
void step_reopen(struct actor *actor, const struct step *step);
void run_sequence(const struct sequence *sequence);
void run_prepare(void); /* once in a process, before all */
void model_say(const struct actor *actor, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *model_device(void);

/* What becomes of what is told, line by line, and of a failure; NULL: nothing, and standard error. */
extern void (*model_tell)(const char *line);
extern void (*model_failed)(const char *what);

/* ---- shrink.c: takes out of a sequence what is not needed for it to fail */
void shrink(struct sequence *sequence, bool (*fails)(void *context, const struct sequence *sequence), void *context);

/* ---- child.c */

/* Runs it in a process of its own; false, and why, if it has failed. story: what it did, line by line, unless NULL. */
bool child_run(const struct sequence *sequence, char *failure, size_t failure_size, char *story, size_t story_size);

#endif
