#include "qos/class_queue.h"

#include "base/check.h"

namespace sluice::qos {
namespace {

QueueEnd End(const std::pair<const uint64_t, Waiting>& entry) { return {entry.second.since, entry.first}; }

}  // namespace

void ClassQueue::Add(uint64_t ticket, Waiting waiting) {
  by_size_.emplace(waiting.size, ticket);
  prompt_tokens_ += waiting.prompt_tokens;
  tokens_ += waiting.tokens();
  bytes_ += waiting.bytes;
  waiting_.emplace_hint(waiting_.end(), ticket, std::move(waiting));
}

Waiting ClassQueue::Remove(uint64_t ticket) {
  auto node = waiting_.extract(ticket);
  SLUICE_CHECK(!node.empty(), "only what waits is removed");
  Waiting& waiting = node.mapped();
  by_size_.erase({waiting.size, ticket});
  prompt_tokens_ -= waiting.prompt_tokens;
  tokens_ -= waiting.tokens();
  bytes_ -= waiting.bytes;
  return std::move(waiting);
}

const Waiting* ClassQueue::Find(uint64_t ticket) const {
  const auto it = waiting_.find(ticket);
  return it == waiting_.end() ? nullptr : &it->second;
}

std::optional<QueueEnd> ClassQueue::Head(MonoTime now) const {
  std::optional<QueueEnd> head;
  uint8_t head_size = 0;
  for (auto it = by_size_.begin(); it != by_size_.end();) {  // the oldest of each size
    const auto [size, ticket] = *it;
    const MonoTime since = waiting_.find(ticket)->second.since;
    if (!head || GoesBefore(now - since, size, now - head->since, head_size)) {
      head = QueueEnd{since, ticket};
      head_size = size;
    }
    it = by_size_.lower_bound({static_cast<uint8_t>(size + 1), 0});
  }
  return head;
}

std::optional<QueueEnd> ClassQueue::Oldest() const {
  if (empty()) return std::nullopt;
  return End(*waiting_.begin());
}

std::optional<QueueEnd> ClassQueue::Newest() const {
  if (empty()) return std::nullopt;
  return End(*waiting_.rbegin());
}

}  // namespace sluice::qos
