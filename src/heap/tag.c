/* SPDX-License-Identifier: Apache-2.0
 *
 * Tags, their states, and those who wait for them.
 */
#include "heap/tag.h"

#include <assert.h>
#include <stdlib.h>

#include "config.h"
#include "core/options.h"
#include "heap/block.h"

/* ---- finding */

struct tag *dz_tag_glance(const drowse_heap *heap, const drowse_tag *name) {
  struct tag_page *page = atomic_load_explicit(&heap->tag_pages[name->number / DZ_TAG_PAGE], memory_order_acquire);
  return page == NULL ? NULL : atomic_load_explicit(&page->tags[name->number % DZ_TAG_PAGE], memory_order_acquire);
}

static struct tag_page *make_page(drowse_heap *heap, unsigned number) {
  struct tag_page *page = heap->tag_pages[number];
  if (page == NULL && (page = dz_slab_take(&heap->page_slab)) != NULL)
    atomic_store_explicit(&heap->tag_pages[number], page, memory_order_release);
  return page;
}

struct tag *dz_tag_make(drowse_heap *heap, const drowse_tag *name) {
  struct tag *tag = dz_tag_glance(heap, name);
  dz_lock_assert_held(&heap->lock);
  if (tag != NULL) return tag;
  struct tag_page *page = make_page(heap, name->number / DZ_TAG_PAGE);
  tag = page == NULL ? NULL : dz_slab_take(&heap->tag_slab);
  if (tag == NULL) {
    dz_error(DROWSE_ERR_NO_HOST_MEMORY, "no memory for the tag \"%s\"", name->name);
    return NULL;
  }
  tag->name = name;
  tag->heap = heap;
  tag->state = DROWSE_AWAKE;
  *heap->tags_end = tag;
  heap->tags_end = &tag->next;
  atomic_store_explicit(&page->tags[name->number % DZ_TAG_PAGE], tag, memory_order_release);
  return tag;
}

struct tag *dz_tag_named(drowse_heap *heap, const char *name, drowse_status *status) {
  const drowse_tag *interned = name == NULL ? NULL : dz_name_find(name);
  struct tag *tag = interned == NULL ? NULL : dz_tag_glance(heap, interned);
  *status = DROWSE_OK;
  if (name == NULL) {
    *status = dz_error(DROWSE_ERR_INVALID, "the tag is NULL");
  } else if (tag == NULL) {
    *status = dz_error(DROWSE_ERR_NOT_FOUND, "the heap has no tag \"%.*s\"", DZ_NAME_BYTES - 1, name);
  }
  return tag;
}

/* ---- states */

const char *dz_state_word(drowse_state state) {
  static const char *const words[] = {"awake", "falling asleep", "asleep", "waking", "poisoned"};
  return words[state];
}

static drowse_status say_state(const struct tag *tag, drowse_status status) {
  dz_error(status, "the tag \"%s\" is %s", tag->name->name, dz_state_word(tag->state));
  dz_error_tag(tag->name->name);
  return status;
}

drowse_status dz_tag_refuse(const struct tag *tag) {
  return say_state(tag, tag->state == DROWSE_POISONED ? DROWSE_ERR_POISONED : DROWSE_ERR_ASLEEP);
}

drowse_status dz_tag_busy(const struct tag *tag) {
  return say_state(tag, DROWSE_ERR_BUSY);
}

void dz_tag_assert(const struct tag *tag) {
#if DZ_DEBUG
  dz_lock_assert_held(&tag->heap->lock);
  bool moves = tag->state == DROWSE_FALLING_ASLEEP || tag->state == DROWSE_WAKING;
  assert(moves == (tag->op != NULL));
  assert(moves || tag->freed == NULL);
  assert(tag->state != DROWSE_AWAKE || ((tag->backup_bytes + tag->file_bytes == 0 || tag->sealed) && !tag->discarded));
  assert((tag->state == DROWSE_AWAKE) == ((atomic_load(&tag->held) & DZ_HOLDS_WAIT) == 0));
  assert(tag->state != DROWSE_ASLEEP || dz_tag_holds(tag) == 0);
  assert(tag->state != DROWSE_ASLEEP || tag->mapped_bytes == tag->stuck_bytes);
  assert(tag->state != DROWSE_ASLEEP || tag->backup_bytes + tag->file_bytes == (tag->discarded ? 0 : dz_tag_live_bytes(tag)));
#else
  (void)tag;
#endif
}

static void begin(struct tag *tag, struct operation *op, drowse_state state) {
  dz_tag_assert(tag);
  if (tag->state == DROWSE_AWAKE) {
    dz_pools_open(tag, false);
    (void)atomic_fetch_or(&tag->held, DZ_HOLDS_WAIT);
  }
  tag->before = tag->state;
  tag->state = state;
  tag->op = op;
  dz_tag_assert(tag);
  (void)pthread_cond_broadcast(&tag->heap->changed);
}

void dz_tag_begin_sleep(struct tag *tag, struct operation *op, drowse_action action) {
  assert(tag->state == DROWSE_AWAKE || tag->state == DROWSE_ASLEEP || tag->state == DROWSE_POISONED);
  assert(tag->state == DROWSE_AWAKE || action == DROWSE_DISCARD);
  tag->action = action;
  begin(tag, op, DROWSE_FALLING_ASLEEP);
}

void dz_tag_begin_wake(struct tag *tag, struct operation *op) {
  assert(tag->state == DROWSE_ASLEEP);
  begin(tag, op, DROWSE_WAKING);
}

void dz_tag_end(struct tag *tag, drowse_state state) {
  assert(tag->state == DROWSE_FALLING_ASLEEP || tag->state == DROWSE_WAKING);
  tag->state = state;
  tag->op = NULL;
  for (struct block *block = tag->freed, *next; block != NULL; block = next) {
    struct pool *pool = dz_pool_of(block);
    next = block->freed_next;
    dz_pool_lock(pool);
    block->freed_next = NULL;
    dz_block_end(block);
    dz_pool_unlock(pool);
  }
  tag->freed = NULL;
  if (state == DROWSE_AWAKE) {
    dz_pools_open(tag, true);
    (void)atomic_fetch_and(&tag->held, ~DZ_HOLDS_WAIT);
  }
  dz_tag_assert(tag);
  (void)pthread_cond_broadcast(&tag->heap->changed);
}

void dz_tag_pin(struct tag *tag) {
  tag->pins++;
}

void dz_tag_unpin(struct tag *tag) {
  assert(tag->pins > 0);
  if (--tag->pins == 0) (void)pthread_cond_broadcast(&tag->heap->changed);
}

/* ---- waiting */

/* Waits until the tag is in a state, or poisoned, which it does not leave by itself. With the lock held. */
static drowse_status wait_state(struct tag *tag, drowse_state state, int64_t timeout_ms) {
  drowse_heap *heap = tag->heap;
  int64_t deadline = dz_deadline(timeout_ms);
  while (tag->state != state) {
    if (tag->state == DROWSE_POISONED) return dz_tag_refuse(tag);
    if (heap->closing) return dz_error(DROWSE_ERR_CANCELED, "the heap is being closed");
    if (timeout_ms == 0 || !dz_cond_wait(&heap->changed, &heap->lock, deadline)) {
      if (tag->state == state) break;
      dz_error(DROWSE_ERR_TIMEOUT, "the tag \"%s\" is still %s, not %s", tag->name->name, dz_state_word(tag->state),
               dz_state_word(state));
      dz_error_tag(tag->name->name);
      return DROWSE_ERR_TIMEOUT;
    }
  }
  return DROWSE_OK;
}

DROWSE_API drowse_status drowse_tag_wait(drowse_heap *heap, const char *name, drowse_state state, int64_t timeout_ms) {
  drowse_status status = dz_heap_check(heap);
  if (status != DROWSE_OK) return status;
  if ((unsigned)state > DROWSE_POISONED) return dz_error(DROWSE_ERR_INVALID, "state is %d, which is no drowse_state", (int)state);
  dz_lock(&heap->lock);
  struct tag *tag = dz_tag_named(heap, name, &status);
  if (tag != NULL) status = wait_state(tag, state, timeout_ms);
  dz_unlock(&heap->lock);
  return status;
}

/* ---- holds. A server takes and ends one with every request, so both are one compare-and-swap while the tag is awake. */

static bool hold_awake(struct tag *tag) {
  unsigned held = atomic_load_explicit(&tag->held, memory_order_relaxed);
  do {
    if ((held & DZ_HOLDS_WAIT) != 0) return false;
  } while (!atomic_compare_exchange_weak_explicit(&tag->held, &held, held + 1, memory_order_acquire, memory_order_relaxed));
  return true;
}

/* A sleep that waits for holds hears of the last one's end. */
static bool end_hold(struct tag *tag) {
  unsigned held = atomic_load_explicit(&tag->held, memory_order_relaxed);
  do {
    if ((held & ~DZ_HOLDS_WAIT) == 0) return false;
  } while (!atomic_compare_exchange_weak_explicit(&tag->held, &held, held - 1, memory_order_release, memory_order_relaxed));
  if (held != (DZ_HOLDS_WAIT | 1)) return true;
  dz_lock(&tag->heap->lock);
  (void)pthread_cond_broadcast(&tag->heap->changed);
  dz_unlock(&tag->heap->lock);
  return true;
}

static struct tag *glance(const drowse_heap *heap, const char *name) {
  const drowse_tag *interned = name == NULL ? NULL : dz_name_find(name);
  return interned == NULL ? NULL : dz_tag_glance(heap, interned);
}

static drowse_status wait_and_hold(drowse_heap *heap, const char *name, int64_t timeout_ms) {
  drowse_status status;
  dz_lock(&heap->lock);
  struct tag *tag = dz_tag_named(heap, name, &status);
  if (tag != NULL) status = wait_state(tag, DROWSE_AWAKE, timeout_ms);
  if (status == DROWSE_OK) (void)hold_awake(tag);
  dz_unlock(&heap->lock);
  return status;
}

static drowse_status hold(drowse_heap *heap, struct tag *tag, const char *name, int64_t timeout_ms) {
  return tag != NULL && hold_awake(tag) ? DROWSE_OK : wait_and_hold(heap, name, timeout_ms);
}

static drowse_status unhold(drowse_heap *heap, struct tag *tag, const char *name) {
  drowse_status status;
  if (tag != NULL && end_hold(tag)) return DROWSE_OK;
  if (tag != NULL) return dz_error(DROWSE_ERR_INVALID, "the tag \"%s\" has no hold to end", tag->name->name);
  dz_lock(&heap->lock);
  (void)dz_tag_named(heap, name, &status);
  dz_unlock(&heap->lock);
  return status;
}

DROWSE_API drowse_status drowse_hold(drowse_heap *heap, const char *name, int64_t timeout_ms) {
  drowse_status status = dz_heap_check(heap);
  return status != DROWSE_OK ? status : hold(heap, glance(heap, name), name, timeout_ms);
}

DROWSE_API drowse_status drowse_unhold(drowse_heap *heap, const char *name) {
  drowse_status status = dz_heap_check(heap);
  return status != DROWSE_OK ? status : unhold(heap, glance(heap, name), name);
}

static drowse_status check_tag(const drowse_heap *heap, const drowse_tag *name) {
  drowse_status status = dz_heap_check(heap);
  return status == DROWSE_OK && name == NULL ? dz_error(DROWSE_ERR_INVALID, "the tag is NULL") : status;
}

DROWSE_API drowse_status drowse_hold_tag(drowse_heap *heap, const drowse_tag *name, int64_t timeout_ms) {
  drowse_status status = check_tag(heap, name);
  return status != DROWSE_OK ? status : hold(heap, dz_tag_glance(heap, name), name->name, timeout_ms);
}

DROWSE_API drowse_status drowse_unhold_tag(drowse_heap *heap, const drowse_tag *name) {
  drowse_status status = check_tag(heap, name);
  return status != DROWSE_OK ? status : unhold(heap, dz_tag_glance(heap, name), name->name);
}
