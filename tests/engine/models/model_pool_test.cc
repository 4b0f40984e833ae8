// Idle models: unloaded on demand and after their timeout, never while somebody uses them.
#include "engine/models/model_pool.h"

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/metrics.h"
#include "engine/backend/synthetic_backend.h"
#include "engine/scheduler/scheduler_probe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace sluice::engine {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

class ModelPoolTest : public testing::Test {
 protected:
  static ModelSpec Spec(const std::string& name) {
    return {.name = name, .path = "synthetic:", .geometry = {.slots = 2, .slot_context = 64}, .preload = false};
  }
  void Open(std::vector<ModelSpec> models) {
    pool_ = std::make_unique<ModelPool>(
        ModelPoolOptions{.models = std::move(models), .max_models = 5, .memory_budget_bytes = 1 << 30},
        [](const ModelSpec& spec) -> absl::StatusOr<std::unique_ptr<Backend>> {
          return std::make_unique<SyntheticBackend>(SyntheticOptions{.geometry = spec.geometry}, nullptr);
        },
        [this](const ModelSpec& spec, std::unique_ptr<Backend> backend) {
          return std::make_unique<Scheduler>(std::move(backend), SchedulerOptions{.model_name = spec.name}, clock_,
                                             metrics_, nullptr);
        },
        [](const std::string&) { return absl::OkStatus(); }, clock_);
  }
  ModelHandle Load(const std::string& name) {
    std::promise<absl::StatusOr<ModelHandle>> loaded;
    pool_->AcquireOrLoad(name, kInfiniteFuture,
                         [&](absl::StatusOr<ModelHandle> model) { loaded.set_value(std::move(model)); });
    return *loaded.get_future().get();
  }
  std::string StateOf(const std::string& name) {
    for (const ModelInfo& info : pool_->List()) {
      if (info.spec.name == name) return std::string(ModelStateName(info.state));
    }
    return "unknown";
  }

  test::ManualClock clock_;
  MetricsRegistry registry_;
  EngineMetrics metrics_{registry_};
  std::unique_ptr<ModelPool> pool_;
};

TEST_F(ModelPoolTest, UnloadsWhatNobodyUses) {
  ModelSpec pinned = Spec("pinned");
  pinned.pinned = true;
  Open({Spec("default"), Spec("idle"), Spec("used"), pinned, Spec("cold")});
  for (const char* name : {"default", "idle", "pinned"}) (void)Load(name);
  ModelHandle used = Load("used");
  EXPECT_THAT(pool_->UnloadIdle(), ElementsAre("idle"));
  EXPECT_EQ(StateOf("idle"), "unloaded");
  for (const char* name : {"default", "used", "pinned"}) EXPECT_EQ(StateOf(name), "ready") << name;
  EXPECT_THAT(pool_->UnloadIdle(), IsEmpty());
  used = nullptr;
  EXPECT_THAT(pool_->UnloadIdle(Duration::zero(), /*default_too=*/true), ElementsAre("default", "used"));
  EXPECT_NE(Load("idle"), nullptr) << "it comes back when somebody asks";
}

TEST_F(ModelPoolTest, OnlyWhatWasIdleForLongEnough) {
  Open({Spec("default"), Spec("a"), Spec("b")});
  (void)Load("a");
  clock_.Advance(seconds(40));
  (void)Load("b");
  clock_.Advance(seconds(20));
  EXPECT_THAT(pool_->UnloadIdle(minutes(1)), ElementsAre("a"));
  EXPECT_THAT(pool_->Acquire("b"), test::IsOk());
  clock_.Advance(seconds(59));
  EXPECT_THAT(pool_->UnloadIdle(minutes(1)), IsEmpty()) << "used a moment ago";
}

TEST_F(ModelPoolTest, EachHasItsTimeout) {
  ModelSpec brief = Spec("brief"), pinned = Spec("pinned");
  brief.idle_timeout = pinned.idle_timeout = seconds(10);
  pinned.pinned = true;
  Open({Spec("default"), brief, pinned});
  (void)Load("default");
  (void)Load("pinned");
  ModelHandle handle = Load("brief");
  clock_.Advance(minutes(5));
  pool_->Tick();
  EXPECT_EQ(StateOf("brief"), "ready") << "in use";
  handle = nullptr;
  clock_.Advance(seconds(10) - Duration(1));
  pool_->Tick();
  EXPECT_EQ(StateOf("brief"), "ready") << "counted from the end of its use, not from its beginning";
  clock_.Advance(Duration(1));
  pool_->Tick();
  EXPECT_EQ(StateOf("brief"), "unloaded");
  EXPECT_EQ(StateOf("default"), "ready");
  EXPECT_EQ(StateOf("pinned"), "ready");
}

// Whoever gets a handle can use the model, however often idle ones are swept meanwhile.
TEST_F(ModelPoolTest, SweepsNeverTakeAModelFromItsUser) {
  Open({Spec("default"), Spec("a")});
  std::atomic<bool> done{false};
  std::thread sweeper([&] {
    while (!done) (void)pool_->UnloadIdle(Duration::zero(), /*default_too=*/true);
  });
  for (int i = 0; i < 200; ++i) {
    const ModelHandle model = Load(i % 2 == 0 ? "a" : "default");
    ASSERT_NE(model, nullptr);
    ASSERT_THAT(model->tokenizer().Tokenize("hello", false, false), test::IsOk());
  }
  done = true;
  sweeper.join();
}

}  // namespace
}  // namespace sluice::engine
