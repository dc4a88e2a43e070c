/* SPDX-License-Identifier: Apache-2.0
 *
 * Jumps for programs that can be changed: a jmp_buf that knows its place on the stack of frames.
 */
#include <errno.h>
#include <setjmp.h>

#include "drowse.h"

DROWSE_API drowse_jump *drowse_jump_arm(drowse_jump *jump) {
  jump->mark = drowse_scope_mark();
  return jump;
}

/* Whatever cannot be put right, a stack that is gone or a hook that failed, the jump itself goes on. libc's longjmp() restores
 * the signal mask exactly if sigsetjmp() saved it, so this serves both. */
DROWSE_API void drowse_longjmp(drowse_jump *jump, int value) {
  int saved = errno;
  (void)drowse_scope_unwind(jump->mark);
  errno = saved;
  longjmp(jump->env, value);
}
