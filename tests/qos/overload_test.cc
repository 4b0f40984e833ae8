#include "qos/overload.h"

#include <random>

#include "base/status.h"
#include "gtest/gtest.h"
#include "qos/overload_guard.h"
#include "tests/support/status_matchers.h"

namespace sluice::qos {
namespace {

constexpr OverloadState kCalm;

OverloadState Judge(double memory, double cpu = 0, double files = 0) { return JudgeOverload({}, {memory, cpu, files}); }

TEST(OverloadTest, NothingHappensBelowEveryTrigger) {
  EXPECT_EQ(Judge(0, 0, 0), kCalm);
  EXPECT_EQ(Judge(0.85, 0.8, 0.8), kCalm) << "at the beginning of a scale the effect is still 0";
  EXPECT_EQ(Judge(-1, -1, -1), kCalm) << "what is not known has no effect";
}

TEST(OverloadTest, EffectsScaleBetweenTheirEnds) {
  EXPECT_NEAR(Judge(0.90).shed_batch, 0.5, 1e-12);
  EXPECT_DOUBLE_EQ(Judge(0.90).shrink_caches, 0);
  EXPECT_NEAR(Judge(0.945).shed_standard, 0.5, 1e-12);
  EXPECT_DOUBLE_EQ(Judge(0.95).shrink_caches, 1) << "Envoy's shrink_heap";
  EXPECT_EQ(Judge(0.98 - 1e-9).refuse_all, 0);
  EXPECT_EQ(Judge(0.98).refuse_all, 1) << "a threshold";
  EXPECT_EQ(Judge(7).refuse_all, 1);
}

TEST(OverloadTest, CpuAloneNeverRefusesEverybody) {
  const OverloadState state = Judge(0, 1, 0);
  EXPECT_EQ(state.shed_standard, 1);
  EXPECT_EQ(state.refuse_all, 0);
  EXPECT_EQ(state.shrink_caches, 0);
  EXPECT_EQ(ShedShare(state, QosClass::kInteractive), 0);
}

TEST(OverloadTest, TheCauseIsBehindTheGravestEffect) {
  EXPECT_EQ(Judge(0.86, 0, 0).cause, Resource::kMemory);
  EXPECT_EQ(Judge(0.86, 0.94, 0).cause, Resource::kCpu) << "it sheds standard, memory only batch";
  EXPECT_EQ(Judge(0.96, 0.99, 0.99).cause, Resource::kFileDescriptors) << "it alone refuses everybody";
  EXPECT_EQ(ResourceName(Resource::kFileDescriptors), "file_descriptors");
}

TEST(OverloadTest, LowerClassesAreShedFirst) {
  const OverloadState state{.shed_batch = 0.9, .shed_standard = 0.4, .refuse_all = 0.1};
  EXPECT_EQ(ShedShare(state, QosClass::kSystem), 0);
  EXPECT_EQ(ShedShare(state, QosClass::kInteractive), 0.1);
  EXPECT_EQ(ShedShare(state, QosClass::kStandard), 0.4);
  EXPECT_EQ(ShedShare(state, QosClass::kBatch), 0.9);
}

// For any pressure: shares lie in 0..1, a better class is never shed more, and more pressure never sheds less.
TEST(OverloadTest, MonotoneInPressureAndClass) {
  for (uint32_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> share(-0.1, 1.1);
    const Pressure low = {share(random), share(random), share(random)};
    Pressure high = low;
    high[random() % kResourceCount] += 0.2;
    const OverloadState calm = JudgeOverload({}, low), pressed = JudgeOverload({}, high);
    double previous = 0;
    for (int i = 0; i < kQosClassCount; ++i) {
      const auto c = static_cast<QosClass>(i);
      ASSERT_GE(ShedShare(calm, c), previous);
      ASSERT_LE(ShedShare(calm, c), 1);
      ASSERT_GE(ShedShare(pressed, c), ShedShare(calm, c));
      previous = ShedShare(calm, c);
    }
    ASSERT_GE(pressed.shrink_caches, calm.shrink_caches);
  }
}

TEST(OverloadTest, TriggersMustRise) {
  EXPECT_THAT(CheckOverload({}), test::IsOk());
  OverloadOptions options;
  options.shed_standard[1] = {.scaling = 0.9, .saturation = 0.8};
  EXPECT_THAT(CheckOverload(options),
              test::StatusIs(absl::StatusCode::kInvalidArgument,
                             "cpu.shed_standard: from 0.9 to 0.8; allowed: above 0, and rising"));
  options.shed_standard[1] = {.scaling = 0, .saturation = 0.8};
  EXPECT_FALSE(CheckOverload(options).ok());
}

double Value(const MetricsRegistry& metrics, std::string_view name, const std::string& label) {
  for (const MetricFamily& family : metrics.Collect()) {
    if (family.name != name) continue;
    for (const MetricSample& sample : family.samples) {
      if (sample.label_values[0] == label) return sample.value;
    }
  }
  return -99;
}

TEST(OverloadGuardTest, RefusesTheShareOfAClass) {
  MetricsRegistry metrics;
  OverloadGuard guard({}, metrics);
  EXPECT_THAT(guard.Admit(QosClass::kBatch, 0), test::IsOk()) << "nothing is known yet";
  EXPECT_EQ(Value(metrics, "sluice_overload_pressure", "memory"), -1);
  const OverloadState state = guard.Update({0.9, 0, -1});
  EXPECT_EQ(state, guard.state());
  int refused = 0;
  for (int i = 0; i < 100; ++i) refused += guard.Admit(QosClass::kBatch, i / 100.0).ok() ? 0 : 1;
  EXPECT_NEAR(refused, 50, 1);
  EXPECT_THAT(guard.Admit(QosClass::kStandard, 0), test::IsOk());
  const absl::Status status = guard.Admit(QosClass::kBatch, 0);
  EXPECT_EQ(ReasonOf(status), "OVERLOADED");
  EXPECT_EQ(GetErrorDetails(status).metadata.at("resource"), "memory");
  EXPECT_EQ(GetErrorDetails(status).retry_after, std::chrono::seconds(1));
  EXPECT_EQ(Value(metrics, "sluice_overload_pressure", "memory"), 0.9);
  EXPECT_NEAR(Value(metrics, "sluice_overload_shed_share", "batch"), 0.5, 1e-12);
  EXPECT_EQ(Value(metrics, "sluice_overload_refusals_total", "batch"), refused + 1);
  guard.Update({0.5, 0.5, 0.5});
  EXPECT_THAT(guard.Admit(QosClass::kBatch, 0), test::IsOk()) << "it reverses itself";
}

TEST(OverloadGuardTest, SystemPassesAlways) {
  MetricsRegistry metrics;
  OverloadGuard guard({}, metrics);
  guard.Update({1, 1, 1});
  EXPECT_FALSE(guard.Admit(QosClass::kInteractive, 0.999).ok());
  EXPECT_THAT(guard.Admit(QosClass::kSystem, 0), test::IsOk());
}

}  // namespace
}  // namespace sluice::qos
