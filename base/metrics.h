// Metrics without a vendor: counters, gauges and histograms in families with bounded label cardinality.
// services/telemetry exposes a registry through prometheus-cpp. Names and label meaning: docs/operations.md.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"

namespace sluice {

// Thread-safe, lock-free. Monotone.
class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  double Value() const { return static_cast<double>(value_.load(std::memory_order_relaxed)); }

 private:
  std::atomic<uint64_t> value_{0};  // atomic: written by any thread, read by the scrape
};

// Thread-safe, lock-free. NaN: not known now; a family leaves the series out.
class Gauge {
 public:
  void Set(double v) { value_.store(v, std::memory_order_relaxed); }
  void Add(double d) { value_.fetch_add(d, std::memory_order_relaxed); }
  double Value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// Thread-safe, lock-free. Upper bounds are inclusive and ascending; +Inf is implied.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);
  void Observe(double v);

  struct Snapshot {
    std::vector<double> bounds;
    std::vector<uint64_t> cumulative;  // bounds.size() + 1 entries, the last one is the count
    double sum = 0;
  };
  Snapshot Take() const;

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> buckets_;
  std::atomic<double> sum_{0};
};

enum class MetricType { kCounter, kGauge, kHistogram };

struct MetricSample {
  std::vector<std::string> label_values;
  double value = 0;               // counters and gauges
  Histogram::Snapshot histogram;  // histograms
};

struct MetricFamily {
  std::string name, help;
  MetricType type = MetricType::kCounter;
  std::vector<std::string> label_names;
  std::vector<MetricSample> samples;
};

// All series of one name. Thread-safe; With() takes a lock, so hot paths keep the returned reference, which
// lives as long as the registry. Beyond `max_series` label sets, every new one lands in a single series whose
// label values are all "other", and sluice_metric_label_overflow_total{metric} counts it.
template <typename Metric>
class Family {
 public:
  Family(std::string name, std::string help, std::vector<std::string> label_names, size_t max_series,
         std::function<std::unique_ptr<Metric>()> make, Counter* overflow)
      : name_(std::move(name)),
        help_(std::move(help)),
        label_names_(std::move(label_names)),
        max_series_(max_series),
        make_(std::move(make)),
        overflow_(overflow) {}

  Metric& With(std::vector<std::string> label_values) ABSL_LOCKS_EXCLUDED(mu_);
  MetricFamily Collect() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const std::string name_, help_;
  const std::vector<std::string> label_names_;
  const size_t max_series_;
  const std::function<std::unique_ptr<Metric>()> make_;
  Counter* const overflow_;
  mutable Mutex mu_;
  std::map<std::vector<std::string>, std::unique_ptr<Metric>> series_ ABSL_GUARDED_BY(mu_);
};

// Owns every family. Thread-safe. Registering a name twice is a broken invariant (aborts).
class MetricsRegistry {
 public:
  static constexpr size_t kDefaultMaxSeries = 200;

  MetricsRegistry();
  ~MetricsRegistry();

  Family<Counter>& AddCounter(std::string name, std::string help, std::vector<std::string> label_names = {},
                              size_t max_series = kDefaultMaxSeries);
  Family<Gauge>& AddGauge(std::string name, std::string help, std::vector<std::string> label_names = {},
                          size_t max_series = kDefaultMaxSeries);
  Family<Histogram>& AddHistogram(std::string name, std::string help, std::vector<double> bounds,
                                  std::vector<std::string> label_names = {}, size_t max_series = kDefaultMaxSeries);
  // A gauge without labels whose value is asked for at scrape time. `read` must be thread-safe and quick,
  // and must outlive the registry's last Collect().
  void AddCallbackGauge(std::string name, std::string help, std::function<double()> read);

  // A consistent-enough copy for one scrape, ordered by name.
  std::vector<MetricFamily> Collect() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
