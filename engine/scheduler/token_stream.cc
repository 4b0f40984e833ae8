#include "engine/scheduler/token_stream.h"

#include <utility>

#include "base/check.h"

namespace sluice::engine {

std::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

TokenStream::TokenStream(size_t capacity) : capacity_(capacity) {}

void TokenStream::SetEngineWaker(std::function<void()> on_room) { on_room_ = std::move(on_room); }

void TokenStream::SetFinishObserver(std::function<void(const GenerationSummary&)> on_finish) {
  on_finish_ = std::move(on_finish);
}

bool TokenStream::HasRoom() const {
  MutexLock lock(mu_);
  return tokens_.size() < capacity_;
}

void TokenStream::Push(TokenEvent event) {
  std::function<void()> ready;
  {
    MutexLock lock(mu_);
    SLUICE_CHECK(!finished_ && tokens_.size() < capacity_, "the scheduler pushes only into an open stream with room");
    tokens_.push_back(std::move(event));
    ready = std::exchange(ready_, nullptr);
  }
  if (ready) ready();
}

void TokenStream::Finish(std::string tail_text, GenerationSummary summary) {
  if (on_finish_) on_finish_(summary);
  on_finish_ = nullptr;  // frees what it captured; the engine is done with this stream
  std::function<void()> ready;
  {
    MutexLock lock(mu_);
    SLUICE_CHECK(!finished_, "a stream finishes once");
    finished_ = true;
    tail_text_ = std::move(tail_text);
    summary_ = std::move(summary);
    ready = std::exchange(ready_, nullptr);
  }
  if (ready) ready();
}

TokenStream::Batch TokenStream::Take() {
  Batch batch;
  bool was_full = false;
  {
    MutexLock lock(mu_);
    was_full = tokens_.size() >= capacity_;
    batch.tokens.assign(std::make_move_iterator(tokens_.begin()), std::make_move_iterator(tokens_.end()));
    tokens_.clear();
    batch.finished = finished_;
    if (finished_) {
      batch.tail_text = tail_text_;
      batch.summary = summary_;
    }
  }
  if (was_full && !batch.finished && on_room_) on_room_();
  return batch;
}

void TokenStream::NotifyWhenReady(std::function<void()> ready) {
  {
    MutexLock lock(mu_);
    if (tokens_.empty() && !finished_) {
      ready_ = std::move(ready);
      return;
    }
  }
  ready();
}

void TokenStream::Cancel() {
  if (cancelled_.exchange(true, std::memory_order_acq_rel)) return;
  if (on_room_) on_room_();
}

}  // namespace sluice::engine
