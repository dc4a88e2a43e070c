/* SPDX-License-Identifier: Apache-2.0
 *
 * Before everything in a build for helgrind (./dev helgrind), which knows the locks of pthread but takes atomic operations for
 * plain reads and writes. Here each of them tells it what it is: its word is not looked at, and who acquires it comes behind all
 * that have released it before. So what is handed on by atomics, light locks included, is checked as what locks protect is.
 */
#ifndef HELGRIND_H
#define HELGRIND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <valgrind/helgrind.h>

#pragma GCC diagnostic ignored "-Wshadow" /* one operation inside another */

static inline bool helgrind_releases(int order) {
  return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static inline bool helgrind_acquires(int order) {
  return order == __ATOMIC_CONSUME || order == __ATOMIC_ACQUIRE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static inline void helgrind_before(const volatile void *word, size_t bytes, int order) {
  VALGRIND_HG_DISABLE_CHECKING(word, bytes);
  if (helgrind_releases(order)) ANNOTATE_HAPPENS_BEFORE(word);
}

static inline void helgrind_after(const volatile void *word, int order) {
  if (helgrind_acquires(order)) ANNOTATE_HAPPENS_AFTER(word);
}

/* An operation on what helgrind_at, which is word, points to; released and acquired: as which order it counts before and after.
 */
#define HELGRIND_ATOMIC(word, released, acquired, operation)     \
  __extension__({                                                \
    __auto_type helgrind_at = (word);                            \
    helgrind_before(helgrind_at, sizeof *helgrind_at, released); \
    __auto_type helgrind_was = operation;                        \
    helgrind_after(helgrind_at, acquired);                       \
    helgrind_was;                                                \
  })
#define HELGRIND_CHANGE(builtin, word, value, order) HELGRIND_ATOMIC(word, order, order, builtin(helgrind_at, value, order))

/* ---- the compiler's; none of these is replaced again inside its own replacement */

#define __atomic_load_n(word, order) HELGRIND_ATOMIC(word, __ATOMIC_RELAXED, order, __atomic_load_n(helgrind_at, order))
#define __atomic_store_n(word, value, order)                  \
  __extension__({                                             \
    __auto_type helgrind_at = (word);                         \
    helgrind_before(helgrind_at, sizeof *helgrind_at, order); \
    __atomic_store_n(helgrind_at, value, order);              \
  })
#define __atomic_exchange_n(word, value, order) HELGRIND_CHANGE(__atomic_exchange_n, word, value, order)
#define __atomic_fetch_add(word, value, order) HELGRIND_CHANGE(__atomic_fetch_add, word, value, order)
#define __atomic_fetch_sub(word, value, order) HELGRIND_CHANGE(__atomic_fetch_sub, word, value, order)
#define __atomic_fetch_or(word, value, order) HELGRIND_CHANGE(__atomic_fetch_or, word, value, order)
#define __atomic_fetch_and(word, value, order) HELGRIND_CHANGE(__atomic_fetch_and, word, value, order)
#define __atomic_compare_exchange_n(word, expected, value, weak, order, failed) \
  HELGRIND_ATOMIC(word, order, helgrind_was ? order : failed,                   \
                  __atomic_compare_exchange_n(helgrind_at, expected, value, weak, order, failed))

/* ---- C11's, by these */

#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_or
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and
#undef atomic_fetch_and_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak
#undef atomic_compare_exchange_weak_explicit

#define atomic_load_explicit(word, order) __atomic_load_n(word, order)
#define atomic_store_explicit(word, value, order) __atomic_store_n(word, value, order)
#define atomic_exchange_explicit(word, value, order) __atomic_exchange_n(word, value, order)
#define atomic_fetch_add_explicit(word, value, order) __atomic_fetch_add(word, value, order)
#define atomic_fetch_sub_explicit(word, value, order) __atomic_fetch_sub(word, value, order)
#define atomic_fetch_or_explicit(word, value, order) __atomic_fetch_or(word, value, order)
#define atomic_fetch_and_explicit(word, value, order) __atomic_fetch_and(word, value, order)
#define atomic_compare_exchange_strong_explicit(word, expected, value, order, failed) \
  __atomic_compare_exchange_n(word, expected, value, false, order, failed)
#define atomic_compare_exchange_weak_explicit(word, expected, value, order, failed) \
  __atomic_compare_exchange_n(word, expected, value, true, order, failed)

#define atomic_load(word) atomic_load_explicit(word, __ATOMIC_SEQ_CST)
#define atomic_store(word, value) atomic_store_explicit(word, value, __ATOMIC_SEQ_CST)
#define atomic_exchange(word, value) atomic_exchange_explicit(word, value, __ATOMIC_SEQ_CST)
#define atomic_fetch_add(word, value) atomic_fetch_add_explicit(word, value, __ATOMIC_SEQ_CST)
#define atomic_fetch_sub(word, value) atomic_fetch_sub_explicit(word, value, __ATOMIC_SEQ_CST)
#define atomic_fetch_or(word, value) atomic_fetch_or_explicit(word, value, __ATOMIC_SEQ_CST)
#define atomic_fetch_and(word, value) atomic_fetch_and_explicit(word, value, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_strong(word, expected, value) \
  atomic_compare_exchange_strong_explicit(word, expected, value, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#define atomic_compare_exchange_weak(word, expected, value) \
  atomic_compare_exchange_weak_explicit(word, expected, value, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

#endif
