// An admission under a manual clock, and what it answered.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "qos/admission.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {

class AdmissionFixture : public testing::Test {
 protected:
  void TearDown() override {  // permits go before their admission, and hand nothing on
    if (admission_) admission_->StartDrain({});
    permits_.clear();
  }

  Admission& Start(AdmissionOptions options) {
    metrics_ = std::make_unique<MetricsRegistry>();
    admission_ = std::make_unique<Admission>(options, clock_, *metrics_);
    return *admission_;
  }
  // One permit, taken; `max_queue` may wait.
  Admission& StartBusy(int max_queue = 10, Duration starvation_after = std::chrono::seconds(5)) {
    Admission& admission = Start({.max_concurrent = 1, .max_queue = max_queue, .starvation_after = starvation_after});
    Admit("running", QosClass::kStandard);
    return admission;
  }
  // Keeps the permit, or the status, under `name`; `answered_` has the order.
  uint64_t Admit(const std::string& name, QosClass c, MonoTime deadline = kInfiniteFuture) {
    return Admit(name, Request{.qos_class = c, .arrival = clock_.Now(), .deadline = deadline});
  }
  uint64_t Admit(const std::string& name, Request request, const EngineLoad* load = nullptr) {
    request.request_id = name;
    return admission_->Admit(request, load, [this, name](Answer answer) {
      answered_.push_back(name);
      if (answer.ok()) {
        permits_.emplace(name, *std::move(answer));
      } else {
        refusals_[name] = answer.status();
      }
    });
  }
  void Settle(const std::string& name, int output_tokens = -1) {
    const auto it = permits_.find(name);
    ASSERT_NE(it, permits_.end()) << name << " has no permit";
    auto node = permits_.extract(it);
    node.mapped().Settle(Outcome::kSuccess, output_tokens);
  }
  // Lets one after the other run; the order in which they got permits.
  std::vector<std::string> RunAll() {
    std::vector<std::string> order;
    while (!permits_.empty()) {
      order.push_back(permits_.begin()->first);
      Settle(order.back());
    }
    return order;
  }
  double Value(std::string_view name, const std::vector<std::string>& labels) {
    for (const MetricFamily& family : metrics_->Collect()) {
      if (family.name != name) continue;
      for (const MetricSample& sample : family.samples) {
        if (sample.label_values != labels) continue;
        return family.type == MetricType::kHistogram ? static_cast<double>(sample.histogram.cumulative.back())
                                                     : sample.value;
      }
    }
    ADD_FAILURE() << "no series " << name;
    return -1;
  }

  test::ManualClock clock_;
  std::unique_ptr<MetricsRegistry> metrics_;
  std::unique_ptr<Admission> admission_;
  std::map<std::string, Permit> permits_;
  std::map<std::string, absl::Status> refusals_;
  std::vector<std::string> answered_;
};

}  // namespace sluice::qos
