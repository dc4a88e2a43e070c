/* SPDX-License-Identifier: Apache-2.0
 *
 * What scenarios happen to.
 */
#include "fault/world.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/chunk.h"
#include "driver/host.h"
#include "heap/heap.h"

drowse_heap *world_heap;
struct world_block world_blocks[WORLD_BLOCKS];
char world_directory[] = ".";

drowse_stream world_stream;
void (*world_at_end)(void);

static uint64_t seeds, threads_before;

/* ---- the process */

static const char *chosen_device(void) {
  const char *device = getenv("DROWSE_TEST_DEVICE");
  return device == NULL ? "host:64MiB" : device;
}

bool world_is_on_gpu(void) {
  return strncmp(chosen_device(), "cuda", 4) == 0;
}

/* A real driver has threads of its own, which end when it gives the context back, if it does. */
static uint64_t most_threads(const struct left *before) {
  if (world_is_on_gpu()) return 0;
  return before != NULL ? before->threads : threads_before;
}

void world_begin(void) {
  threads_before = left_threads();
}

void world_await_threads(void) {
  struct host_counts counts;
  dz_host_counts(&counts);
  (void)left_look(threads_before + counts.threads);
}

void world_use_thread(void) {
  drowse_scope scope;
  (void)drowse_free(NULL, NULL);
  EXPECT(drowse_scope_enter(&scope, NULL, DROWSE_EXPANDABLE_INHERIT) == DROWSE_OK);
  EXPECT(drowse_scope_leave(&scope) == DROWSE_OK);
}

/* ---- a stream of the user's */

static void with_context(void (*act)(const struct driver *real)) {
  const struct driver *real = fault_real_driver();
  CUcontext before;
  EXPECT(real->CtxGetCurrent(&before) == CUDA_SUCCESS);
  EXPECT(real->CtxSetCurrent(world_heap->context) == CUDA_SUCCESS);
  act(real);
  EXPECT(real->CtxSetCurrent(before) == CUDA_SUCCESS);
}

static void make_stream(const struct driver *real) {
  CUstream stream;
  EXPECT(real->StreamCreate(&stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
  world_stream = stream;
}

static void destroy_stream(const struct driver *real) {
  EXPECT(real->StreamDestroy(world_stream) == CUDA_SUCCESS);
  world_stream = NULL;
}

void world_make_stream(void) {
  with_context(make_stream);
}

void world_destroy_stream(void) {
  with_context(destroy_stream);
}

/* One that the heap has not seen need not be retired. */
static void end_stream(void) {
  if (world_stream == NULL) return;
  if (world_heap == NULL) return; /* it went with the context */
  drowse_status status = drowse_stream_retire(world_heap, world_stream);
  EXPECT(status == DROWSE_OK || status == DROWSE_ERR_NOT_FOUND || fault_is_for_ever());
  world_destroy_stream();
}

/* ---- the end */

/* Nobody tries a second time to destroy an event or a stream, or to unpin what goes; the rest is tried again, but not for ever.
 */
static bool loses_to_device(void) {
  const struct fault_case *wanted = sweep_case();
  bool tried_again =
      wanted->point == FAULT_MemUnmap || wanted->point == FAULT_MemRelease || wanted->point == FAULT_MemAddressFree;
  bool takes = fault_has(wanted->point, FAULT_ONCE, FAULT_DONE);
  return fault_is_for_ever() || (fault_injected() && takes && !(tried_again && wanted->mode == FAULT_ONCE));
}

/* A tag whose pages the driver would not take back is tried again, and they go. */
static void check_nothing_stuck(void) {
  EXPECT_OK(drowse_trim(world_heap, 0));
  drowse_stats stats = world_stats(NULL);
  struct host_counts counts;
  dz_host_counts(&counts);
  EXPECT_MSG(stats.stuck_bytes == 0, "%llu bytes are stuck", (unsigned long long)stats.stuck_bytes);
  EXPECT_MSG(world_is_on_gpu() || counts.physical_bytes == stats.mapped_bytes,
             "%llu bytes of the device are in use, and %llu mapped", (unsigned long long)counts.physical_bytes,
             (unsigned long long)stats.mapped_bytes);
}

void world_end(const struct left *before, struct left *now) {
  bool closed_with_fault = world_heap == NULL && fault_injected() && sweep_case()->mode != FAULT_ONCE;
  bool excused = loses_to_device() || closed_with_fault || (world_stream != NULL && world_heap == NULL);
  (void)drowse_scope_leave(NULL); /* which fails: so this thread has a record of its last failure in every run */
  end_stream();
  if (world_at_end != NULL) world_at_end();
  if (world_heap != NULL) {
    if (!fault_is_for_ever()) check_nothing_stuck();
    drowse_status status = drowse_heap_close(world_heap);
    EXPECT_MSG(status == DROWSE_OK || fault_is_for_ever(), "closing: %s", drowse_last_error());
  }
  world_heap = NULL;
  fault_forget();
  left_end_contexts();
  left_check_device(excused);
  struct left left = left_look(most_threads(before));
  if (before != NULL)
    left_check(before, &left, sweep_case()->point != FAULT_munmap || !fault_injected());
  else
    *now = left;
}

/* ---- contents */

/* One pattern for all, of which each block has a part that begins elsewhere. It is made before the first process of a case, which
 * then shares it. */
enum { BYTES_MOST = 4 << 20, SHIFT = 64 };
static uint64_t pattern[(BYTES_MOST + SHIFT * 2 * WORLD_BLOCKS) / sizeof(uint64_t)];

void world_make_pattern(void) {
  for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++) {
    uint64_t word = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    pattern[i] = word ^ word >> 29;
  }
}

const unsigned char *world_pattern(const struct world_block *block) {
  return (const unsigned char *)pattern + SHIFT * block->seed;
}

void world_write(const struct world_block *block) {
  EXPECT_OK(drowse_copy_in(world_heap, block->ptr, world_pattern(block), block->bytes));
}

/* A chunk that has failed and that nobody uses goes. */
static bool is_settled(const struct arena *arena) {
  bool settled = arena->growing == 0;
  for (const struct arena_chunk *chunk = arena->chunks; chunk != NULL && settled; chunk = chunk->next)
    settled = chunk->stage != CHUNK_FAILED || !dz_chunk_is_unused(chunk);
  return settled;
}

void world_settle(void) {
  if (world_heap == NULL) return;
  struct arena *arena = &world_heap->arena;
  dz_lock(&arena->lock);
  while (!is_settled(arena)) (void)dz_cond_wait(&arena->changed, &arena->lock, DZ_NEVER);
  dz_unlock(&arena->lock);
}

drowse_status world_finish(drowse_status started, drowse_op *op) {
  if (started != DROWSE_OK) {
    EXPECT(op == NULL);
    return started;
  }
  drowse_status status = drowse_op_wait(op, -1);
  drowse_op_release(op);
  return status;
}

bool world_has(const struct world_block *block) {
  static unsigned char found[BYTES_MOST];
  memset(found, 0, block->bytes);
  EXPECT_OK(drowse_copy_out(world_heap, found, block->ptr, block->bytes));
  return memcmp(found, world_pattern(block), block->bytes) == 0;
}

struct world_block *world_room(void) {
  struct world_block *block = world_blocks;
  while (block->tag != NULL) block++;
  return block;
}

void world_note(struct world_block *block, const char *tag, void *ptr, size_t bytes) {
  EXPECT(bytes <= BYTES_MOST && seeds < 2 * WORLD_BLOCKS - 1);
  *block = (struct world_block){.tag = tag, .ptr = ptr, .bytes = bytes, .seed = ++seeds};
}

static void make_block(const char *tag, drowse_expandable expandable, size_t bytes) {
  drowse_alloc_options options = {.struct_size = sizeof options, .tag = tag, .expandable = expandable};
  void *ptr;
  EXPECT_OK(drowse_alloc_with(world_heap, bytes, NULL, &options, &ptr));
  struct world_block *block = world_room();
  world_note(block, tag, ptr, bytes);
  world_write(block);
}

/* ---- states */

void world_open_with(drowse_heap_options options) {
  options.struct_size = sizeof options;
  if (options.device == NULL) options.device = chosen_device();
  EXPECT_OK(drowse_heap_open(&world_heap, &options));
}

void world_open(void) {
  world_open_with((drowse_heap_options){0});
}

void world_fill(void) {
  make_block("a", DROWSE_EXPANDABLE_ON, MIB + 4099);
  make_block("a", DROWSE_EXPANDABLE_ON, 40 * KIB + 3);
  make_block("a", DROWSE_EXPANDABLE_ON, 3000);
  make_block("b", DROWSE_EXPANDABLE_OFF, 300 * KIB);
  make_block("b", DROWSE_EXPANDABLE_ON, 64 * KIB);
}

void world_awake(void) {
  world_open();
  world_fill();
}

static void sleep_all(drowse_action action, drowse_backup backup) {
  drowse_sleep_options options = {.struct_size = sizeof options, .backup = backup, .directory = world_directory};
  EXPECT_OK(drowse_sleep(world_heap, &(drowse_rule){.action = action}, 1, &options));
}

void world_asleep(void) {
  world_awake();
  sleep_all(DROWSE_OFFLOAD, DROWSE_BACKUP_HOST);
}

void world_asleep_in_file(void) {
  world_awake();
  sleep_all(DROWSE_OFFLOAD, DROWSE_BACKUP_FILE);
}

void world_with_little_room(void) {
  world_open_with((drowse_heap_options){.backup_limit = 5 * MIB / 4});
  world_fill();
}

void world_asleep_in_both(void) {
  world_with_little_room();
  sleep_all(DROWSE_OFFLOAD, DROWSE_BACKUP_HOST_THEN_FILE);
  EXPECT(world_stats(NULL).backup_bytes > 0 && world_stats(NULL).file_bytes > 0);
}

void world_sealed_asleep(void) {
  world_awake();
  EXPECT_OK(drowse_seal(world_heap, "a"));
  EXPECT_OK(drowse_seal(world_heap, "b"));
  sleep_all(DROWSE_OFFLOAD, DROWSE_BACKUP_HOST);
}

void world_sealed(void) {
  world_sealed_asleep();
  EXPECT_OK(drowse_wake(world_heap, NULL, 0, NULL));
}

void world_discarded(void) {
  world_awake();
  sleep_all(DROWSE_DISCARD, DROWSE_BACKUP_HOST);
  for (size_t i = 0; i < WORLD_BLOCKS; i++) world_blocks[i].discarded = true;
}

/* ---- looking */

drowse_stats world_stats(const char *tag) {
  drowse_stats stats = {.struct_size = sizeof stats};
  EXPECT_OK(drowse_stats_get(world_heap, tag, &stats));
  return stats;
}

drowse_state world_state(const char *tag) {
  return world_stats(tag).state;
}

/* What is in the table in src/heap/tag.h. */
static int check_tag(void *nothing, const char *name, const drowse_stats *stats) {
  (void)nothing;
  uint64_t kept_bytes = stats->backup_bytes + stats->file_bytes;
  EXPECT_MSG(stats->state == DROWSE_AWAKE || stats->state == DROWSE_ASLEEP, "the tag \"%s\" is in state %d", name,
             (int)stats->state);
  if (stats->state == DROWSE_AWAKE) {
    EXPECT_MSG(kept_bytes == 0 || stats->sealed, "\"%s\" is awake with a backup", name);
    EXPECT_MSG(stats->mapped_bytes >= stats->live_bytes, "\"%s\" is awake and not mapped", name);
    EXPECT(stats->discarded_bytes == 0);
  } else {
    EXPECT_MSG(stats->mapped_bytes == stats->stuck_bytes, "\"%s\" is asleep and mapped", name);
    EXPECT_MSG(kept_bytes + stats->discarded_bytes == stats->live_bytes, "\"%s\" is asleep without a backup", name);
  }
  return 0;
}

/* Only of those that are asleep where the device is lost. */
static uint64_t check_block(const struct world_block *block) {
  drowse_state state = world_state(block->tag);
  unsigned char byte;
  if (fault_is_for_ever() && state != DROWSE_ASLEEP) return 1;
  if (!block->discarded)
    EXPECT_MSG(world_has(block), "%zu bytes of \"%s\" are not what was written", block->bytes, block->tag);
  else if (state == DROWSE_ASLEEP)
    EXPECT(drowse_copy_out(world_heap, &byte, block->ptr, 1) == DROWSE_ERR_ASLEEP);
  return 1;
}

static void check_thread(void) {
  const struct driver *real = fault_real_driver();
  CUcontext context = NULL;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  int cancel;
  EXPECT(real->CtxGetCurrent(&context) == CUDA_SUCCESS);
  EXPECT(real->ThreadExchangeStreamCaptureMode(&mode) == CUDA_SUCCESS);
  (void)pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &cancel);
  EXPECT_MSG(context == NULL || sweep_is_about_context(), "the caller's context has been changed");
  EXPECT_MSG(mode == CU_STREAM_CAPTURE_MODE_GLOBAL || sweep_is_about_context(), "the thread's capture mode has been changed");
  EXPECT_MSG(cancel == PTHREAD_CANCEL_ENABLE, "the thread can no longer be canceled");
  EXPECT_MSG(drowse_scope_current().depth == 0, "a frame is left");
  if (context != NULL) EXPECT(real->CtxSetCurrent(NULL) == CUDA_SUCCESS);
}

void world_check(void) {
  uint64_t blocks = 0;
  struct host_counts counts;
  if (world_heap == NULL) return;
  check_thread();
  EXPECT_OK(drowse_tags(world_heap, check_tag, NULL));
  drowse_stats stats = world_stats(NULL);
  dz_host_counts(&counts);
  EXPECT_MSG(counts.physical_bytes <= stats.mapped_bytes + stats.stuck_bytes, "%llu bytes of the device are nobody's",
             (unsigned long long)(counts.physical_bytes - stats.mapped_bytes - stats.stuck_bytes));
  for (size_t i = 0; i < WORLD_BLOCKS; i++) {
    if (world_blocks[i].tag != NULL) blocks += check_block(&world_blocks[i]);
  }
  EXPECT_MSG(stats.live_blocks == blocks, "%llu blocks are alive, not %llu", (unsigned long long)stats.live_blocks,
             (unsigned long long)blocks);
}

void world_check_states(drowse_state a, drowse_state b) {
  EXPECT_MSG(world_state("a") == a, "\"a\" is in state %d", (int)world_state("a"));
  EXPECT_MSG(world_state("b") == b, "\"b\" is in state %d", (int)world_state("b"));
}
