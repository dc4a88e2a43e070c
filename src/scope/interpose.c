/* SPDX-License-Identifier: Apache-2.0
 *
 * libdrowse-jump: setjmp() notes where on the stack of frames it was called, longjmp() goes back to it. For programs that call
 * them and cannot be changed; linked in front of libc, or preloaded.
 *
 *   setjmp:  remember (address of the jmp_buf -> mark), then jump to libc's setjmp
 *   longjmp: look the address up, drowse_scope_unwind(mark), then jump to libc's longjmp
 *
 * A setjmp() cannot be wrapped in a function, whose frame would be gone at the second return. So each entry is a stub in assembly
 * that calls a C function and then jumps, with arguments, stack and return address as they came: libc's function returns to the
 * program, not to us. What is in a jmp_buf is libc's affair; nothing here looks.
 *
 * What must hold:
 *
 * Every function here may run in a signal handler that interrupted any other of them, and such a handler may jump away. So there
 * is no lock and no memory but a table of fixed size in each thread's static storage, and a note that was interrupted is either
 * finished when the handler returns, or never needed again.
 *
 * A jmp_buf is noted once at most. When its note had to make room for another, a jump to it is as without this library: drowse
 * may keep a dead frame. It must never be taken for an older setjmp() of the same jmp_buf, which would end live scopes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#include "core/tls.h"
#include "drowse.h"
#include "scope/frame.h"

#if !defined(__LP64__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "libdrowse-jump is for x86-64 and aarch64"
#endif

/* ---- notes
 *
 * Nobody tells us when a jmp_buf dies, but the function that set it does: when the thread calls setjmp() with the stack pointer
 * higher up, on the same C stack, then that function has returned. So what is noted are mostly jmp_bufs of functions that run. */

enum { NOTES = 128, NOTES_OF_A_CALL = 16 };

struct note {
  _Atomic uintptr_t env; /* the jmp_buf's address; 0: a free place */
  uintptr_t sp;          /* the stack pointer of the function that called setjmp() */
  uint64_t turn;         /* when it was noted */
  drowse_mark mark;
};

struct notes {
  _Atomic uint64_t turn; /* counts calls of note() */
  _Atomic size_t end;    /* the places from here on are free */
  struct note at[NOTES];
};

/* Five KiB of initial-exec storage are too much for a library that is opened at run time. This one has to be there when the
 * program starts: opened later it stands behind libc and is never called. */
static DZ_TLS struct notes notes;

static uintptr_t env_of(const struct note *note) {
  return atomic_load_explicit(&note->env, memory_order_relaxed);
}

static void set_env(struct note *note, uintptr_t env) {
  atomic_store_explicit(&note->env, env, memory_order_relaxed);
}

/* Whether by the stack pointers alone the function that set a jump has returned. Stacks of frames go with C stacks. */
static bool looks_dead(const struct note *note, uintptr_t sp, uint64_t stack) {
  return env_of(note) != 0 && note->sp < sp && dz_mark_stack(note->mark) == stack;
}

/* The alternate signal stack may lie anywhere, so between it and the thread's own stack pointers do not compare: on it, whatever
 * is outside lives; outside of it, whatever is on it is dead. */
static bool is_dead(const struct note *note, uintptr_t sp, uint64_t stack, const stack_t *alternate) {
  bool on_it = (alternate->ss_flags & SS_ONSTACK) != 0;
  bool set_on_it = note->sp - (uintptr_t)alternate->ss_sp < alternate->ss_size;
  return on_it == set_on_it ? looks_dead(note, sp, stack) : set_on_it;
}

static void bury(struct note *end, uintptr_t sp, uint64_t stack) {
  stack_t alternate;
  struct note *note = notes.at;
  while (note < end && !looks_dead(note, sp, stack)) note++;
  if (note == end || sigaltstack(NULL, &alternate) != 0) return;
  for (note = notes.at; note < end; note++) {
    if (is_dead(note, sp, stack, &alternate)) set_env(note, 0);
  }
}

/* Whether a note is of a stack of frames that is neither current nor, as far as we know, the thread's own. */
static bool is_away(const struct note *note, uint64_t stack) {
  return dz_mark_stack(note->mark) != stack && dz_mark_stack(note->mark) != 0;
}

/* Whether, where there are too many, a note makes room before another does: one that is away, whose coroutine may be gone for
 * good, the oldest first; then the innermost. The program's last resort is the outermost and stays. */
static bool goes_before(const struct note *note, const struct note *other, uint64_t stack) {
  bool away = is_away(note, stack);
  if (away != is_away(other, stack)) return away;
  return away ? note->turn < other->turn : note->sp < other->sp;
}

/* A place for a note of env. A function that sets jump after jump, in a loop over its jobs, must not push out everybody else's,
 * nor what it set before the loop: it has so many places, and the youngest is used again. */
static struct note *choose(uintptr_t env, uintptr_t sp, uint64_t stack) {
  struct note *end = notes.at + atomic_load_explicit(&notes.end, memory_order_relaxed);
  struct note *empty = NULL, *first = notes.at, *youngest = NULL;
  size_t siblings = 0;
  bury(end, sp, stack);
  while (end > notes.at && env_of(end - 1) == 0) end--;
  for (struct note *note = notes.at; note < end; note++) {
    if (env_of(note) == env) set_env(note, 0);
    if (env_of(note) == 0) {
      if (empty == NULL) empty = note;
      continue;
    }
    if (goes_before(note, first, stack)) first = note;
    if (note->sp != sp) continue;
    siblings++;
    if (youngest == NULL || note->turn > youngest->turn) youngest = note;
  }
  if (empty == NULL && end < notes.at + NOTES) {
    empty = end++;
    set_env(empty, 0); /* a handler may have noted here before the end was set back below */
    atomic_signal_fence(memory_order_seq_cst);
  }
  atomic_store_explicit(&notes.end, (size_t)(end - notes.at), memory_order_relaxed);
  if (siblings >= NOTES_OF_A_CALL) return youngest;
  return empty == NULL ? first : empty;
}

/* A signal handler that interrupts this may note jmp_bufs of its own, in the very place that was chosen here. By the time it
 * returns they are dead, so its writes may be overwritten; but ours may be lost among them. The turn tells: then all is done
 * again. A handler that jumps away leaves env without a note, as it leaves the jmp_buf without contents. */
static void note(uintptr_t env, uintptr_t sp, drowse_mark mark) {
  uint64_t turn;
  do {
    turn = atomic_load_explicit(&notes.turn, memory_order_relaxed) + 1;
    atomic_store_explicit(&notes.turn, turn, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    struct note *note = choose(env, sp, dz_mark_stack(mark));
    set_env(note, 0);
    atomic_signal_fence(memory_order_seq_cst);
    note->sp = sp;
    note->turn = turn;
    note->mark = mark;
    atomic_signal_fence(memory_order_seq_cst);
    set_env(note, env);
    atomic_signal_fence(memory_order_seq_cst);
  } while (atomic_load_explicit(&notes.turn, memory_order_relaxed) != turn);
}

/* The mark noted for env; false: there is none. */
static bool find(uintptr_t env, drowse_mark *mark) {
  uint64_t turn;
  bool found;
  do {
    turn = atomic_load_explicit(&notes.turn, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    found = false;
    const struct note *end = notes.at + atomic_load_explicit(&notes.end, memory_order_relaxed);
    for (const struct note *note = notes.at; note < end && !found; note++) {
      found = env_of(note) == env;
      if (found) *mark = note->mark;
    }
    atomic_signal_fence(memory_order_seq_cst);
  } while (atomic_load_explicit(&notes.turn, memory_order_relaxed) != turn);
  return found;
}

/* ---- what comes first */

struct entry {
  const char *name;
  _Atomic(void *) libc; /* the next function of that name: libc's */
};

/* Another library's constructor may call before ours has run. */
static void *find_libc(struct entry *entry) {
  void *libc = atomic_load_explicit(&entry->libc, memory_order_relaxed);
  if (libc == NULL) {
    libc = dlsym(RTLD_NEXT, entry->name);
    atomic_store_explicit(&entry->libc, libc, memory_order_relaxed);
  }
  return libc;
}

/* Called by the stubs alone, with the jmp_buf and the caller's stack pointer; return libc's function. */
__attribute__((visibility("hidden"))) void *dz_jump_note(uintptr_t env, uintptr_t sp, struct entry *entry);
__attribute__((visibility("hidden"))) void *dz_jump_unwind(uintptr_t env, uintptr_t sp, struct entry *entry);

void *dz_jump_note(uintptr_t env, uintptr_t sp, struct entry *entry) {
  note(env, sp, drowse_scope_mark());
  return find_libc(entry);
}

/* Whatever cannot be put right, a stack that is gone or a hook that failed, the jump itself goes on. */
void *dz_jump_unwind(uintptr_t env, uintptr_t sp, struct entry *entry) {
  (void)sp;
  int saved = errno;
  drowse_mark mark;
  if (find(env, &mark)) (void)drowse_scope_unwind(mark);
  errno = saved;
  return find_libc(entry);
}

/* ---- stubs
 *
 * An indirect jump in place of the return keeps a shadow stack right: each call has its return. */

#if defined(__x86_64__)
#define STUB(name, first)                                             \
  __asm__(".text\n"                                                   \
          ".p2align 4\n"                                              \
          ".globl " #name "\n"                                        \
          ".type " #name ", @function\n" #name ":\n"                  \
          "  .cfi_startproc\n"                                        \
          "  endbr64\n"                                               \
          "  pushq %rdi\n"                                            \
          "  .cfi_adjust_cfa_offset 8\n"                              \
          "  pushq %rsi\n"                                            \
          "  .cfi_adjust_cfa_offset 8\n"                              \
          "  leaq 24(%rsp), %rsi\n" /* above the return address */    \
          "  leaq dz_jump_entry_" #name "(%rip), %rdx\n"              \
          "  subq $8, %rsp\n" /* calls are made at multiples of 16 */ \
          "  .cfi_adjust_cfa_offset 8\n"                              \
          "  call " #first "\n"                                       \
          "  addq $8, %rsp\n"                                         \
          "  .cfi_adjust_cfa_offset -8\n"                             \
          "  popq %rsi\n"                                             \
          "  .cfi_adjust_cfa_offset -8\n"                             \
          "  popq %rdi\n"                                             \
          "  .cfi_adjust_cfa_offset -8\n"                             \
          "  jmpq *%rax\n"                                            \
          "  .cfi_endproc\n"                                          \
          ".size " #name ", . - " #name "\n");
#elif defined(__aarch64__)
#define STUB(name, first)                                                             \
  __asm__(".text\n"                                                                   \
          ".p2align 4\n"                                                              \
          ".globl " #name "\n"                                                        \
          ".type " #name ", %function\n" #name ":\n"                                  \
          "  .cfi_startproc\n"                                                        \
          "  hint #34\n" /* bti c */                                                  \
          "  stp x29, x30, [sp, #-32]!\n"                                             \
          "  .cfi_def_cfa_offset 32\n"                                                \
          "  .cfi_offset 29, -32\n"                                                   \
          "  .cfi_offset 30, -24\n"                                                   \
          "  mov x29, sp\n"                                                           \
          "  stp x0, x1, [sp, #16]\n"                                                 \
          "  add x1, sp, #32\n"                                                       \
          "  adrp x2, dz_jump_entry_" #name "\n"                                      \
          "  add x2, x2, :lo12:dz_jump_entry_" #name "\n"                             \
          "  bl " #first "\n"                                                         \
          "  mov x16, x0\n" /* the register from which a jump may enter a function */ \
          "  ldp x0, x1, [sp, #16]\n"                                                 \
          "  ldp x29, x30, [sp], #32\n"                                               \
          "  .cfi_restore 30\n"                                                       \
          "  .cfi_restore 29\n"                                                       \
          "  .cfi_def_cfa_offset 0\n"                                                 \
          "  br x16\n"                                                                \
          "  .cfi_endproc\n"                                                          \
          ".size " #name ", . - " #name "\n");
#endif

#define ENTRY(name, first)                                                                       \
  __attribute__((visibility("hidden"), used)) struct entry dz_jump_entry_##name = {#name, NULL}; \
  STUB(name, first)                                                                              \
  /* dlsym() takes locks and memory and is not for signal handlers: so now. */                   \
  static __attribute__((constructor)) void begin_##name(void) {                                  \
    (void)find_libc(&dz_jump_entry_##name);                                                      \
  }

ENTRY(setjmp, dz_jump_note)
ENTRY(_setjmp, dz_jump_note)
ENTRY(__sigsetjmp, dz_jump_note)
ENTRY(longjmp, dz_jump_unwind)
ENTRY(_longjmp, dz_jump_unwind)
ENTRY(siglongjmp, dz_jump_unwind)
#ifdef __GLIBC__
ENTRY(__longjmp_chk, dz_jump_unwind)
#else
ENTRY(sigsetjmp, dz_jump_note)
#endif
