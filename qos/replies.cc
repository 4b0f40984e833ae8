#include "qos/replies.h"

#include <utility>

namespace sluice::qos {

void Deliver(const void* owner, std::vector<Reply> replies) {
  struct Frame {
    const void* owner;
    std::vector<Reply>* replies;
    Frame* outer;
  };
  thread_local Frame* innermost = nullptr;
  if (replies.empty()) return;
  for (Frame* frame = innermost; frame != nullptr; frame = frame->outer) {
    if (frame->owner != owner) continue;
    for (Reply& reply : replies) frame->replies->push_back(std::move(reply));
    return;
  }
  Frame frame{owner, &replies, innermost};
  innermost = &frame;
  for (size_t i = 0; i < replies.size(); ++i) {
    Reply reply = std::move(replies[i]);  // the vector may grow meanwhile
    reply.callback(std::move(reply.answer));
  }
  innermost = frame.outer;
}

}  // namespace sluice::qos
