#include "base/metrics.h"

#include <cmath>
#include <limits>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using testing::ElementsAre;

// The value of one series, NaN when it does not exist.
double ValueOf(const MetricsRegistry& registry, const std::string& name, const std::vector<std::string>& labels) {
  for (const MetricFamily& family : registry.Collect()) {
    if (family.name != name) continue;
    for (const MetricSample& sample : family.samples) {
      if (sample.label_values == labels) return sample.value;
    }
  }
  return std::nan("");
}

TEST(MetricsTest, SeriesAreKeptByLabelValues) {
  MetricsRegistry registry;
  auto& requests = registry.AddCounter("requests_total", "Requests", {"model", "code"});
  Counter& a = requests.With({"m", "OK"});
  a.Add();
  requests.With({"m", "OK"}).Add(2);
  requests.With({"m", "UNAVAILABLE"}).Add(5);
  EXPECT_EQ(&a, &requests.With({"m", "OK"}));
  EXPECT_EQ(ValueOf(registry, "requests_total", {"m", "OK"}), 3);
  EXPECT_EQ(ValueOf(registry, "requests_total", {"m", "UNAVAILABLE"}), 5);
  const MetricFamily family = requests.Collect();
  EXPECT_EQ(family.help, "Requests");
  EXPECT_EQ(family.type, MetricType::kCounter);
  EXPECT_THAT(family.label_names, ElementsAre("model", "code"));
}

TEST(MetricsTest, LabelSetsBeyondTheLimitShareOneSeriesAndAreCounted) {
  MetricsRegistry registry;
  auto& family = registry.AddCounter("by_tenant_total", "", {"tenant", "class"}, /*max_series=*/3);
  for (int i = 0; i < 10; ++i) family.With({"t" + std::to_string(i), "c"}).Add();
  EXPECT_EQ(family.Collect().samples.size(), 4u) << "three of their own and the common one";
  EXPECT_EQ(ValueOf(registry, "by_tenant_total", {"t2", "c"}), 1);
  EXPECT_EQ(ValueOf(registry, "by_tenant_total", {"other", "other"}), 7);
  EXPECT_EQ(ValueOf(registry, "sluice_metric_label_overflow_total", {"by_tenant_total"}), 7);
  family.With({"t0", "c"}).Add();
  EXPECT_EQ(ValueOf(registry, "by_tenant_total", {"t0", "c"}), 2) << "known series are still found";
  EXPECT_EQ(ValueOf(registry, "sluice_metric_label_overflow_total", {"by_tenant_total"}), 7);
}

TEST(MetricsTest, AFamilyWithoutLabelsNeverOverflows) {
  MetricsRegistry registry;
  auto& family = registry.AddGauge("depth", "", {}, /*max_series=*/0);
  family.With({}).Set(4);
  family.With({}).Add(-1.5);
  EXPECT_EQ(ValueOf(registry, "depth", {}), 2.5);
}

TEST(MetricsTest, AnUnknownGaugeIsLeftOut) {
  MetricsRegistry registry;
  auto& family = registry.AddGauge("level", "", {"what"});
  family.With({"a"}).Set(std::numeric_limits<double>::quiet_NaN());
  family.With({"b"}).Set(2);
  ASSERT_EQ(family.Collect().samples.size(), 1u);
  EXPECT_EQ(ValueOf(registry, "level", {"b"}), 2);
  family.With({"a"}).Set(1);
  EXPECT_EQ(family.Collect().samples.size(), 2u);
}

TEST(MetricsTest, HistogramBoundsAreInclusive) {
  Histogram histogram({1, 2, 5});
  for (double v : {0.5, 1.0, 1.0001, 5.0, 5.1, std::numeric_limits<double>::infinity()}) histogram.Observe(v);
  const auto snapshot = histogram.Take();
  EXPECT_THAT(snapshot.bounds, ElementsAre(1, 2, 5));
  EXPECT_THAT(snapshot.cumulative, ElementsAre(2, 3, 4, 6));
}

TEST(MetricsTest, HistogramIgnoresNaN) {
  Histogram histogram({1});
  histogram.Observe(std::nan(""));
  histogram.Observe(3);
  EXPECT_THAT(histogram.Take().cumulative, ElementsAre(0, 1));
  EXPECT_EQ(histogram.Take().sum, 3);
}

TEST(MetricsTest, CollectIsOrderedByNameAndReadsCallbacks) {
  MetricsRegistry registry;
  registry.AddHistogram("z_ms", "", {1, 2}).With({}).Observe(1.5);
  double live = 1;
  registry.AddCallbackGauge("a_bytes", "Live", [&] { return live; });
  live = 42;
  const auto families = registry.Collect();
  ASSERT_EQ(families.size(), 3u);
  EXPECT_EQ(families[0].name, "a_bytes");
  EXPECT_EQ(families[0].samples.at(0).value, 42);
  EXPECT_EQ(families[1].name, "sluice_metric_label_overflow_total");
  EXPECT_EQ(families[2].name, "z_ms");
  EXPECT_THAT(families[2].samples.at(0).histogram.cumulative, ElementsAre(0, 1, 1));
}

TEST(MetricsTest, WritersAndScrapesMayRunTogether) {
  MetricsRegistry registry;
  auto& counters = registry.AddCounter("n_total", "", {"k"}, /*max_series=*/4);
  auto& times = registry.AddHistogram("t_ms", "", {0.5});
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 5000; ++i) {
          counters.With({std::to_string(i % 8)}).Add();
          times.With({}).Observe(i % 2);
        }
      });
    }
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) registry.Collect();
    });
  }
  double total = 0;
  for (const MetricSample& sample : counters.Collect().samples) total += sample.value;
  EXPECT_EQ(total, 20000);
  EXPECT_EQ(counters.Collect().samples.size(), 5u);
  const auto snapshot = times.With({}).Take();
  EXPECT_THAT(snapshot.cumulative, ElementsAre(10000, 20000));
  EXPECT_EQ(snapshot.sum, 10000);
}

TEST(MetricsDeathTest, MistakesOfTheProgrammerAbort) {
  MetricsRegistry registry;
  auto& family = registry.AddCounter("twice_total", "", {"a"});
  EXPECT_DEATH(registry.AddGauge("twice_total", ""), "registered once");
  EXPECT_DEATH(registry.AddGauge("with-dash", ""), "metric name");
  EXPECT_DEATH(registry.AddGauge("", ""), "metric name");
  EXPECT_DEATH(family.With({}), "one value for each label name");
  EXPECT_DEATH(Histogram({2, 1}), "ascend");
  EXPECT_DEATH(Histogram({1, 1}), "ascend");
  EXPECT_DEATH(Histogram({1, std::numeric_limits<double>::infinity()}), "finite");
}

}  // namespace
}  // namespace sluice
