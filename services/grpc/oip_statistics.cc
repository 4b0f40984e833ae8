#include "services/grpc/oip_statistics.h"

#include "services/grpc/oip_codec.h"

namespace sluice::services {

void OipStatistics::Record(const std::string& model, bool success, Duration took,
                           const engine::GenerationSummary* summary) {
  const WallTime now = clock_.WallNow();
  MutexLock lock(mu_);
  Totals& totals = models_[model];
  totals.last = now;
  (success ? totals.success : totals.fail).Add(took);
  if (!success || summary == nullptr) return;
  totals.queue.Add(summary->queue_wait);
  totals.prefill.Add(summary->prefill);
  totals.decode.Add(summary->decode);
}

void OipStatistics::Encode(const Total& total, inference::StatisticDuration& duration) {
  duration.set_count(total.count);
  duration.set_ns(static_cast<uint64_t>(total.time.count()));
}

void OipStatistics::Fill(const std::string& model, inference::ModelStatistics& statistics) const {
  statistics.set_name(model);
  statistics.set_version(kOipVersion);
  auto& stats = *statistics.mutable_inference_stats();
  MutexLock lock(mu_);
  const auto it = models_.find(model);
  const Totals totals = it == models_.end() ? Totals{} : it->second;
  statistics.set_last_inference(static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(totals.last.time_since_epoch()).count()));
  statistics.set_inference_count(totals.success.count);
  statistics.set_execution_count(totals.success.count);
  Encode(totals.success, *stats.mutable_success());
  Encode(totals.fail, *stats.mutable_fail());
  Encode(totals.queue, *stats.mutable_queue());
  Encode(totals.prefill, *stats.mutable_compute_input());
  Encode(totals.decode, *stats.mutable_compute_infer());
}

}  // namespace sluice::services
