/* SPDX-License-Identifier: Apache-2.0
 *
 * Thread-local storage. A library that is opened at run time shares a small static reserve with all others, and only that can be
 * reached without __tls_get_addr(), which may allocate and is not async-signal-safe. So: initial-exec, and at most 64 bytes in
 * all of drowse, pointers to records that are made at first use.
 */
#ifndef DZ_TLS_H
#define DZ_TLS_H

#define DZ_TLS _Thread_local __attribute__((tls_model("initial-exec")))

#endif
