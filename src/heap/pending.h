/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that several streams use. Once freed, such a block waits until the work that was then on those streams is over.
 */
#ifndef DZ_PENDING_H
#define DZ_PENDING_H

#include "heap/block.h"

/* One more stream that uses a block. */
struct use {
  struct use *next;
  struct stream *stream;
  CUevent event; /* what is on the stream since the block was freed; kept with the node for the next use */
  bool recorded;
};

/* With the heap's lock, the second with the pool's too. Notes that a stream uses a live block; false: no memory. Forgets all that
 * use it. */
bool dz_use_add(struct block *block, struct stream *stream);
void dz_uses_drop(struct block *block);

/* With both locks: a block that has just been freed, or is not done with yet, waits from now on. */
void dz_pending_add(struct block *block);

/* Frees those whose time has come: the oldest ones up to the first that has to wait, or all of them. Without locks; the guard
 * entered. During the capture of a stream no event is recorded on it; what it uses waits for the capture's end. */
void dz_pending_poll(drowse_heap *heap, bool all);

/* Forgets those of a tag whose memory is gone. With the heap's lock. */
void dz_pending_forget(const struct tag *tag);

/* Destroys the events. For a heap's end. */
void dz_uses_end(drowse_heap *heap);

#endif
