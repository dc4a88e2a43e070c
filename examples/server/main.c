/* SPDX-License-Identifier: Apache-2.0
 *
 * An example: a server that uses drowse. It serves a file's bytes over HTTP from the memory of a GPU, gives that memory back
 * while nobody asks, and has it again for the next request, at the same addresses. What there is to see:
 *
 *   model     memory with a tag, loaded from a file       keeper   sleeping and waking, and holds: who may use the memory when
 *   cache     a tag that sleeps without contents          nap      when to sleep
 *   device    the server's own work on its memory         answers  what a request does; http: how it comes
 *   tenant    what the pressure hook asks for memory
 *
 * Try:
 *
 *   server --device=host:1GiB --idle=2000 FILE &
 *   curl 'http://127.0.0.1:PORT/weights?offset=0&bytes=16'
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "http.h"
#include "say.h"

enum { EXIT_USAGE = 2 };

/* Every thread that is started later has these signals blocked as well; they are waited for in serve(). */
static void block_signals(sigset_t *signals) {
  (void)sigemptyset(signals);
  (void)sigaddset(signals, SIGINT);
  (void)sigaddset(signals, SIGTERM);
  (void)pthread_sigmask(SIG_BLOCK, signals, NULL);
  (void)signal(SIGPIPE, SIG_IGN); /* clients go when they like */
}

static bool open_heap(struct server *server) {
  const drowse_heap_options options = {
      .struct_size = sizeof options,
      .device = server->options.device,
      .backup_limit = server->options.backup_limit,
      .pressure = server->options.tenant ? tenant_yield : NULL,
      .pressure_context = &server->tenant,
  };
  drowse_status status = drowse_heap_open(&server->heap, &options);
  if (status != DROWSE_OK) say("opening the device: %s", reason(status));
  return status == DROWSE_OK;
}

/* Makes the first sleep as fast as the others, in the background. Without it, or where there is not as much memory, the first one
 * takes its time. */
static void prepare_backup(struct server *server) {
  uint64_t bytes = server->model.bytes, limit = server->options.backup_limit;
  drowse_status status = drowse_backup_reserve_start(server->heap, limit > 0 && limit < bytes ? limit : bytes);
  if (status != DROWSE_OK) say("host memory for the backup: %s", reason(status));
}

static bool seal(struct server *server) {
  drowse_status status = server->options.sealed ? drowse_seal(server->heap, MODEL_TAG) : DROWSE_OK;
  if (status != DROWSE_OK) say("sealing the weights: %s", reason(status));
  return status == DROWSE_OK;
}

/* Until a signal comes. */
static bool serve(struct server *server, const sigset_t *signals) {
  unsigned port;
  int signal;
  struct MHD_Daemon *daemon = http_start(server, &port);
  if (daemon == NULL) return false;
  printf("listening on http://127.0.0.1:%u\n", port);
  (void)fflush(stdout);
  (void)sigwait(signals, &signal);
  keeper_stop(&server->keeper);
  http_stop(daemon);
  return true;
}

static bool run_napping(struct server *server, const sigset_t *signals) {
  keeper_start(&server->keeper, server->heap, &server->options);
  bool done = nap_start(&server->nap, &server->keeper, server->options.idle_ms);
  if (done) {
    done = serve(server, signals);
    nap_stop(&server->nap);
  }
  keeper_end(&server->keeper);
  return done;
}

static bool run_cached(struct server *server, const sigset_t *signals) {
  bool done = cache_make(&server->cache, server->heap, server->options.cache_bytes) && seal(server);
  if (done) {
    prepare_backup(server);
    done = run_napping(server, signals);
  }
  cache_end(&server->cache);
  return done;
}

static bool run_with_device(struct server *server, const sigset_t *signals) {
  bool done = model_load(&server->model, server->heap, server->options.file) && run_cached(server, signals);
  model_unload(&server->model);
  return done;
}

static bool run_open(struct server *server, const sigset_t *signals) {
  if (server->options.tenant && !tenant_start(&server->tenant, server->options.device)) return false;
  bool done = device_start(&server->device, server->heap) && run_with_device(server, signals);
  device_end(&server->device, server->heap);
  return done;
}

/* The heap's end frees its blocks, asleep or awake. */
static bool close_heap(struct server *server) {
  drowse_status status = drowse_heap_close(server->heap);
  if (status != DROWSE_OK) say("closing the device: %s", reason(status));
  return status == DROWSE_OK;
}

static bool run(struct server *server, const sigset_t *signals) {
  tally_make(&server->tally);
  tenant_make(&server->tenant);
  bool done = false;
  if (open_heap(server)) {
    done = run_open(server, signals);
    done = close_heap(server) && done;
  }
  tenant_end(&server->tenant);
  tally_end(&server->tally);
  return done;
}

int main(int argc, char **argv) {
  struct server server = {0};
  sigset_t signals;
  enum parsed parsed = options_parse(&server.options, argc, argv);
  if (parsed == PARSED_HELP) return EXIT_SUCCESS;
  if (parsed == PARSED_WRONG) return EXIT_USAGE;
  block_signals(&signals);
  return run(&server, &signals) ? EXIT_SUCCESS : EXIT_FAILURE;
}
