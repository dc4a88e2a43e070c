/* SPDX-License-Identifier: Apache-2.0
 *
 * Before everything in a build that counts what is run (./dev coverage): a process that ends by _exit, as forked children do,
 * writes its counts all the same. It includes nothing: there are tests with names of the system's own.
 */
#ifndef COVERAGE_H
#define COVERAGE_H

void __gcov_dump(void);
void _Exit(int status) __attribute__((noreturn));

static inline __attribute__((noreturn, unused)) void count_and_exit(int status) {
  __gcov_dump();
  _Exit(status);
}
#define _exit count_and_exit

#endif
