/* SPDX-License-Identifier: Apache-2.0
 *
 * Forks and memory: what backups are pinned in is not copied and not there in the child, so a fork with gigabytes of it is quick
 * and takes nothing; and where it was the child may have memory of its own, which closing the inherited heap leaves alone.
 */
#include "fixture.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backup/hostmem.h"
#include "child.h"

enum { HOLES = 64 };
static const uint64_t gib = UINT64_C(1) << 30;

/* ---- mappings that a child does not get */

static struct hole { uint64_t base, bytes; } holes[HOLES];
static size_t hole_count;
static uint64_t hole_bytes, hole_resident;

/* Of this process, as the kernel lists them. */
static void find_holes(void) {
  char line[512];
  unsigned long long base, end, resident = 0;
  struct hole hole = {0, 0};
  FILE *maps = fopen("/proc/self/smaps", "r");
  ck_assert_ptr_nonnull(maps);
  hole_count = 0;
  hole_bytes = hole_resident = 0;
  while (fgets(line, sizeof line, maps) != NULL) {
    if (strncmp(line, "VmFlags:", 8) == 0) {
      if (strstr(line, " dc") == NULL) continue;
      ck_assert_uint_lt(hole_count, HOLES);
      holes[hole_count++] = hole;
      hole_bytes += hole.bytes;
      hole_resident += resident * KIB;
    } else if (sscanf(line, "Rss: %llu", &resident) == 1) {
      continue;
    } else if (sscanf(line, "%llx-%llx ", &base, &end) == 2) {
      hole = (struct hole){base, end - base};
    }
  }
  ck_assert_int_eq(fclose(maps), 0);
}

/* A number in a line of a file in /proc that begins with name; 0: none. */
static uint64_t proc_number(const char *path, const char *name) {
  char line[256];
  unsigned long long number = 0;
  FILE *file = fopen(path, "r");
  if (file == NULL) return 0;
  while (fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, name, strlen(name)) == 0) (void)sscanf(line + strlen(name), "%llu", &number);
  }
  (void)fclose(file);
  return number;
}

static uint64_t resident_bytes(void) {
  return proc_number("/proc/self/status", "VmRSS:") * KIB;
}

/* ---- a big arena */

/* As big as the machine lets it be without harm. */
static uint64_t arena_bytes(void) {
  uint64_t available = dz_host_available();
  if (SANITIZED || available < 4 * gib) return 64 * MIB;
  return available < 12 * gib ? gib : 4 * gib;
}

static uint64_t resident_of_parent;

static int child_has_no_arena(void) {
  STEP(1, resident_bytes() + hole_resident < resident_of_parent + 16 * MIB);
  for (size_t i = 0; i < hole_count; i++) {
    void *there = mmap((void *)(uintptr_t)holes[i].base, holes[i].bytes, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    STEP(2, there == (void *)(uintptr_t)holes[i].base); /* nothing is mapped there */
  }
  return 0;
}

START_TEST(a_pinned_arena_is_not_copied) {
  uint64_t bytes = arena_bytes();
  ck_ok(dz_arena_reserve(&heap->arena, bytes, true));
  ck_assert_uint_eq(stats_of(NULL).pinned_bytes, bytes);
  find_holes();
  ck_assert_uint_ge(hole_resident, bytes);
  resident_of_parent = resident_bytes();
  ck_assert_uint_ge(resident_of_parent, bytes);
  for (int i = 0; i < 5; i++) {
    int64_t begun = dz_now();
    pid_t child = fork();
    if (child == 0) _exit(child_has_no_arena());
    printf("fork with %" PRIu64 " MiB pinned: %.3f ms\n", bytes / MIB, (double)(dz_now() - begun) / 1e6);
    ck_assert_int_eq(end_of_child(child), 0);
  }
  ck_assert_uint_le(resident_bytes(), resident_of_parent + 16 * MIB);
}
END_TEST

static struct range *growing;

static int child_closes(void) {
  unsigned char residence;
  STEP(1, mincore(dz_space_memory(growing), 4096, &residence) != 0);
  STEP(2, mincore((char *)dz_space_memory(growing) + growing->bytes - 4096, 4096, &residence) != 0);
  STEP(3, drowse_heap_close(heap) == DROWSE_OK);
  STEP(4, dz_host_calls_after_fork() == 0);
  return 0;
}

/* Whatever its threads are at, in the parent they go on and in the child there is nothing of it. */
START_TEST(an_arena_that_grows_is_not_copied) {
  uint64_t bytes = arena_bytes() / 4;
  for (uint64_t round = 1; round <= 4; round++) {
    ck_ok(dz_arena_grow(&heap->arena, bytes, &growing));
    for (int i = 0; i < 4; i++) ck_child(child_closes);
    ck_ok(dz_arena_wait(&heap->arena, growing, bytes));
    ck_assert_uint_eq(stats_of(NULL).pinned_bytes, round * bytes);
    dz_arena_give(&heap->arena, growing);
  }
}
END_TEST

/* ---- the child's own memory where the arena was */

enum { BYTES = 24 * 1024 * 1024 };
static void *block;

/* Fills all holes, and 1 GiB from malloc, of which it touches some. */
static int child_fills_the_holes(void) {
  const size_t large = SANITIZED ? 64 * MIB : gib, step = 997 * 4096;
  unsigned char *filled[HOLES], *memory = malloc(large);
  STEP(1, memory != NULL);
  for (size_t at = 0; at < large; at += step) memory[at] = (unsigned char)(at / step);
  for (size_t i = 0; i < hole_count; i++) {
    filled[i] = mmap((void *)(uintptr_t)holes[i].base, holes[i].bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    bool free_there = filled[i] == (unsigned char *)(uintptr_t)holes[i].base;
    if (!free_there) filled[i] = NULL; /* malloc has it */
    if (free_there) memset(filled[i], (int)i + 1, holes[i].bytes);
  }
  STEP(2, drowse_heap_close(heap) == DROWSE_OK);
  STEP(3, dz_host_calls_after_fork() == 0);
  for (size_t at = 0; at < large; at += step) STEP(4, memory[at] == (unsigned char)(at / step));
  for (size_t i = 0; i < hole_count; i++) {
    for (size_t at = 0; filled[i] != NULL && at < holes[i].bytes; at += 4096) STEP(5, filled[i][at] == (unsigned char)(i + 1));
  }
  free(memory);
  return 0;
}

START_TEST(closing_leaves_what_the_child_has_in_the_holes) {
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  for (int round = 0; round < 2; round++) {
    find_holes(); /* awake: the device's memory; asleep: the arena as well */
    ck_assert_uint_gt(hole_count, 0);
    ck_child(child_fills_the_holes);
    ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  }
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
}
END_TEST

/* The same for forks that run no handlers: there too the kernel leaves it out. */
START_TEST(forks_without_handlers_have_the_same_holes) {
  write_pattern(block = alloc_tag("a", BYTES), BYTES, 1);
  ck_ok(sleep_tag("a", DROWSE_OFFLOAD));
  find_holes();
  ck_assert_uint_ge(hole_resident, BYTES);
  resident_of_parent = resident_bytes();
  ck_assert_int_eq(in_child_by((enum fork_kind)_i, child_has_no_arena), 0);
  ck_ok(wake_tag("a"));
  ck_assert(has_pattern(block, BYTES, 1));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("forks and memory");
  HEAP_TEST(suite, a_pinned_arena_is_not_copied);
  HEAP_TEST(suite, an_arena_that_grows_is_not_copied);
  HEAP_TEST(suite, closing_leaves_what_the_child_has_in_the_holes);
  TCase *untold = tcase_create("forks_without_handlers_have_the_same_holes");
  tcase_add_checked_fixture(untold, start, finish);
  tcase_add_loop_test(untold, forks_without_handlers_have_the_same_holes, 0, FORK_KINDS);
  suite_add_tcase(suite, untold);
  return harness_run(suite);
}
