// The waiting requests of one class, in the order in which they shall run.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/clock.h"
#include "qos/permit.h"
#include "qos/queue_order.h"

namespace sluice::qos {

struct Waiting {
  MonoTime since, deadline;
  MonoTime first_token_by = kInfiniteFuture;
  uint8_t size = 0;           // SizeOf its work
  int64_t prompt_tokens = 0;  // uncached
  int max_tokens = 0;
  size_t bytes = 0;
  Duration predicted_ttft{};          // see Permit
  Reason would_refuse = Reason::kOk;  // see Permit
  AdmissionCallback callback;

  int64_t tokens() const { return prompt_tokens + max_tokens; }
};

// Thread-safety: thread-compatible.
class ClassQueue {
 public:
  // Tickets are given in order of arrival, and only once.
  void Add(uint64_t ticket, Waiting waiting);
  // Requires: it waits here.
  Waiting Remove(uint64_t ticket);

  const Waiting* Find(uint64_t ticket) const;  // null: it does not wait here
  bool empty() const { return waiting_.empty(); }
  size_t size() const { return waiting_.size(); }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t tokens() const { return tokens_; }
  size_t bytes() const { return bytes_; }

  // nullopt: nobody waits.
  std::optional<QueueEnd> Head(MonoTime now) const;  // runs next
  std::optional<QueueEnd> Oldest() const;            // waits the longest
  std::optional<QueueEnd> Newest() const;

  const std::map<uint64_t, Waiting>& all() const { return waiting_; }  // by ticket, so in order of arrival

 private:
  std::map<uint64_t, Waiting> waiting_;
  std::set<std::pair<uint8_t, uint64_t>> by_size_;  // size, ticket
  int64_t prompt_tokens_ = 0, tokens_ = 0;
  size_t bytes_ = 0;
};

}  // namespace sluice::qos
