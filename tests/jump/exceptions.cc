// SPDX-License-Identifier: Apache-2.0
//
// C++ exceptions and jumps side by side, with libdrowse-jump.
#include "expect.h"

#include <csetjmp>
#include <cstdlib>
#include <stdexcept>

static std::jmp_buf there;
static drowse_scope *tokens; // on the heap

static NOINLINE void throw_inside(int levels) {
  DROWSE_SCOPE("thrown out of", INHERIT) {
    std::jmp_buf unused;
    if (setjmp(unused) != 0) expect("nobody jumps here", false);
    if (levels == 0) throw std::runtime_error("out");
    throw_inside(levels - 1);
  }
}

static NOINLINE void jump_inside(int levels) {
  DROWSE_SCOPE("jumped out of", INHERIT) {
    if (levels == 0) std::longjmp(there, 1);
    jump_inside(levels - 1);
  }
}

static NOINLINE bool catches(int levels) {
  try {
    throw_inside(levels);
  } catch (const std::runtime_error &) {
    return true;
  }
  return false;
}

// An exception that goes past a setjmp() whose function it ends, between that jump's setting and others.
static void one_after_another() {
  for (volatile int i = 0; i < 100; i++) {
    if (setjmp(there) == 0) {
      enter_at(&tokens[1], "around");
      expect("it is caught", catches(i % 20));
      expect_frame("behind an exception", "around", 2);
      jump_inside(i % 10);
    }
    expect_frame("behind a jump", "caller", 1);
  }
}

// Thrown by the function that was jumped to.
static void throw_behind_a_jump() {
  bool caught = false;
  try {
    DROWSE_SCOPE("thrown out of", INHERIT) {
      if (setjmp(there) == 0) jump_inside(5);
      expect_frame("behind a jump", "thrown out of", 2);
      throw std::runtime_error("out");
    }
  } catch (const std::runtime_error &) {
    caught = true;
  }
  expect("it is caught", caught);
  expect_frame("behind an exception", "caller", 1);
}

int main() {
  tokens = static_cast<drowse_scope *>(std::calloc(2, sizeof *tokens));
  enter_at(&tokens[0], "caller");
  one_after_another();
  throw_behind_a_jump();
  expect_ok("leave", drowse_scope_leave(&tokens[0]));
  expect_frame("at the end", "default", 0);
  std::free(tokens);
  return failures == 0 ? 0 : 1;
}
