// What ModelStatistics answers: requests of the Open Inference Protocol, per model, since the start of the process.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/clock.h"
#include "base/mutex.h"
#include "engine/scheduler/token_stream.h"
#include "inference/grpc_service.pb.h"

namespace sluice::services {

// Thread-safety: thread-safe. Bounded by the number of models: names come from the pool, never from clients.
class OipStatistics {
 public:
  explicit OipStatistics(const Clock& clock) : clock_(clock) {}

  // `summary` null: not a generation (an embedding), or it failed. `took`: arrival to the end.
  void Record(const std::string& model, bool success, Duration took, const engine::GenerationSummary* summary)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Fill(const std::string& model, inference::ModelStatistics& statistics) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Total {
    uint64_t count = 0;
    Duration time{};
    void Add(Duration d) {
      ++count;
      time += d;
    }
  };
  struct Totals {
    Total success, fail, queue, prefill, decode;
    WallTime last{};
  };
  static void Encode(const Total& total, inference::StatisticDuration& duration);

  const Clock& clock_;
  mutable Mutex mu_;  // leaf lock
  std::map<std::string, Totals> models_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::services
