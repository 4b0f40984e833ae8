#include "services/telemetry/metrics_endpoint.h"

#include <fmt/format.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>

#include <charconv>
#include <exception>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/strings.h"

namespace sluice::services {
namespace {

prometheus::MetricType ToPrometheus(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return prometheus::MetricType::Counter;
    case MetricType::kGauge:
      return prometheus::MetricType::Gauge;
    case MetricType::kHistogram:
      return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

prometheus::ClientMetric::Histogram ToPrometheus(const Histogram::Snapshot& snapshot) {
  prometheus::ClientMetric::Histogram out;
  out.sample_count = snapshot.cumulative.back();
  out.sample_sum = snapshot.sum;
  for (size_t i = 0; i < snapshot.cumulative.size(); ++i) {
    const bool last = i == snapshot.bounds.size();
    out.bucket.push_back({.cumulative_count = snapshot.cumulative[i],
                          .upper_bound = last ? std::numeric_limits<double>::infinity() : snapshot.bounds[i]});
  }
  return out;
}

prometheus::ClientMetric ToPrometheus(const MetricFamily& family, const MetricSample& sample) {
  prometheus::ClientMetric out;
  for (size_t i = 0; i < family.label_names.size(); ++i) {
    // The exposition format is UTF-8; one bad byte would fail the whole scrape.
    out.label.push_back({family.label_names[i], ReplaceInvalidUtf8(sample.label_values[i])});
  }
  switch (family.type) {
    case MetricType::kCounter:
      out.counter.value = sample.value;
      break;
    case MetricType::kGauge:
      out.gauge.value = sample.value;
      break;
    case MetricType::kHistogram:
      out.histogram = ToPrometheus(sample.histogram);
      break;
  }
  return out;
}

// Scrapes run on the listener's threads, two at once at most.
class RegistryCollectable final : public prometheus::Collectable {
 public:
  RegistryCollectable(const MetricsRegistry& registry, std::function<void()> refresh)
      : registry_(registry), refresh_(std::move(refresh)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    if (refresh_ != nullptr) refresh_();
    std::vector<prometheus::MetricFamily> out;
    for (const MetricFamily& family : registry_.Collect()) {
      if (family.samples.empty()) continue;
      auto& made = out.emplace_back(
          prometheus::MetricFamily{.name = family.name, .help = family.help, .type = ToPrometheus(family.type)});
      for (const MetricSample& sample : family.samples) made.metric.push_back(ToPrometheus(family, sample));
    }
    return out;
  }

 private:
  const MetricsRegistry& registry_;
  const std::function<void()> refresh_;
};

// The HTTP library behind reads more into an address than a host and a port (lists, TLS suffixes): none of it here.
bool IsHostAndPort(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || address.find_first_of(", +") != std::string_view::npos) {
    return false;
  }
  const std::string_view digits = address.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  return error == std::errc() && end == digits.data() + digits.size();
}

}  // namespace

struct MetricsEndpoint::Impl {
  std::shared_ptr<RegistryCollectable> collectable;
  std::unique_ptr<prometheus::Exposer> exposer;  // destroyed first: joins the threads that use the collectable
};

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(const std::string& address,
                                                                        const MetricsRegistry& registry,
                                                                        std::function<void()> refresh) {
  if (!IsHostAndPort(address)) {
    return absl::InvalidArgumentError(ToAbsl(fmt::format("metrics address '{}' is not host:port", address)));
  }
  auto impl = std::make_unique<Impl>();
  impl->collectable = std::make_shared<RegistryCollectable>(registry, std::move(refresh));
  try {
    impl->exposer = std::make_unique<prometheus::Exposer>(
        std::vector<std::string>{"listening_ports", address, "num_threads", "2", "request_timeout_ms", "10000"});
    impl->exposer->RegisterCollectable(impl->collectable);
  } catch (const std::exception&) {  // its text says no more than this
    return absl::UnavailableError(ToAbsl(
        fmt::format("cannot listen for metrics on '{}': the address is in use, or not one of this machine", address)));
  }
  return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(std::move(impl)));
}

MetricsEndpoint::MetricsEndpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

MetricsEndpoint::~MetricsEndpoint() = default;

int MetricsEndpoint::port() const { return impl_->exposer->GetListeningPorts().front(); }

}  // namespace sluice::services
