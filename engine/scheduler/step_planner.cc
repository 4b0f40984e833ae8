#include "engine/scheduler/step_planner.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace sluice::engine {
namespace {

// Smaller goes first.
double Rank(const PrefillCandidate& c, const PolicyShare& policy) {
  if (policy.order == PrefillOrder::kFifo) return static_cast<double>(c.order);
  return c.uncomputed - policy.ageing_tokens_per_ms * c.waited_ms;
}

int Allowance(const PlanInput& in, const StepCost& cost) {
  const int room = std::max(in.max_rows - in.decode.decode_rows, 0);
  if (in.decode.decode_rows == 0) return std::min(in.idle_prefill_tokens, room);
  const Duration target = in.step_target > Duration::zero()
                              ? in.step_target
                              : FromMillis(ToMillis(cost.Predict(in.decode)) * in.step_stretch);
  int position = std::numeric_limits<int>::max();
  for (const PrefillCandidate& c : in.candidates) position = std::min(position, c.position);
  const int within = cost.PrefillTokensWithin(target, in.decode, position);
  return std::min(std::max(within, in.min_prefill_tokens), room);
}

// How many of the prompt's tokens when `left` are allowed and `room` are possible? Never a small piece, neither now nor
// for the next step: what fits or nearly fits is taken whole. 0: it shall wait for the next step.
int Piece(int uncomputed, int left, int room, int least, bool first) {
  if (uncomputed <= std::min(left + least, room)) return uncomputed;
  const int tokens = std::min(left, room) / least * least;
  return tokens > 0 || !first ? tokens : std::min(left, room);
}

// One queue per policy, best candidate last (popped from the back).
using Queues = std::vector<std::vector<const PrefillCandidate*>>;

Queues Sort(const PlanInput& in) {
  Queues queues(in.policies.size());
  for (const PrefillCandidate& c : in.candidates) queues[c.policy].push_back(&c);
  for (size_t p = 0; p < queues.size(); ++p) {
    std::sort(queues[p].begin(), queues[p].end(), [&](const PrefillCandidate* a, const PrefillCandidate* b) {
      if (a->priority != b->priority) return a->priority > b->priority;
      const double ra = Rank(*a, in.policies[p]);
      const double rb = Rank(*b, in.policies[p]);
      return ra != rb ? ra > rb : a->order > b->order;
    });
  }
  return queues;
}

}  // namespace

StepPlan PlanStep(const PlanInput& in, const StepCost& cost) {
  StepPlan plan;
  for (const PolicyShare& p : in.policies) plan.service.push_back(p.service);
  if (in.candidates.empty()) return plan;

  plan.allowance = Allowance(in, cost);
  Queues queues = Sort(in);
  std::vector<double> weight;
  for (const auto& queue : queues) weight.push_back(static_cast<double>(queue.size()));

  // A policy that had nothing to do must not save up credit: it starts from the busy ones' virtual time.
  double busiest = 0;
  for (size_t p = 0; p < queues.size(); ++p) {
    if (!queues[p].empty()) busiest = std::max(busiest, plan.service[p]);
  }
  const double window = in.max_rows;  // tolerated lag, so that turns taken step by step still even out
  for (double& s : plan.service) s = std::max(s, busiest - window);

  int left = plan.allowance, room = std::max(in.max_rows - in.decode.decode_rows, 0);
  int free_slots = in.free_slots;
  while (left > 0) {
    int best = -1;
    const auto urgency = [&](size_t p) { return std::pair(queues[p].back()->priority, plan.service[p]); };
    for (size_t p = 0; p < queues.size(); ++p) {
      if (!queues[p].empty() && (best < 0 || urgency(p) < urgency(best))) best = static_cast<int>(p);
    }
    if (best < 0) break;
    const PrefillCandidate* c = queues[best].back();
    queues[best].pop_back();
    if (c->needs_slot && free_slots == 0) continue;
    const int tokens = Piece(c->uncomputed, left, room, in.min_prefill_tokens, plan.prefill.empty());
    if (tokens == 0) break;
    free_slots -= c->needs_slot ? 1 : 0;
    plan.prefill.push_back({c->id, tokens});
    plan.service[best] += tokens / weight[best];
    left -= tokens;
    room -= tokens;
  }
  return plan;
}

}  // namespace sluice::engine
