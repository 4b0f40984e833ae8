#include "base/metrics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

void Read(const Counter& counter, MetricSample& sample) { sample.value = counter.Value(); }
void Read(const Gauge& gauge, MetricSample& sample) { sample.value = gauge.Value(); }
void Read(const Histogram& histogram, MetricSample& sample) { sample.histogram = histogram.Take(); }

bool IsKnown(const Gauge& gauge) { return !std::isnan(gauge.Value()); }
template <typename Metric>
bool IsKnown(const Metric&) {
  return true;
}

constexpr MetricType TypeOf(const Counter*) { return MetricType::kCounter; }
constexpr MetricType TypeOf(const Gauge*) { return MetricType::kGauge; }
constexpr MetricType TypeOf(const Histogram*) { return MetricType::kHistogram; }

// [a-zA-Z_:][a-zA-Z0-9_:]*: anything else would break the exposition format for every metric of the scrape.
bool IsMetricName(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':'; };
  if (name.empty() || !letter(name[0])) return false;
  return std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), buckets_(bounds_.size() + 1) {
  SLUICE_CHECK(std::all_of(bounds_.begin(), bounds_.end(), [](double b) { return std::isfinite(b); }),
               "histogram bounds are finite; +Inf is implied");
  SLUICE_CHECK(std::adjacent_find(bounds_.begin(), bounds_.end(), std::greater_equal<>()) == bounds_.end(),
               "histogram bounds ascend");
}

void Histogram::Observe(double v) {
  if (std::isnan(v)) return;  // one NaN would make the sum NaN for ever
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), v) - bounds_.begin();
  buckets_[bucket].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(v, std::memory_order_relaxed);
}

Histogram::Snapshot Histogram::Take() const {
  Snapshot snapshot{.bounds = bounds_, .cumulative = {}, .sum = sum_.load(std::memory_order_relaxed)};
  snapshot.cumulative.reserve(buckets_.size());
  uint64_t count = 0;
  for (const auto& bucket : buckets_) {
    count += bucket.load(std::memory_order_relaxed);
    snapshot.cumulative.push_back(count);
  }
  return snapshot;
}

template <typename Metric>
Metric& Family<Metric>::With(std::vector<std::string> label_values) {
  SLUICE_CHECK(label_values.size() == label_names_.size(), "one value for each label name");
  MutexLock lock(mu_);
  auto it = series_.find(label_values);
  if (it == series_.end()) {
    if (!label_values.empty() && series_.size() >= max_series_) {
      if (overflow_ != nullptr) overflow_->Add();
      label_values.assign(label_names_.size(), "other");
    }
    it = series_.try_emplace(std::move(label_values)).first;
    if (it->second == nullptr) it->second = make_();
  }
  return *it->second;
}

template <typename Metric>
MetricFamily Family<Metric>::Collect() const {
  MetricFamily out{.name = name_, .help = help_, .type = TypeOf(static_cast<const Metric*>(nullptr))};
  out.label_names = label_names_;
  MutexLock lock(mu_);
  out.samples.reserve(series_.size());
  for (const auto& [label_values, metric] : series_) {
    if (!IsKnown(*metric)) continue;
    Read(*metric, out.samples.emplace_back(MetricSample{.label_values = label_values}));
  }
  return out;
}

template class Family<Counter>;
template class Family<Gauge>;
template class Family<Histogram>;

struct MetricsRegistry::Impl {
  mutable Mutex mu;  // protects the maps; taken before a family's own lock
  // Families never move or die before the registry, so that references to them stay valid.
  std::vector<std::shared_ptr<void>> owned ABSL_GUARDED_BY(mu);
  std::map<std::string, std::function<MetricFamily()>> collectors ABSL_GUARDED_BY(mu);
  Family<Counter>* overflow = nullptr;  // set once by the constructor

  void Register(const std::string& name, std::function<MetricFamily()> collect) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    SLUICE_CHECK(IsMetricName(name), "a metric name is [a-zA-Z_:][a-zA-Z0-9_:]*");
    SLUICE_CHECK(collectors.emplace(name, std::move(collect)).second, "a metric name is registered once");
  }

  template <typename Metric>
  Family<Metric>& Add(std::string name, std::string help, std::vector<std::string> labels, size_t max_series,
                      std::function<std::unique_ptr<Metric>()> make) {
    // A family without labels has one series and cannot overflow.
    Counter* const counter = labels.empty() || overflow == nullptr ? nullptr : &overflow->With({name});
    MutexLock lock(mu);
    auto family = std::make_shared<Family<Metric>>(name, std::move(help), std::move(labels), max_series,
                                                   std::move(make), counter);
    Register(name, [f = family.get()] { return f->Collect(); });
    owned.push_back(family);
    return *family;
  }
};

MetricsRegistry::MetricsRegistry() : impl_(std::make_unique<Impl>()) {
  // Bounded by the number of registered metrics, so it needs no limit of its own.
  impl_->overflow = &impl_->Add<Counter>("sluice_metric_label_overflow_total",
                                         "Look-ups of new label sets beyond the limit of their metric", {"metric"},
                                         SIZE_MAX, [] { return std::make_unique<Counter>(); });
}

MetricsRegistry::~MetricsRegistry() = default;

Family<Counter>& MetricsRegistry::AddCounter(std::string name, std::string help, std::vector<std::string> label_names,
                                             size_t max_series) {
  return impl_->Add<Counter>(std::move(name), std::move(help), std::move(label_names), max_series,
                             [] { return std::make_unique<Counter>(); });
}

Family<Gauge>& MetricsRegistry::AddGauge(std::string name, std::string help, std::vector<std::string> label_names,
                                         size_t max_series) {
  return impl_->Add<Gauge>(std::move(name), std::move(help), std::move(label_names), max_series,
                           [] { return std::make_unique<Gauge>(); });
}

Family<Histogram>& MetricsRegistry::AddHistogram(std::string name, std::string help, std::vector<double> bounds,
                                                 std::vector<std::string> label_names, size_t max_series) {
  return impl_->Add<Histogram>(std::move(name), std::move(help), std::move(label_names), max_series,
                               [bounds = std::move(bounds)] { return std::make_unique<Histogram>(bounds); });
}

void MetricsRegistry::AddCallbackGauge(std::string name, std::string help, std::function<double()> read) {
  MutexLock lock(impl_->mu);
  impl_->Register(name, [name, help = std::move(help), read = std::move(read)] {
    MetricFamily family{.name = name, .help = help, .type = MetricType::kGauge};
    family.samples.push_back({.label_values = {}, .value = read()});
    return family;
  });
}

std::vector<MetricFamily> MetricsRegistry::Collect() const {
  // Copied first: a callback must be free to take its own locks and even to register metrics.
  std::vector<std::function<MetricFamily()>> collectors;
  {
    MutexLock lock(impl_->mu);
    for (const auto& [name, collect] : impl_->collectors) collectors.push_back(collect);
  }
  std::vector<MetricFamily> families;
  families.reserve(collectors.size());
  for (const auto& collect : collectors) families.push_back(collect());
  return families;
}

}  // namespace sluice
