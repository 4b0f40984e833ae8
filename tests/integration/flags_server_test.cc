// Flags as operators and users see them: a whole server, real gRPC, real files.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <thread>

#include "base/files.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/integration/test_server.h"

namespace sluice::test {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Folder() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  const std::string folder = testing::TempDir() + "/" + info->test_suite_name() + "." + info->name();
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

std::string Yaml(double percent, const std::string& more = "") {
  return fmt::format(
      "phase5: {{enabled: true}}\n"
      "ttft_pipeline: {{enabled: true, rollout_percentage: {:g}{}}}\n"
      "qos_policy: {{enabled: true, dry_run: true}}\n",
      percent, more);
}

std::string WriteFlags(const std::string& folder, const std::string& yaml) {
  const std::string path = folder + "/flags.yaml";
  // In one step, as who wants no half file to be seen: half of a YAML file is often a whole one.
  EXPECT_TRUE(WriteTextFile(path + ".new", yaml).ok());
  EXPECT_EQ(std::rename((path + ".new").c_str(), path.c_str()), 0);
  return path;
}

template <typename Request, typename Response>
grpc::Status Call(pb::FlagService::Stub& stub,
                  grpc::Status (pb::FlagService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response* response, const std::string& token = "") {
  grpc::ClientContext context;
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  return (stub.*method)(&context, request, response);
}

pb::EvaluateFlagResponse Evaluate(pb::FlagService::Stub& stub, const std::string& flag, const std::string& key) {
  pb::EvaluateFlagRequest request;
  request.set_flag(flag);
  request.mutable_context()->set_targeting_key(key);
  pb::EvaluateFlagResponse response;
  EXPECT_TRUE(Call(stub, &pb::FlagService::Stub::Evaluate, request, &response).ok());
  return response;
}

pb::SetFlagRequest Percent(const std::string& flag, double percent) {
  pb::SetFlagRequest request;
  request.set_flag(flag);
  request.set_rollout_percentage(percent);
  request.set_reason("test");
  return request;
}

grpc::Status Set(pb::FlagService::Stub& stub, const pb::SetFlagRequest& request,
                 pb::SetFlagResponse* response = nullptr) {
  pb::SetFlagResponse ignored;
  return Call(stub, &pb::FlagService::Stub::Set, request, response == nullptr ? &ignored : response);
}

// Reads events until one's state fulfils `wanted`; the events must not have gone on without it.
bool WaitFor(grpc::ClientReader<pb::FlagEvent>& reader, const std::function<bool(const pb::FlagEvent&)>& wanted) {
  pb::FlagEvent event;
  while (reader.Read(&event)) {
    if (wanted(event)) return true;
  }
  return false;
}

const pb::FlagInfo& InfoOf(const pb::ListFlagsResponse& list, const std::string& key) {
  for (const pb::FlagInfo& info : list.flags()) {
    if (info.key() == key) return info;
  }
  static const pb::FlagInfo none;
  ADD_FAILURE() << key << " is not listed";
  return none;
}

// The seeds' story: the operator edits the percentage while users call.
TEST(FlagsServerTest, RaisingThePercentageInTheFileOnlyEverLetsUsersJoin) {
  constexpr int kUsers = 1000, kThreads = 4;
  const std::string folder = Folder(), path = WriteFlags(folder, Yaml(1));
  TestServer server({.flags_file = path});
  grpc::ClientContext watching;
  const auto watch = server.flags().Watch(&watching, {});
  std::vector<std::atomic<bool>> in_ttft(kUsers);
  std::atomic<int> left{0}, failed{0}, rounds{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> callers;
  for (int t = 0; t < kThreads; ++t) {
    callers.emplace_back([&, t] {
      const auto stub = pb::InferenceService::NewStub(server.Channel());
      while (!stop) {
        for (int u = t; u < kUsers && !stop; u += kThreads) {
          pb::GenerateRequest request = Greedy("x", 1);
          request.set_user(fmt::format("user-{}", u));
          const Reply reply = Generate(*stub, request);
          if (!reply.status.ok()) ++failed;
          const bool now = reply.finish.pipeline() == "ttft";
          if (in_ttft[u].exchange(now) && !now) ++left;
        }
        ++rounds;
      }
    });
  }
  for (const double percent : {1.0, 10.0, 50.0, 100.0}) {
    if (percent > 1) {
      WriteFlags(folder, Yaml(percent));
      ASSERT_TRUE(WaitFor(*watch, [&](const pb::FlagEvent& event) {
        return InfoOf(event.state(), "ttft_pipeline").rollout_percentage() == percent;
      }));
    }
    // Every thread ends the round that it is in, and makes a whole one.
    const int enough = rounds + 2 * kThreads;
    while (rounds < enough) std::this_thread::yield();
    const auto share = std::count_if(in_ttft.begin(), in_ttft.end(), [](const auto& in) { return in.load(); });
    const double p = percent / 100, four_sigma = 4 * std::sqrt(p * (1 - p) * kUsers);
    EXPECT_NEAR(static_cast<double>(share), p * kUsers, four_sigma) << percent << " %";
  }
  stop = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(left, 0);
  EXPECT_EQ(failed, 0);
  watching.TryCancel();
}

TEST(FlagsServerTest, AHeaderCanBeTheTargetingKey) {
  config::RuntimeConfig runtime;
  runtime.flags.targeting_key = {"header:x-account", "user"};
  TestServer server({.runtime = runtime, .ttft_bps = 5000});
  for (int i = 0; i < 20; ++i) {
    pb::GenerateRequest request = Greedy("x", 1);
    request.set_user("alice");
    const std::string account = fmt::format("account-{}", i);
    const auto flags = [&](const std::map<std::string, std::string>& headers) {
      return Generate(server.inference(), request, -1, headers).Trailer("sluice-flags");
    };
    EXPECT_THAT(flags({{"x-account", account}}),
                HasSubstr(fmt::format("bucket={};", flags::BucketV2("ttft", account))));
    EXPECT_THAT(flags({}), HasSubstr(fmt::format("bucket={};", flags::BucketV2("ttft", "alice")))) << "the next one";
  }
  const Reply nobody = Generate(server.inference(), Greedy("x", 1));
  EXPECT_THAT(nobody.Trailer("sluice-flags"), HasSubstr("ttft_pipeline=off;reason=TARGETING_KEY_MISSING"));
}

// The system's clock, whose calendar can be moved. By less than the deadlines of calls, which name a time of day.
class MovedClock final : public Clock {
 public:
  MonoTime Now() const override { return system_.Now(); }
  WallTime WallNow() const override { return system_.WallNow() + std::chrono::seconds(seconds_.load()); }
  void MoveBy(int seconds) { seconds_ += seconds; }

 private:
  const SystemClock system_{};
  std::atomic<int> seconds_{0};
};

TEST(FlagsServerTest, WatchersHearThatAScheduleBegins) {
  MovedClock clock;
  const std::string begin = flags::TimeText(clock.WallNow() + std::chrono::seconds(40));
  const std::string yaml = Yaml(100, fmt::format(", schedule: {{start: {}}}", begin));
  TestServer server({.flags_file = WriteFlags(Folder(), yaml), .clock = &clock});
  EXPECT_EQ(Generate(server.inference(), Greedy("x", 1)).finish.pipeline(), "baseline");
  grpc::ClientContext context;
  const auto watch = server.flags().Watch(&context, {});
  pb::FlagEvent event;
  ASSERT_TRUE(watch->Read(&event));  // the present flags
  clock.MoveBy(60);
  ASSERT_TRUE(watch->Read(&event));
  ASSERT_EQ(event.changes_size(), 1);
  EXPECT_EQ(event.changes(0).flag(), "ttft_pipeline");
  EXPECT_EQ(event.changes(0).field(), "schedule");
  EXPECT_EQ(event.changes(0).before(), "outside");
  EXPECT_EQ(event.changes(0).after(), "inside");
  EXPECT_EQ(event.epoch(), 1U) << "nobody changed the flags";
  EXPECT_EQ(Generate(server.inference(), Greedy("x", 1)).finish.pipeline(), "ttft");
  context.TryCancel();
}

// A flagd client pings every 30 s, also without calls, where 10 s are allowed. gRPC's own clients ping at most once a
// second, so that is the pace here: does a connection live for so long where pings this often are allowed?
bool OutlivesPings(std::chrono::milliseconds allowed, std::chrono::seconds time) {
  config::RuntimeConfig runtime;
  runtime.server.min_client_ping_interval = allowed;
  TestServer server({.runtime = runtime});
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit of the client's own
  const auto channel = server.Channel(arguments);
  EXPECT_TRUE(channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(30)));
  return !channel->WaitForStateChange(GRPC_CHANNEL_READY, std::chrono::system_clock::now() + time);
}

TEST(PingTest, AFlagdClientOutlivesItsPings) {
  EXPECT_TRUE(OutlivesPings(std::chrono::milliseconds(300), std::chrono::seconds(8)));
}

TEST(PingTest, FasterPingsEndTheConnection) {
  EXPECT_FALSE(OutlivesPings(std::chrono::minutes(1), std::chrono::seconds(60))) << "else the test above shows nothing";
}

TEST(FlagsServerTest, TheKillSwitchActsAtOnceAndSaysWhoStillHoldsIt) {
  const std::string folder = Folder();
  TestServer server({.flags_file = WriteFlags(folder, Yaml(100))});
  EXPECT_EQ(Generate(server.inference(), Greedy("x", 1)).finish.pipeline(), "ttft");
  pb::EmergencyStopRequest stop;
  stop.set_switch_(pb::EmergencyStopRequest::KILL_SWITCH);
  stop.set_on(true);
  pb::EmergencyStopResponse response;
  EXPECT_EQ(Call(server.flags(), &pb::FlagService::Stub::EmergencyStop, stop, &response).error_code(),
            StatusCode::INVALID_ARGUMENT);  // without a reason
  stop.set_reason("test");
  ASSERT_TRUE(Call(server.flags(), &pb::FlagService::Stub::EmergencyStop, stop, &response).ok());
  EXPECT_FALSE(response.kept());  // no state folder
  const Reply killed = Generate(server.inference(), Greedy("x", 1));
  EXPECT_EQ(killed.finish.pipeline(), "baseline");
  EXPECT_THAT(killed.Trailer("sluice-flags"), HasSubstr("ttft_pipeline=off;reason=EMERGENCY;layer=emergency;epoch=2"));

  WriteFlags(folder, Yaml(100) + "emergency: {kill_switch: true}\n");
  ASSERT_TRUE(server.server().ReloadFlags(config::LoadFlagFile(folder + "/flags.yaml"), "test").ok());
  stop.set_on(false);
  ASSERT_TRUE(Call(server.flags(), &pb::FlagService::Stub::EmergencyStop, stop, &response).ok());
  EXPECT_THAT(response.still_on(), ElementsAre("file"));
  EXPECT_EQ(Generate(server.inference(), Greedy("x", 1)).finish.pipeline(), "baseline");
}

TEST(FlagsServerTest, AnOverrideIsKeptFollowedAndTakenBack) {
  const std::string folder = Folder(), path = WriteFlags(folder, Yaml(0));
  config::RuntimeConfig runtime;
  runtime.state_folder = folder + "/state";
  TestServer other({.runtime = runtime, .flags_file = path});
  grpc::ClientContext watching;
  const auto watch = other.flags().Watch(&watching, {});
  {
    TestServer server({.runtime = runtime, .flags_file = path});
    pb::SetFlagResponse response;
    ASSERT_TRUE(Set(server.flags(), Percent("ttft_pipeline", 100), &response).ok());
    EXPECT_EQ(response.epoch(), 2);
    EXPECT_TRUE(response.kept());
    ASSERT_GE(response.changes_size(), 1);
    EXPECT_EQ(response.changes(0).field(), "rollout_percentage");
    EXPECT_EQ(Generate(server.inference(), Greedy("x", 1)).finish.pipeline(), "ttft");
  }
  // Another server on the same folder follows, and one that starts later remembers.
  EXPECT_TRUE(WaitFor(*watch, [](const pb::FlagEvent& event) {
    return InfoOf(event.state(), "ttft_pipeline").rollout_layer() == "override";
  }));
  watching.TryCancel();
  TestServer server({.runtime = runtime, .flags_file = path});
  EXPECT_EQ(Evaluate(server.flags(), "ttft_pipeline", "u").layer(), "override");
  pb::SetFlagRequest clear;
  clear.set_flag("ttft_pipeline");
  clear.set_reason("over");
  ASSERT_TRUE(Set(server.flags(), clear).ok());
  EXPECT_EQ(Evaluate(server.flags(), "ttft_pipeline", "u").layer(), "file");
}

TEST(FlagsServerTest, SetComparesTheEpochAndRefusesWhatIsWrong) {
  TestServer server;
  pb::SetFlagRequest request = Percent("ttft_pipeline", 25);
  request.set_expected_epoch(1);
  EXPECT_TRUE(Set(server.flags(), request).ok());
  EXPECT_EQ(Set(server.flags(), request).error_code(), StatusCode::ABORTED);
  EXPECT_EQ(Set(server.flags(), Percent("nope", 1)).error_code(), StatusCode::NOT_FOUND);
  EXPECT_THAT(Set(server.flags(), Percent("nope", 1)).error_message(), HasSubstr("there are: "));
  EXPECT_EQ(Set(server.flags(), Percent("ttft_pipeline", 100.01)).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Set(server.flags(), Percent("ttft_pipeline", 0.001)).error_code(), StatusCode::INVALID_ARGUMENT);
  pb::SetFlagRequest silent = Percent("ttft_pipeline", 1);
  silent.clear_reason();
  EXPECT_EQ(Set(server.flags(), silent).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Evaluate(server.flags(), "ttft_pipeline", "u").threshold(), 2500);
}

TEST(FlagsServerTest, WhatAHigherLayerHoldsIsSaidToBeInert) {
  flags::LayerContent variables;
  variables.values["ttft_pipeline"] = {.rollout_bps = 0, .rollout_by = "PHASE5_ROLLOUT_PERCENT"};
  TestServer server({.ttft_bps = 5000, .flag_variables = variables});
  pb::SetFlagResponse response;
  ASSERT_TRUE(Set(server.flags(), Percent("ttft_pipeline", 100), &response).ok());
  ASSERT_EQ(response.inert_size(), 1);
  EXPECT_THAT(response.inert(0), HasSubstr("PHASE5_ROLLOUT_PERCENT"));
  EXPECT_EQ(Generate(server.inference(), Greedy("x", 1)).finish.pipeline(), "baseline");
}

TEST(FlagsServerTest, ExplainShowsTheWholeChain) {
  const std::string folder = Folder();
  TestServer server({.flags_file = WriteFlags(
                         folder, Yaml(50,
                                      ", rules: [{name: beta, when: [{attribute: 'header:x-beta', equals: yes}], "
                                      "then: {in: true}}]"))});
  pb::ExplainFlagRequest request;
  request.set_flag("ttft_pipeline");
  request.mutable_context()->set_targeting_key("alice");
  pb::ExplainFlagResponse response;
  ASSERT_TRUE(Call(server.flags(), &pb::FlagService::Stub::Explain, request, &response).ok());
  EXPECT_EQ(response.decision().reason(), "SPLIT");
  EXPECT_EQ(response.hash().size(), 8U);
  EXPECT_EQ(response.decision().bucket(), std::stoul(response.hash(), nullptr, 16) % 10000);
  EXPECT_EQ(response.salt(), "ttft_pipeline");
  ASSERT_EQ(response.rules_size(), 1);
  EXPECT_FALSE(response.rules(0).matched());
  ASSERT_EQ(response.parents_size(), 1);
  EXPECT_EQ(response.parents(0).flag(), "phase5");
  request.set_flag("nope");
  EXPECT_EQ(Call(server.flags(), &pb::FlagService::Stub::Explain, request, &response).error_code(),
            StatusCode::NOT_FOUND);

  // And a real request with the header.
  WriteFlags(folder, Yaml(0,
                          ", rules: [{name: beta, when: [{attribute: 'header:x-beta', equals: yes}], "
                          "then: {in: true}}]"));
  ASSERT_TRUE(server.server().ReloadFlags(config::LoadFlagFile(folder + "/flags.yaml"), "test").ok());
  EXPECT_EQ(Generate(server.inference(), Greedy("x", 1)).finish.pipeline(), "baseline");
  const Reply beta = Generate(server.inference(), Greedy("x", 1), -1, {{"x-beta", "yes"}});
  EXPECT_EQ(beta.finish.pipeline(), "ttft");
  EXPECT_THAT(beta.Trailer("sluice-flags"), HasSubstr("ttft_pipeline=on;reason=TARGETING_MATCH"));
}

TEST(FlagsServerTest, OperatorsNeedAnAdminKeyAndEvaluateAnyKey) {
  // SHA-256 of "secret" and "root".
  TestServer server({.keys = {{.name = "app",
                               .token_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
                               .tenant = "acme"},
                              {.name = "ops",
                               .token_sha256 = "4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2",
                               .tenant = "ops",
                               .admin = true}}});
  const auto code = [&](const std::string& token) {
    pb::SetFlagResponse response;
    return Call(server.flags(), &pb::FlagService::Stub::Set, Percent("ttft_pipeline", 1), &response, token)
        .error_code();
  };
  EXPECT_EQ(code("secret"), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(code("root"), StatusCode::OK);
  pb::EvaluateFlagRequest ask;
  ask.set_flag("ttft_pipeline");
  pb::EvaluateFlagResponse answer;
  EXPECT_TRUE(Call(server.flags(), &pb::FlagService::Stub::Evaluate, ask, &answer, "secret").ok());
  pb::ListFlagsResponse list;
  EXPECT_EQ(Call(server.flags(), &pb::FlagService::Stub::List, pb::ListFlagsRequest(), &list, "secret").error_code(),
            StatusCode::PERMISSION_DENIED);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer secret");
  EXPECT_EQ(server.flags().Watch(&context, {})->Finish().error_code(), StatusCode::PERMISSION_DENIED);
}

TEST(FlagsServerTest, AWatcherDoesNotHoldUpADrain) {
  TestServer server;
  grpc::ClientContext context;
  const auto watch = server.flags().Watch(&context, {});
  pb::FlagEvent event;
  ASSERT_TRUE(watch->Read(&event));
  EXPECT_EQ(event.epoch(), 1);
  EXPECT_EQ(event.changes_size(), 0);
  std::thread drain([&] { server.server().Drain(std::chrono::minutes(5)); });
  EXPECT_FALSE(watch->Read(&event));
  drain.join();
}

// Ten seconds of 100 reloads a second, as fast as they go, under load: every decision names one epoch of a set that was
// whole. What callers feel of it is printed, not judged: this machine may be doing other things.
TEST(FlagsServerTest, AReloadStormTearsNothing) {
  const std::string folder = Folder();
  const auto yaml = [](double percent) {
    return fmt::format(
        "phase5: {{enabled: true, rollout_percentage: {0:g}}}\n"
        "ttft_pipeline: {{enabled: true, rollout_percentage: {0:g}}}\n",
        percent);
  };
  TestServer server({.flags_file = WriteFlags(folder, yaml(0))});
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0}, calls{0}, failed{0};
  std::atomic<bool> storming{false};
  constexpr int kCallers = 2, kReloads = 1000, kCallsBefore = 400;
  std::array<std::array<std::vector<double>, 2>, kCallers> ms;  // by caller; before and during
  std::vector<std::thread> callers;
  for (int t = 0; t < kCallers; ++t) {
    callers.emplace_back([&, t] {
      const SystemClock clock;
      const auto stub = pb::InferenceService::NewStub(server.Channel());
      while (!stop) {
        const bool during = storming;
        const MonoTime begin = clock.Now();
        const Reply reply = Generate(*stub, Greedy("x", 1));
        ms[t][during ? 1 : 0].push_back(ToMillis(clock.Now() - begin));
        if (!reply.status.ok()) ++failed;
        const std::string flags = reply.Trailer("sluice-flags");
        // phase5 and ttft_pipeline change together: 0 % both, or 100 % both.
        const bool off = flags.find("phase5=off") != std::string::npos;
        if (off != (flags.find("ttft_pipeline=off") != std::string::npos)) ++torn;
        const size_t first = flags.find("epoch="), second = flags.find("epoch=", first + 1);
        if (flags.substr(first, flags.find(',', first) - first) !=
            flags.substr(second, flags.find(',', second) - second)) {
          ++torn;
        }
        ++calls;
      }
    });
  }
  while (calls < kCallsBefore) std::this_thread::yield();
  storming = true;
  for (int i = 0; i < kReloads; ++i) {
    WriteFlags(folder, yaml(i % 2 == 0 ? 100 : 0));
    const auto content = config::LoadFlagFile(folder + "/flags.yaml");
    ASSERT_TRUE(content.ok()) << content.status();
    ASSERT_TRUE(server.server().ReloadFlags(content, "storm").ok());
    const int seen = calls;
    while (i % 10 == 0 && calls == seen) std::this_thread::yield();
  }
  stop = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(failed, 0);
  const auto p99 = [&](int phase) {
    std::vector<double> all;
    for (const auto& caller : ms) all.insert(all.end(), caller[phase].begin(), caller[phase].end());
    std::sort(all.begin(), all.end());
    return std::pair{all.size(), all.empty() ? 0 : all[all.size() * 99 / 100]};
  };
  const auto [calls_before, before] = p99(0);
  const auto [calls_during, during] = p99(1);
  EXPECT_GE(calls_during, kReloads / 10U);
  fmt::print("p99 of a call: {:.2f} ms before ({} calls), {:.2f} ms during {} reloads ({} calls), ratio {:.2f}\n",
             before, calls_before, during, kReloads, calls_during, during / before);
}

}  // namespace
}  // namespace sluice::test
