/* SPDX-License-Identifier: Apache-2.0
 *
 * Pairs of allocate and free with PyTorch's CUDA allocator, called as PyTorch calls it. bench/torch_alloc.py builds this as a
 * library against the installed PyTorch and opens it.
 */
#include <c10/cuda/CUDACachingAllocator.h>

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <thread>
#include <vector>

namespace {

double seconds(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

void run_pairs(size_t bytes, size_t pairs, cudaStream_t stream) {
  namespace torch_allocator = c10::cuda::CUDACachingAllocator;
  for (size_t i = 0; i < pairs; i++) torch_allocator::raw_delete(torch_allocator::raw_alloc_with_stream(bytes, stream));
}

struct member {
  cudaStream_t stream;
  double begun, ended, processor; /* seconds */
  bool failed;
};

void work(member &member, pthread_barrier_t &begin, size_t bytes, size_t pairs) {
  try {
    run_pairs(bytes, 100, member.stream); /* the first ones take memory from the driver */
  } catch (const std::exception &error) {
    std::fprintf(stderr, "bench: %s\n", error.what());
    member.failed = true;
  }
  pthread_barrier_wait(&begin);
  if (member.failed) return;
  double processor = seconds(CLOCK_THREAD_CPUTIME_ID);
  member.begun = seconds(CLOCK_MONOTONIC);
  run_pairs(bytes, pairs, member.stream); /* all hits: nothing to fail */
  member.ended = seconds(CLOCK_MONOTONIC);
  member.processor = seconds(CLOCK_THREAD_CPUTIME_ID) - processor;
}

} // namespace

/* Runs pairs on each of count threads, one on each of the streams. *elapsed: seconds from the first one's begin to the last one's
 * end; *processor: the most processor time that one took. Returns 0, or -1 after a failure. */
extern "C" int bench_pairs(unsigned count, size_t bytes, size_t pairs, void *const *streams, double *elapsed, double *processor) {
  std::vector<member> members(count);
  std::vector<std::thread> threads;
  pthread_barrier_t begin;
  pthread_barrier_init(&begin, nullptr, count);
  for (unsigned i = 0; i < count; i++) {
    members[i] = {static_cast<cudaStream_t>(streams[i]), 0, 0, 0, false};
    threads.emplace_back([&, i] { work(members[i], begin, bytes, pairs); });
  }
  for (std::thread &thread : threads) thread.join();
  pthread_barrier_destroy(&begin);
  double first = members[0].begun, last = 0;
  *processor = 0;
  for (const member &member : members) {
    if (member.failed) return -1;
    first = std::min(first, member.begun);
    last = std::max(last, member.ended);
    *processor = std::max(*processor, member.processor);
  }
  *elapsed = last - first;
  return 0;
}
