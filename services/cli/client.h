// The connection of sluicectl: channel, credentials, and errors told to a person.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/args.h"
#include "google/protobuf/message.h"

namespace sluice::cli {

// Exit codes of sluicectl.
inline constexpr int kOk = 0, kRefused = 1, kUsage = 2, kUnreachable = 3;

class Client {
 public:
  // INVALID_ARGUMENT: a certificate file cannot be read; a bad --timeout.
  static absl::StatusOr<Client> Connect(const Args& args);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  // Adds deadline and token.
  void Prepare(grpc::ClientContext& context) const;
  const std::string& server() const { return server_; }
  bool json() const { return json_; }

  // Prints code, message, reason, violated fields and when to retry on stderr; returns the exit code.
  int Fail(const grpc::Status& status) const;

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::string server_, token_;
  std::chrono::milliseconds timeout_{60000};
  bool json_ = false;
};

// One line of JSON with the proto's field names.
std::string ToJson(const google::protobuf::Message& message);

// The commands; each returns an exit code.
int FlagsCommand(const Args& args);
int GenerateCommand(const Args& args);
int HealthCommand(const Args& args);
int ModelsCommand(const Args& args);
int QosCommand(const Args& args);
int RolloutCommand(const Args& args);
int StatusCommand(const Args& args);
const Command& FlagsSpec();
const Command& GenerateSpec();
const Command& HealthSpec();
const Command& ModelsSpec();
const Command& QosSpec();
const Command& RolloutSpec();
const Command& StatusSpec();

}  // namespace sluice::cli
