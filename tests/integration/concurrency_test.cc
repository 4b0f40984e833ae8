// Many streams at once: nobody's output depends on the others, and nothing is left behind.
#include <random>

#include "gtest/gtest.h"
#include "tests/integration/test_server.h"

namespace sluice::test {
namespace {

std::string Prompt(int i) { return "a prompt that begins alike for everybody, number " + std::to_string(i * 7919); }

double Orphans(TestServer& server) {
  return Scrape(server.server().metrics_port(), "sluice_engine_orphaned_sequences{model=\"default\"}");
}

int Running(TestServer& server) {
  grpc::ClientContext context;
  pb::GetStatusResponse status;
  EXPECT_TRUE(server.admin().GetStatus(&context, {}, &status).ok());
  return status.engines(0).running();
}

TEST(ConcurrencyTest, SeventyFiveStreamsSayWhatEachSaysAlone) {
  constexpr int kStreams = 75;
  TestServer server({.ttft_bps = flags::kBuckets / 2});
  std::vector<std::string> alone(kStreams), together(kStreams);
  for (int i = 0; i < kStreams; ++i) alone[i] = Generate(server.inference(), Greedy(Prompt(i), 40)).text;
  std::vector<std::thread> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.emplace_back([&, i] {
      const Reply reply = Generate(server.inference(), Greedy(Prompt(i), 40));
      EXPECT_TRUE(reply.status.ok()) << reply.status.error_message();
      EXPECT_EQ(reply.token_ids.size(), 40U);
      together[i] = reply.text;
    });
  }
  for (auto& c : clients) c.join();
  EXPECT_EQ(together, alone);
}

TEST(ConcurrencyTest, ACancelStormDisturbsNobodyAndLeavesNothing) {
  TestServer server(
      {.backend = {.step_cost = std::chrono::milliseconds(1)}, .ttft_bps = flags::kBuckets / 2, .metrics = true});
  constexpr int kHonest = 10;
  std::vector<std::string> alone(kHonest), together(kHonest);
  for (int i = 0; i < kHonest; ++i) alone[i] = Generate(server.inference(), Greedy(Prompt(i), 60)).text;
  std::vector<std::thread> clients;
  for (int i = 0; i < kHonest; ++i) {
    clients.emplace_back([&, i] { together[i] = Generate(server.inference(), Greedy(Prompt(i), 60)).text; });
  }
  std::atomic<int> next{0};
  for (int t = 0; t < 20; ++t) {
    clients.emplace_back([&] {
      while (next.fetch_add(1) < 200) {
        Generate(server.inference(), Greedy(Prompt(1000 + next), 500), /*stop_after=*/1 + next % 3);
      }
    });
  }
  for (auto& c : clients) c.join();
  EXPECT_EQ(together, alone);
  while (Running(server) != 0) std::this_thread::yield();
  EXPECT_EQ(Orphans(server), 0);
  EXPECT_EQ(Scrape(server.server().metrics_port(), "sluice_qos_running"), 0);
}

TEST(ConcurrencyTest, TheServerStopsWhileStreamsRun) {
  for (int round = 0; round < 5; ++round) {
    auto server =
        std::make_unique<TestServer>(TestServerOptions{.backend = {.step_cost = std::chrono::milliseconds(1)}});
    std::vector<std::thread> clients;
    for (int i = 0; i < 10; ++i) {
      clients.emplace_back([&, i] { Generate(server->inference(), Greedy(Prompt(i), 900)); });
    }
    while (Running(*server) < 5) std::this_thread::yield();
    server->Stop();
    for (auto& c : clients) c.join();
  }
}

}  // namespace
}  // namespace sluice::test
