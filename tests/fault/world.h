/* SPDX-License-Identifier: Apache-2.0
 *
 * What scenarios happen to: a heap with two tags, blocks whose contents are known, and what can be asked of it whatever has
 * happened.
 */
#ifndef WORLD_H
#define WORLD_H

#include "fault/left.h"
#include "fault/sweep.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

enum { WORLD_BLOCKS = 12 };

struct world_block {
  const char *tag; /* NULL: it is not alive */
  void *ptr;
  size_t bytes;
  uint64_t seed;  /* of what is in it */
  bool discarded; /* nobody knows what is in it */
};

extern drowse_heap *world_heap;
extern struct world_block world_blocks[WORLD_BLOCKS];
extern char world_directory[];     /* for files */
extern drowse_stream world_stream; /* NULL: there is none but the legacy one */

/* A stream of the user's, which world_end() retires and destroys. */
void world_make_stream(void);
void world_destroy_stream(void);

/* On a GPU, if DROWSE_TEST_DEVICE says so; else on the host device, whose counts tell what is left of it. */
bool world_is_on_gpu(void);

/* Before anything else. */
void world_begin(void);

/* This thread's records are made, so that a run without a fault has them too. */
void world_use_thread(void);

extern void (*world_at_end)(void); /* what a scenario without a heap has to end first; NULL: nothing */

/* Closes the heap, if there is one. Nothing may be left but what is in *before; NULL: noted in *now. */
void world_end(const struct left *before, struct left *now);

/* Opens the heap, and fills it: awake. */
void world_open(void);
void world_open_with(drowse_heap_options options);
void world_fill(void);

/* The same, and then. */
void world_awake(void);
void world_asleep(void);
void world_asleep_in_file(void);
void world_asleep_in_both(void);   /* most to the host, the rest to a file */
void world_with_little_room(void); /* awake, with not enough host memory for a backup of all */
void world_sealed(void);
void world_sealed_asleep(void);
void world_discarded(void);

/* Where a block that is to be made goes. */
struct world_block *world_room(void);
void world_note(struct world_block *block, const char *tag, void *ptr, size_t bytes);
void world_make_pattern(void);                                       /* once, before all */
const unsigned char *world_pattern(const struct world_block *block); /* what is in it */
void world_write(const struct world_block *block);
bool world_has(const struct world_block *block);

/* Waits for the threads that pin memory for backups, which go on when a call has returned: while they do, whether a fault meets
 * them is a matter of time. */
void world_settle(void);

/* Waits until no thread is left but the test's and the device's. */
void world_await_threads(void);

/* Waits for what a start has started, if it did, and lets go of it; what either returned. */
drowse_status world_finish(drowse_status started, drowse_op *op);

drowse_stats world_stats(const char *tag); /* NULL: the heap's */
drowse_state world_state(const char *tag);

/* Invariants 1 to 4 and 9, 10, as far as they can be seen from outside, at any time that no operation runs: states, counts,
 * contents, and that the thread is what it was. */
void world_check(void);

/* No tag's state is another one than before. */
void world_check_states(drowse_state a, drowse_state b);

#endif
