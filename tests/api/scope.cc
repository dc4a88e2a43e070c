/* SPDX-License-Identifier: Apache-2.0
 *
 * DROWSE_SCOPE in C++: every way out of the block ends the scope, an exception among them.
 */
#include <drowse.h>

#include <cstdio>
#include <cstring>
#include <stdexcept>

static int failures;

static void expect(const char *what, const char *tag, size_t depth) {
  drowse_frame frame = drowse_scope_current();
  if (std::strcmp(frame.tag, tag) == 0 && frame.depth == depth) return;
  std::printf("FAILED: %s: tag \"%s\", depth %zu, not \"%s\", %zu\n", what, frame.tag, frame.depth, tag, depth);
  failures++;
}

static void throw_inside() {
  DROWSE_SCOPE("outer", DROWSE_EXPANDABLE_ON) {
    DROWSE_SCOPE("inner", DROWSE_EXPANDABLE_OFF) {
      expect("inside", "inner", 2);
      throw std::runtime_error("out");
    }
  }
}

static int return_inside() {
  DROWSE_SCOPE("returned", DROWSE_EXPANDABLE_INHERIT) {
    return drowse_scope_current().depth == 1 ? 1 : 0;
  }
  return 0;
}

static void break_inside() {
  int runs = 0;
  DROWSE_SCOPE("broken", DROWSE_EXPANDABLE_INHERIT) {
    runs++;
    if (runs == 1) break;
    runs = 100;
  }
  if (runs == 1) return;
  std::printf("FAILED: break: the block ran on, %d\n", runs);
  failures++;
}

static void refuse() {
  drowse_status status = DROWSE_OK;
  DROWSE_SCOPE_TRY(status, "", DROWSE_EXPANDABLE_INHERIT) {
    std::printf("FAILED: the block of a scope that cannot be entered runs\n");
    failures++;
  }
  if (status == DROWSE_ERR_INVALID) return;
  std::printf("FAILED: a tag without a name: %s\n", drowse_status_name(status));
  failures++;
}

int main() {
  expect("at the start", "default", 0);
  bool caught = false;
  try {
    throw_inside();
  } catch (const std::runtime_error &) {
    caught = true;
  }
  if (!caught) {
    std::printf("FAILED: the exception was lost\n");
    failures++;
  }
  expect("after an exception", "default", 0);
  if (return_inside() != 1) {
    std::printf("FAILED: the block that returns did not run\n");
    failures++;
  }
  expect("after a return", "default", 0);
  break_inside();
  expect("after a break", "default", 0);
  refuse();
  expect("after a refused enter", "default", 0);
  drowse_scope token = DROWSE_SCOPE_NONE;
  if (drowse_scope_leave(&token) != DROWSE_OK) {
    std::printf("FAILED: the empty token cannot be left\n");
    failures++;
  }
  return failures == 0 ? 0 : 1;
}
