/* SPDX-License-Identifier: Apache-2.0
 *
 * Scopes in C++: drowse::scope, and exceptions through it and through DROWSE_SCOPE. Uses the public header alone, so it is built
 * as each version of C++ that the header is for.
 */
#include <drowse.h>

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <type_traits>

static int failures;

static void expect_at(int line, bool condition, const char *what) {
  if (condition) return;
  std::printf("FAILED: line %d: %s\n", line, what);
  failures++;
}
#define EXPECT(condition) expect_at(__LINE__, static_cast<bool>(condition), #condition)

static bool is_current(const char *tag, drowse_expandable expandable, size_t depth) {
  drowse_frame frame = drowse_scope_current();
  return std::strcmp(frame.tag, tag) == 0 && frame.expandable == expandable && frame.depth == depth;
}

static bool is_outside() {
  return is_current("default", DROWSE_EXPANDABLE_INHERIT, 0);
}

/* ---- the type */

static_assert(!std::is_copy_constructible<drowse::scope>::value, "a scope is not copied");
static_assert(!std::is_copy_assignable<drowse::scope>::value, "nor assigned");
static_assert(!std::is_move_constructible<drowse::scope>::value, "nor moved");
static_assert(!std::is_default_constructible<drowse::scope>::value, "there is none without a frame");
static_assert(!std::is_convertible<drowse::scope, bool>::value, "it is a condition, not a number");
static_assert(!std::is_convertible<const char *, drowse::scope>::value, "a string is no scope");
static_assert(std::is_nothrow_constructible<drowse::scope, const char *>::value, "it throws nothing");
static_assert(std::is_nothrow_constructible<drowse::scope, const drowse_tag *, drowse_expandable>::value, "it throws nothing");
static_assert(std::is_nothrow_destructible<drowse::scope>::value, "it throws nothing");

static void objects() {
  {
    drowse::scope outer("outer", DROWSE_EXPANDABLE_OFF);
    EXPECT(outer);
    EXPECT(outer.status() == DROWSE_OK);
    EXPECT(is_current("outer", DROWSE_EXPANDABLE_OFF, 1));
    {
      drowse::scope inner(drowse_tag_get("inner"));
      EXPECT(is_current("inner", DROWSE_EXPANDABLE_OFF, 2));
      drowse::scope on(DROWSE_EXPANDABLE_ON);
      EXPECT(is_current("inner", DROWSE_EXPANDABLE_ON, 3));
    }
    EXPECT(is_current("outer", DROWSE_EXPANDABLE_OFF, 1));
  }
  EXPECT(is_outside());
}

static void refused() {
  drowse::scope bad("", DROWSE_EXPANDABLE_OFF);
  EXPECT(!bad);
  EXPECT(bad.status() == DROWSE_ERR_INVALID);
  EXPECT(is_outside());
  EXPECT(bad.leave() == DROWSE_OK);
}

static void left_early() {
  drowse::scope outer("outer");
  drowse::scope inner("inner");
  EXPECT(outer.leave() == DROWSE_OK); /* drops the inner one too */
  EXPECT(is_outside());
  EXPECT(outer.leave() == DROWSE_OK);
  EXPECT(inner.leave() == DROWSE_ERR_SCOPE);
  EXPECT(inner.leave() == DROWSE_OK);
  drowse::scope next("next");
  EXPECT(is_current("next", DROWSE_EXPANDABLE_INHERIT, 1));
}

/* ---- exceptions */

struct in_the_middle {
  drowse::scope member{"member"};
  in_the_middle() {
    EXPECT(is_current("member", DROWSE_EXPANDABLE_OFF, 3));
    throw std::runtime_error("constructor");
  }
};

static void throw_deep(int depth) {
  drowse::scope mine(depth % 2 == 0 ? DROWSE_EXPANDABLE_ON : DROWSE_EXPANDABLE_OFF);
  DROWSE_SCOPE("block", DROWSE_EXPANDABLE_INHERIT) {
    if (depth == 0) throw std::runtime_error("deep");
    throw_deep(depth - 1);
  }
}

static void throw_from_constructor() {
  DROWSE_SCOPE("block", DROWSE_EXPANDABLE_OFF) {
    drowse::scope object("object");
    in_the_middle never;
  }
}

/* One caught half way: what lies outside goes on. */
static void catch_half_way() {
  drowse::scope outside("outside", DROWSE_EXPANDABLE_OFF);
  try {
    throw_deep(5);
    EXPECT(false);
  } catch (const std::runtime_error &) {
    EXPECT(is_current("outside", DROWSE_EXPANDABLE_OFF, 1));
  }
  throw 1;
}

template <typename Exception> static void expect_thrown(void (*function)()) {
  bool caught = false;
  try {
    function();
  } catch (const Exception &) {
    caught = true;
  }
  EXPECT(caught);
  EXPECT(is_outside());
}

/* ---- with a framework */

static bool flag = true, failing;

static int get_flag(void *, bool *on) {
  *on = flag;
  return 0;
}

static int set_flag(void *, bool on) {
  if (failing) return 1;
  flag = on;
  return 0;
}

static void throw_off() {
  drowse::scope off("off", DROWSE_EXPANDABLE_OFF);
  EXPECT(!flag);
  throw std::runtime_error("off");
}

static void scope_on_thread() {
  drowse::scope off("thread's", DROWSE_EXPANDABLE_OFF);
  EXPECT(is_current("thread's", DROWSE_EXPANDABLE_OFF, 1));
  EXPECT(!flag);
}

static void with_framework() {
  drowse_framework framework = {};
  framework.struct_size = sizeof framework;
  framework.get_expandable = get_flag;
  framework.set_expandable = set_flag;
  EXPECT(drowse_framework_attach(&framework) == DROWSE_OK);
  expect_thrown<std::runtime_error>(throw_off);
  EXPECT(flag);
  {
    drowse::scope off("off", DROWSE_EXPANDABLE_OFF);
    failing = true;
    EXPECT(off.leave() == DROWSE_ERR_HOOK);
    EXPECT(is_outside());
    failing = false;
  }
  { drowse::scope off("off", DROWSE_EXPANDABLE_OFF); } /* pays the debt */
  EXPECT(flag);
  std::thread(scope_on_thread).join();
  EXPECT(flag);
  EXPECT(drowse_framework_detach() == DROWSE_OK);
}

int main() {
  objects();
  refused();
  left_early();
  EXPECT(is_outside());
  expect_thrown<int>(catch_half_way);
  expect_thrown<std::runtime_error>(throw_from_constructor);
  with_framework();
  return failures == 0 ? 0 : 1;
}
