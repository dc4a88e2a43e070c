/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs: what a capture recorded, in the order of the calls, which is one that all dependencies allow. A graph never changes
 * once its capture has ended, so instantiating is holding it, and a launch is one piece of work that does all of it.
 */
#include "driver/host/state.h"

#include <stdlib.h>

struct graph *dz_graph_make(void) {
  struct graph *graph = calloc(1, sizeof *graph);
  if (graph != NULL) graph->references = 1;
  return graph;
}

bool dz_graph_add(struct graph *graph, const struct work *node) {
  if (graph->count == graph->room) {
    size_t room = graph->room == 0 ? 8 : graph->room * 2;
    struct work *nodes = realloc(graph->nodes, room * sizeof *nodes);
    if (nodes == NULL) return false;
    graph->nodes = nodes;
    graph->room = room;
  }
  graph->nodes[graph->count++] = *node;
  return true;
}

struct graph *dz_graph_hold(struct graph *graph) {
  graph->references++;
  return graph;
}

void dz_graph_drop(struct graph *graph) {
  if (--graph->references != 0) return;
  free(graph->nodes);
  free(graph);
}

CUresult dz_graph_publish(struct graph *graph, CUgraph *handle) {
  *handle = (CUgraph)(uintptr_t)dz_table_add(&dz_host()->graphs, HOST_GRAPH, graph);
  if (*handle == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
  (void)dz_graph_hold(graph);
  return CUDA_SUCCESS;
}

CUresult dz_host_GraphDestroy(CUgraph handle) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  struct graph *graph = dz_table_remove(&dz_host()->graphs, HOST_GRAPH, (uint64_t)(uintptr_t)handle);
  if (graph == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  dz_graph_drop(graph);
  return dz_host_end(CUDA_SUCCESS);
}

CUresult dz_host_GraphInstantiateWithFlags(CUgraphExec *executable, CUgraph handle, unsigned long long flags) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  struct graph *graph = dz_table_find(&dz_host()->graphs, HOST_GRAPH, (uint64_t)(uintptr_t)handle);
  if (executable == NULL || graph == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  if (flags != 0) return dz_host_end(CUDA_ERROR_NOT_SUPPORTED);
  *executable = (CUgraphExec)(uintptr_t)dz_table_add(&dz_host()->executables, HOST_EXECUTABLE, graph);
  if (*executable == NULL) return dz_host_end(CUDA_ERROR_OUT_OF_MEMORY);
  (void)dz_graph_hold(graph);
  return dz_host_end(CUDA_SUCCESS);
}

/* A launch in flight holds the graph: it may be destroyed meanwhile. */
CUresult dz_host_GraphLaunch(CUgraphExec handle, CUstream stream) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  struct graph *graph = dz_table_find(&dz_host()->executables, HOST_EXECUTABLE, (uint64_t)(uintptr_t)handle);
  if (graph == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  struct work work = {.kind = WORK_GRAPH, .graph = graph};
  return dz_host_end(dz_work_send(stream, &work));
}

CUresult dz_host_GraphExecDestroy(CUgraphExec handle) {
  CUresult result = dz_host_begin();
  if (result != CUDA_SUCCESS) return result;
  result = dz_capture_check_unsafe();
  if (result != CUDA_SUCCESS) return dz_host_end(result);
  struct graph *graph = dz_table_remove(&dz_host()->executables, HOST_EXECUTABLE, (uint64_t)(uintptr_t)handle);
  if (graph == NULL) return dz_host_end(CUDA_ERROR_INVALID_VALUE);
  dz_graph_drop(graph);
  return dz_host_end(CUDA_SUCCESS);
}

static void reclaim(struct table *table, enum host_kind kind) {
  struct graph *graph;
  uint32_t at = 0;
  while ((graph = dz_table_take(table, kind, &at)) != NULL) {
    dz_graph_drop(graph);
    dz_host()->reclaimed++;
  }
}

void dz_graph_reclaim(void) {
  reclaim(&dz_host()->graphs, HOST_GRAPH);
  reclaim(&dz_host()->executables, HOST_EXECUTABLE);
}
