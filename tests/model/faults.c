/* SPDX-License-Identifier: Apache-2.0
 *
 * A call that fails: of the driver's or of libc's, in whatever the next step does and in what goes on meanwhile. A call of the
 * library's that says so has changed nothing.
 */
#include "fault/fault.h"
#include "model/model.h"

static struct fault_case next; /* k 0: none */
static atomic_uint met;
static bool armed;

static void note(void) {
  (void)atomic_fetch_add(&met, 1);
}

void faults_prepare(void) {
  fault_tell(note);
}

unsigned faults_met(void) {
  return atomic_load(&met);
}

bool faults_met_in_step(void) {
  return armed && fault_injected();
}

/* Those that are done all the same are to be told from those that are not by nobody but whoever looks. */
void step_fault(struct actor *actor, const struct step *step) {
  static const enum fault_variant variants[] = {FAULT_REFUSED, FAULT_REFUSED, FAULT_FULL, FAULT_DONE};
  const enum fault_point point = (enum fault_point)((step->a | (step->b & 1) << 8) % FAULT_POINTS);
  enum fault_variant variant = variants[step->c % 4];
  if (!model_faults) return;
  if (!fault_has(point, FAULT_ONCE, variant)) variant = FAULT_REFUSED;
  next = (struct fault_case){point, 1 + (uint64_t)(step->c / 4 % 8), FAULT_ONCE, variant};
  model_say(actor, "fault %s:%u:once:%s", fault_point_name(point), (unsigned)next.k, fault_variant_name(variant));
}

void faults_begin_step(void) {
  if (next.k == 0) return;
  fault_arm(&next);
  armed = true;
}

/* One that nothing has met goes, too: else nobody could say which step it was for. */
void faults_end_step(const struct kind *kind) {
  if (kind->run == step_fault) return;
  if (armed) fault_rest();
  armed = false;
  next.k = 0;
}
