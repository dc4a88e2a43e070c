/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps that put tags to sleep and wake them, at once or by operations that go on, and what keeps tags awake or their backups.
 */
#include <sched.h>
#include <stdio.h>

#include "fault/fault.h"
#include "model/model.h"

drowse_stats motion_stats(const char *tag) {
  drowse_stats stats = {.struct_size = sizeof stats};
  drowse_status status = drowse_stats_get(model_heap, tag, &stats);
  EXPECT_MSG(status == DROWSE_OK, "stats_get %s: %s", tag == NULL ? "of the heap" : tag, drowse_last_error());
  return stats;
}

/* ---- what a call is to move */

/* A call succeeds if every tag lets it, and fails as one of them may. */
static uint64_t allowed_of_all(uint64_t allowed, uint64_t by_tag) {
  uint64_t ok = allowed & by_tag & STATUS(OK);
  return ((allowed | by_tag) & ~STATUS(OK)) | ok;
}

static void add_tag(struct actor *actor, struct ref_op *op, unsigned number, unsigned after) {
  const struct ref_tag *tag = &actor->tags[number];
  op->any_shared |= tag->shared;
  if (tag->shared) return;
  op->tags[op->count] = number;
  op->before[op->count] = tag->states;
  op->after[op->count++] = after;
}

/* In which states it would not move. */
static unsigned resting(const struct ref_op *op, size_t at) {
  const unsigned rests = op->after[at] == ASLEEP ? ASLEEP | LOST : op->after[at];
  return op->before[at] & rests;
}

/* Its tags move. */
static void begin(struct actor *actor, struct ref_op *op) {
  for (size_t i = 0; i < op->count; i++) {
    struct ref_tag *tag = &actor->tags[op->tags[i]];
    tag->muddled |= tag->moving++ > 0;
    const unsigned between = op->wakes ? WAKING : FALLING;
    tag->states = tag->muddled ? ANY : op->blocked ? FALLING | resting(op, i) : op->before[i] | between | op->after[i];
  }
}

/* ---- what has become of it */

/* What the tag is, once nothing moves it. Without live blocks nobody can tell whether their contents are lost. */
static unsigned observe(const struct ref_tag *tag) {
  drowse_stats stats = motion_stats(tag->name);
  EXPECT_MSG(stats.state == DROWSE_AWAKE || stats.state == DROWSE_ASLEEP, "nothing moves the tag %s, but its state is %d",
             tag->name, (int)stats.state);
  if (stats.state == DROWSE_AWAKE) return AWAKE;
  if (stats.live_bytes == 0) return ASLEEP | LOST;
  return stats.backup_bytes + stats.file_bytes == 0 ? LOST : ASLEEP;
}

/* What the end of an operation has shown so far. */
struct end {
  const struct ref_op *op;
  drowse_status status;
  bool any_moved, any_stayed;
};

/* A sleep takes all or none; where pages are stuck it fails, and has taken all. A wake that fails has woken the first ones, or
 * none if together. */
static bool is_as_it_must_be(const struct end *end, bool moved, bool stayed) {
  if (end->status == DROWSE_OK) return moved;
  if (moved && stayed) return true;
  if (stayed) return end->op->wakes || !end->any_moved;
  bool may_move = end->op->wakes ? !end->op->together : end->status == DROWSE_ERR_DRIVER;
  return moved && may_move && !end->any_stayed;
}

static void settle_tag(struct actor *actor, struct end *end, size_t at) {
  const struct ref_op *op = end->op;
  struct ref_tag *tag = &actor->tags[op->tags[at]];
  if (--tag->moving > 0) return;
  unsigned state = observe(tag);
  const bool moved = (state & op->after[at]) != 0, stayed = (state & op->before[at]) != 0;
  EXPECT_MSG(tag->muddled || is_as_it_must_be(end, moved, stayed), "thread %u: a %s has ended with %s, and the tag %s is %s",
             actor->number, op->wakes ? "wake" : "sleep", drowse_status_name(end->status), tag->name,
             state == AWAKE  ? "awake"
             : state == LOST ? "discarded"
                             : "asleep");
  end->any_moved |= moved && !stayed && !tag->muddled;
  end->any_stayed |= stayed && !moved && !tag->muddled;
  if ((end->status == DROWSE_OK || (moved && !stayed)) && !tag->muddled) state &= op->after[at];
  const bool sealed = motion_stats(tag->name).sealed != 0, unsure = tag->muddled || (moved && stayed);
  if (op->after[at] == LOST && state == LOST) tag->sealed = false;
  EXPECT_MSG(unsure || sealed == tag->sealed, "the tag %s is %s", tag->name, sealed ? "sealed" : "not sealed");
  tag->sealed = sealed;
  tag->muddled = false;
  tag->states = state;
  if (state == LOST) ref_fill(actor, op->tags[at], -1);
}

static void settle(struct actor *actor, const struct ref_op *op, drowse_status status) {
  struct end end = {.op = op, .status = status};
  for (size_t i = 0; i < op->count; i++) settle_tag(actor, &end, i);
}

static uint64_t allowed_at_end(const struct actor *actor, const struct ref_op *op) {
  uint64_t allowed = STATUS(OK);
  if (op->canceled) allowed |= STATUS(ERR_CANCELED);
  if (op->any_shared || op->timed) allowed |= op->wakes ? 0 : STATUS(ERR_BUSY);
  if (!op->wakes && op->to_host && ref_is_short_of_backups(actor)) allowed |= STATUS(ERR_NO_HOST_MEMORY);
  if (op->wakes && op->is_short) allowed |= STATUS(ERR_NO_DEVICE_MEMORY);
  if (op->faults != faults_met()) allowed |= ref_of_faults;
  return allowed;
}

static struct ref_op *room(struct actor *actor) {
  struct ref_op *op = actor->ops;
  while (op < actor->ops + OPS && op->op != NULL) op++;
  return op < actor->ops + OPS ? op : NULL;
}

static struct ref_op *op_of(struct actor *actor, const struct step *step) {
  struct ref_op *op = &actor->ops[step->a % OPS];
  return op->op != NULL ? op : NULL;
}

static unsigned number_of(const struct actor *actor, const struct ref_op *op) {
  return (unsigned)(op - actor->ops);
}

/* ---- callbacks */

static void watch_progress(void *context, const drowse_progress *progress) {
  uint64_t *done_bytes = context;
  EXPECT_MSG(progress->done_bytes >= *done_bytes && progress->done_bytes <= progress->total_bytes,
             "%llu bytes of %llu are done, and %llu were before", (unsigned long long)progress->done_bytes,
             (unsigned long long)progress->total_bytes, (unsigned long long)*done_bytes);
  *done_bytes = progress->done_bytes;
}

/* ---- sleep */

/* What the caller vouches for who wants nothing to be waited for. */
static void await_streams(const struct actor *actor) {
  for (size_t i = 0; i < STREAMS; i++) EXPECT(fault_real_driver()->StreamSynchronize(actor->streams[i]) == CUDA_SUCCESS);
}

struct rules {
  drowse_rule list[TAGS + 1 + 2 * THREADS_MOST];
  size_t count;
};

/* Other threads' own tags are kept when every tag that no rule names is to sleep. */
static void add_others(const struct actor *actor, struct rules *rules) {
  rules->list[rules->count++] = (drowse_rule){.action = DROWSE_OFFLOAD};
  for (unsigned thread = 0; thread < model_setting.threads; thread++) {
    for (unsigned i = 0; i < 2 && thread != actor->number; i++)
      rules->list[rules->count++] = (drowse_rule){.tag = ref_own_name(thread, i), .action = DROWSE_KEEP};
  }
}

/* In words, for whoever reads what was done. */
static void describe(const struct rules *rules, char *words, size_t size) {
  static const char *const actions[] = {"keep", "offload", "discard"};
  size_t length = 0;
  words[0] = '\0';
  for (size_t i = 0; i < rules->count && length < size; i++)
    length += (size_t)snprintf(words + length, size - length, "%s%s=%s", i == 0 ? "" : ",",
                               rules->list[i].tag == NULL ? "*" : rules->list[i].tag, actions[rules->list[i].action]);
}

static void choose_rules(struct actor *actor, const struct step *step, struct rules *rules, struct ref_op *op,
                         uint64_t *allowed) {
  const bool rest = (step->a & 2) != 0;
  rules->count = 0;
  *allowed = STATUS(OK);
  if (rest) add_others(actor, rules);
  for (unsigned i = 0; i < TAGS; i++) {
    const struct ref_tag *tag = &actor->tags[i];
    const unsigned choice = (step->b | step->c << 8) >> 2 * i & 3;
    drowse_action action = choice < 2 ? DROWSE_KEEP : choice == 3 && tag->loses ? DROWSE_DISCARD : DROWSE_OFFLOAD;
    if (choice != 0) rules->list[rules->count++] = (drowse_rule){.tag = tag->name, .action = action};
    if (choice == 0 && rest) action = DROWSE_OFFLOAD;
    if (action == DROWSE_KEEP) continue;
    *allowed = allowed_of_all(*allowed, ref_allowed(CALL_MOVE, tag->states));
    const unsigned stays = action == DROWSE_OFFLOAD ? ASLEEP | LOST : LOST;
    if ((tag->states & ~stays) == 0) continue;
    op->held |= tag->holds > 0 && !tag->shared;
    op->to_host |= action == DROWSE_OFFLOAD;
    add_tag(actor, op, i, action == DROWSE_OFFLOAD ? ASLEEP : LOST);
  }
}

/* For ever, where nobody else can make it so long. */
static int64_t choose_timeout(const struct step *step, bool starts, struct ref_op *op) {
  op->timed = op->any_shared || (op->held && !(starts && (step->a & 4) != 0));
  op->blocked = op->held && !op->timed;
  return op->timed ? 2 : 0;
}

void step_sleep(struct actor *actor, const struct step *step) {
  static const drowse_backup backups[] = {DROWSE_BACKUP_HOST, DROWSE_BACKUP_HOST, DROWSE_BACKUP_FILE,
                                          DROWSE_BACKUP_HOST_THEN_FILE};
  struct ref_op now = {0}, *op = (step->a & 1) == 0 ? &now : room(actor);
  struct rules rules;
  uint64_t allowed;
  if (op == NULL) return;
  *op = (struct ref_op){0};
  choose_rules(actor, step, &rules, op, &allowed);
  drowse_sleep_options options = {.struct_size = sizeof options,
                                  .drain = (drowse_drain)((step->a >> 3) % 3),
                                  .streams = (drowse_stream *)actor->streams,
                                  .stream_count = STREAMS,
                                  .drain_timeout_ms = choose_timeout(step, op != &now, op),
                                  .backup = backups[step->a >> 6],
                                  .directory = model_directory,
                                  .progress = watch_progress,
                                  .context = &op->done_bytes};
  op->to_host &= options.backup == DROWSE_BACKUP_HOST;
  if (options.drain == DROWSE_DRAIN_NONE && op->any_shared) options.drain = DROWSE_DRAIN_DEVICE;
  if (options.drain == DROWSE_DRAIN_NONE) await_streams(actor);
  const char *call = op == &now ? "sleep" : "sleep_start";
  drowse_status status;
  op->faults = faults_met();
  if (op == &now) {
    allowed |= allowed_at_end(actor, op) & ~STATUS(OK);
    if (op->held) allowed = STATUS(ERR_BUSY);
    status = drowse_sleep(model_heap, rules.list, rules.count, &options);
  } else {
    status = drowse_sleep_start(model_heap, rules.list, rules.count, &options, &op->op);
    EXPECT((status == DROWSE_OK) == (op->op != NULL));
  }
  for (unsigned i = 0; i < STREAMS && options.drain == DROWSE_DRAIN_STREAMS; i++) memory_see(actor, i, status);
  char words[120];
  describe(&rules, words, sizeof words);
  status = ref_check(actor, status, allowed, "%s %s, drain %u, backup %u, timeout %d", call, words, (unsigned)options.drain,
                     (unsigned)options.backup, (int)options.drain_timeout_ms);
  if (op != &now) {
    if (status == DROWSE_OK) begin(actor, op);
    return;
  }
  if (status == DROWSE_ERR_BUSY && !op->timed) return; /* nothing has moved */
  begin(actor, op);
  settle(actor, op, status);
}

/* ---- wake */

static void describe_tags(const char *const *names, size_t count, char *words, size_t size) {
  size_t length = 0;
  words[0] = '\0';
  for (size_t i = 0; i < count && length < size; i++)
    length += (size_t)snprintf(words + length, size - length, "%s%s", i == 0 ? "" : ",", names[i]);
}

static size_t choose_tags(struct actor *actor, const struct step *step, const char **names, struct ref_op *op, uint64_t *allowed,
                          bool every) {
  size_t count = 0;
  *allowed = STATUS(OK);
  for (unsigned i = 0; i < TAGS; i++) {
    const unsigned number = every ? i : (step->b + i) % TAGS;
    const struct ref_tag *tag = &actor->tags[number];
    if (!every && (step->c >> i & 1) == 0) continue;
    names[count++] = tag->name;
    *allowed = allowed_of_all(*allowed, ref_allowed(CALL_MOVE, tag->states));
    if (tag->states != AWAKE) add_tag(actor, op, number, AWAKE);
  }
  return count;
}

/* What is in the blocks of those that sleep without contents, as soon as they are awake. */
static void fill_lost(struct actor *actor, const struct ref_op *op, uint32_t flags) {
  const int filling = (flags & DROWSE_WAKE_ZERO) != 0 ? 0 : (flags & DROWSE_WAKE_POISON) != 0 ? 0xdb : -1;
  for (size_t i = 0; i < op->count; i++) {
    if ((op->before[i] & LOST) != 0) ref_fill(actor, op->tags[i], op->before[i] == LOST ? filling : -1);
  }
}

void step_wake(struct actor *actor, const struct step *step) {
  static const uint32_t fills[] = {0, DROWSE_WAKE_ZERO, DROWSE_WAKE_POISON, 0};
  struct ref_op now = {0}, *op = (step->a & 1) == 0 ? &now : room(actor);
  const char *names[TAGS];
  uint64_t allowed;
  if (op == NULL) return;
  *op = (struct ref_op){.wakes = true, .together = (step->a & 2) != 0};
  const bool every = is_alone() && (step->a & 16) != 0;
  const size_t count = choose_tags(actor, step, names, op, &allowed, every);
  const bool asks = op == &now && ref_has_tenant() && model_setting.presses;
  drowse_wake_options options = {.struct_size = sizeof options,
                                 .flags = fills[step->a >> 2 & 3] | (op->together ? DROWSE_WAKE_TOGETHER : 0),
                                 .deadline_ms = asks ? 20000 : 0,
                                 .progress = watch_progress,
                                 .context = &op->done_bytes};
  op->is_short = ref_is_short(asks);
  drowse_status status;
  op->faults = faults_met();
  if (op == &now) {
    allowed |= allowed_at_end(actor, op) & ~STATUS(OK);
    status = drowse_wake(model_heap, every ? NULL : names, every ? 0 : count, &options);
  } else {
    status = drowse_wake_start(model_heap, every ? NULL : names, every ? 0 : count, &options, &op->op);
    EXPECT((status == DROWSE_OK) == (op->op != NULL));
  }
  char words[120];
  describe_tags(names, count, words, sizeof words);
  status = ref_check(actor, status, allowed, "%s %s, flags %u, deadline %d", op == &now ? "wake" : "wake_start", words,
                     options.flags, (int)options.deadline_ms);
  if (status == DROWSE_ERR_BUSY || (op != &now && status != DROWSE_OK)) return;
  fill_lost(actor, op, options.flags);
  begin(actor, op);
  if (op == &now) settle(actor, op, status);
}

/* ---- what is wrong with a call is told at once, and changes nothing */

void step_sleep_odd(struct actor *actor, const struct step *step) {
  drowse_rule rules[2] = {{.tag = "weights", .action = DROWSE_OFFLOAD}, {.tag = "weights", .action = DROWSE_DISCARD}};
  drowse_sleep_options options = {.struct_size = sizeof options};
  drowse_wake_options wake_options = {.struct_size = sizeof wake_options};
  const char *const names[] = {"weights", "nobody", "weights"};
  switch (step->a % 6) {
  case 0:
    (void)ref_check(actor, drowse_sleep(model_heap, rules, 2, NULL), STATUS(ERR_INVALID), "sleep weights,weights");
    break;
  case 1:
    rules[0].tag = "nobody";
    (void)ref_check(actor, drowse_sleep(model_heap, rules, 1, NULL), STATUS(ERR_NOT_FOUND), "sleep nobody");
    break;
  case 2:
    options.backup = DROWSE_BACKUP_FILE;
    (void)ref_check(actor, drowse_sleep(model_heap, rules, 1, &options), STATUS(ERR_INVALID), "sleep to a file nowhere");
    break;
  case 3:
    (void)ref_check(actor, drowse_wake(model_heap, names + 1, 1, NULL), STATUS(ERR_NOT_FOUND), "wake nobody");
    break;
  case 4:
    (void)ref_check(actor, drowse_wake(model_heap, (const char *const[]){"weights", "weights"}, 2, NULL),
                    STATUS(ERR_INVALID) | STATUS(ERR_BUSY), "wake weights,weights");
    break;
  default:
    wake_options.flags = DROWSE_WAKE_ZERO | DROWSE_WAKE_POISON;
    (void)ref_check(actor, drowse_wake(model_heap, names, 1, &wake_options), STATUS(ERR_INVALID), "wake as zeros and as poison");
    break;
  }
}

/* ---- operations */

/* Whether the thread holds a tag of it. One that another operation had, too, may sleep already when this one comes to it; then it
 * has no part in it, and who wakes and holds it keeps nobody: that is not sure. */
static bool is_held(const struct actor *actor, const struct ref_op *op, bool surely) {
  bool held = false;
  for (size_t i = 0; i < op->count; i++) {
    const struct ref_tag *tag = &actor->tags[op->tags[i]];
    held |= tag->holds > 0 && !(surely && tag->muddled);
  }
  return held;
}

/* Waits for the end, or takes it that it cannot come while the thread itself holds a tag, or may not. */
static drowse_status wait_for(struct actor *actor, struct ref_op *op, int64_t timeout_ms) {
  if (op->blocked || is_held(actor, op, false)) timeout_ms = 0;
  uint64_t allowed = op->blocked ? STATUS(ERR_TIMEOUT) : allowed_at_end(actor, op);
  if (timeout_ms >= 0) allowed |= STATUS(ERR_TIMEOUT);
  drowse_status status = drowse_op_wait(op->op, timeout_ms);
  return ref_check(actor, status, allowed, "op_wait %u, timeout %d", number_of(actor, op), (int)timeout_ms);
}

static void let_go(struct ref_op *op) {
  drowse_op_release(op->op);
  op->op = NULL;
}

void step_op_wait(struct actor *actor, const struct step *step) {
  struct ref_op *op = op_of(actor, step);
  if (op == NULL) return;
  drowse_status status = wait_for(actor, op, (int64_t)(step->b % 3) - 1);
  if (status == DROWSE_ERR_TIMEOUT) return;
  EXPECT_MSG(drowse_op_wait(op->op, 0) == status, "an operation that has ended with %s ends in another way when asked again",
             drowse_status_name(status));
  settle(actor, op, status);
  let_go(op);
}

void step_op_look(struct actor *actor, const struct step *step) {
  const struct ref_op *op = op_of(actor, step);
  uint64_t done_bytes = 1, total_bytes = 0;
  if (op == NULL) {
    (void)ref_check(actor, drowse_op_wait(NULL, 0), STATUS(ERR_INVALID), "op_wait NULL");
    return;
  }
  (void)ref_check(actor, drowse_op_progress(op->op, &done_bytes, &total_bytes), STATUS(OK), "op_progress %u",
                  number_of(actor, op));
  EXPECT(done_bytes <= total_bytes);
}

/* It may end now, whatever the thread holds. */
static void unblock(struct actor *actor, struct ref_op *op) {
  if (!op->blocked) return;
  op->blocked = false;
  for (size_t i = 0; i < op->count; i++) actor->tags[op->tags[i]].states |= op->before[i] | op->after[i];
}

void step_op_cancel(struct actor *actor, const struct step *step) {
  struct ref_op *op = op_of(actor, step);
  if (op == NULL) return;
  (void)ref_check(actor, drowse_op_cancel(op->op), STATUS(OK), "op_cancel %u", number_of(actor, op));
  op->canceled = true;
  unblock(actor, op);
}

static bool has_muddled(const struct actor *actor, const struct ref_op *op) {
  bool muddled = false;
  for (size_t i = 0; i < op->count; i++) muddled |= actor->tags[op->tags[i]].muddled;
  return muddled;
}

/* An operation that has been let go of goes on: that it has ended is seen by what its tags are, if no other one has them too. */
void step_op_release(struct actor *actor, const struct step *step) {
  struct ref_op *op = op_of(actor, step);
  if (op == NULL || op->blocked || has_muddled(actor, op)) return;
  model_say(actor, "op_release %u", number_of(actor, op));
  let_go(op);
  for (size_t i = 0; i < op->count; i++) {
    struct ref_tag *tag = &actor->tags[op->tags[i]];
    tag->muddled = true;
    for (drowse_state state = DROWSE_WAKING; state != DROWSE_AWAKE && state != DROWSE_ASLEEP;) {
      (void)sched_yield();
      state = motion_stats(tag->name).state;
    }
  }
  settle(actor, op, DROWSE_OK);
}

/* ---- holds */

void step_hold(struct actor *actor, const struct step *step) {
  struct ref_tag *tag = &actor->tags[step->a % TAGS];
  const int64_t timeout_ms = step->c % 8 == 0;
  if (tag->holds == 3) return;
  drowse_status status = (step->b & 1) == 0 ? drowse_hold(model_heap, tag->name, timeout_ms)
                                            : drowse_hold_tag(model_heap, drowse_tag_get(tag->name), timeout_ms);
  status = ref_check(actor, status, ref_allowed(CALL_HOLD, tag->states), "hold %s, timeout %d", tag->name, (int)timeout_ms);
  if (status == DROWSE_OK) tag->holds++;
}

static void end_hold(struct actor *actor, unsigned number, bool interned) {
  struct ref_tag *tag = &actor->tags[number];
  drowse_status status =
      interned ? drowse_unhold_tag(model_heap, drowse_tag_get(tag->name)) : drowse_unhold(model_heap, tag->name);
  status = ref_check(actor, status, tag->holds > 0 ? STATUS(OK) : STATUS(ERR_INVALID), "unhold %s", tag->name);
  if (status != DROWSE_OK || --tag->holds > 0) return;
  for (struct ref_op *op = actor->ops; op < actor->ops + OPS; op++) {
    if (op->op != NULL && !is_held(actor, op, true)) unblock(actor, op);
  }
}

/* Of a shared tag a hold that is not there would be another thread's. */
void step_unhold(struct actor *actor, const struct step *step) {
  const struct ref_tag *tag = &actor->tags[step->a % TAGS];
  if (tag->shared && tag->holds == 0) return;
  end_hold(actor, step->a % TAGS, (step->b & 1) != 0);
}

/* ---- seals, and the memory for backups */

/* What the device still does is no change after the promise. */
void step_seal(struct actor *actor, const struct step *step) {
  struct ref_tag *tag = &actor->tags[step->a % TAGS];
  const bool seals = step->b % 4 != 0;
  if (!tag->seals) return;
  if (seals) await_streams(actor);
  const uint64_t allowed = ref_allowed(CALL_SEAL, tag->states);
  drowse_status status = seals ? drowse_seal(model_heap, tag->name) : drowse_unseal(model_heap, tag->name);
  status = ref_check(actor, status, allowed, "%s %s", seals ? "seal" : "unseal", tag->name);
  if (status != DROWSE_OK) return;
  tag->sealed = seals;
  tag->muddled |= tag->moving > 0;
}

void step_reserve(struct actor *actor, const struct step *step) {
  const uint64_t bytes = (uint64_t)step->a * 32 * KIB;
  const uint64_t allowed = STATUS(OK) | (model_setting.limited ? STATUS(ERR_NO_HOST_MEMORY) : 0);
  const bool starts = (step->b & 1) != 0;
  drowse_status status = starts ? drowse_backup_reserve_start(model_heap, bytes) : drowse_backup_reserve(model_heap, bytes);
  (void)ref_check(actor, status, allowed, "backup_reserve%s %u KiB", starts ? "_start" : "", step->a * 32);
}

static bool is_all_awake(const struct actor *actor) {
  bool awake = is_alone();
  for (const struct ref_tag *tag = actor->tags; tag < actor->tags + TAGS; tag++) awake &= tag->states == AWAKE && !tag->sealed;
  return awake;
}

void step_backup_trim(struct actor *actor, const struct step *step) {
  const uint64_t keep_bytes = (step->a & 3) * MIB;
  drowse_status status = drowse_backup_trim(model_heap, keep_bytes);
  status = ref_check(actor, status, STATUS(OK), "backup_trim to %u MiB", step->a & 3);
  if (status == DROWSE_OK && keep_bytes == 0 && is_all_awake(actor)) EXPECT(motion_stats(NULL).host_bytes == 0);
}

/* ---- the end */

void motion_end(struct actor *actor) {
  for (unsigned i = 0; i < TAGS; i++) {
    while (actor->tags[i].holds > 0) end_hold(actor, i, false);
  }
  for (struct ref_op *op = actor->ops; op < actor->ops + OPS; op++) {
    if (op->op == NULL) continue;
    settle(actor, op, wait_for(actor, op, -1));
    let_go(op);
  }
}

/* Operations outlive their heap: they have ended, as they could. */
void motion_after_close(struct actor *actor) {
  for (struct ref_op *op = actor->ops; op < actor->ops + OPS; op++) {
    if (op->op == NULL) continue;
    (void)ref_check(actor, drowse_op_wait(op->op, -1), allowed_at_end(actor, op) | STATUS(ERR_CANCELED), "op_wait %u",
                    number_of(actor, op));
    let_go(op);
  }
}
