// libllama's log, routed to base/log, and the reason of a failure kept for the caller.
#pragma once

#include <string>

namespace sluice::engine {

// While alive, keeps the first error that libllama reports on this thread: the first is the specific one, those that
// follow tell who gave up. Captured errors are not logged: they come back as a Status. Not nestable.
class LlamaErrorCapture {
 public:
  LlamaErrorCapture();
  ~LlamaErrorCapture();
  LlamaErrorCapture(const LlamaErrorCapture&) = delete;
  LlamaErrorCapture& operator=(const LlamaErrorCapture&) = delete;

  std::string ReasonOr(const std::string& fallback) const { return first_.empty() ? fallback : first_; }

 private:
  std::string first_;
};

}  // namespace sluice::engine
