// An engine that the tool starts, watches and stops: sluice-server, llama-server or any command.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "loadtest/record.h"
#include "loadtest/scenario.h"

namespace sluice::loadtest {

// Where the programs and the model are; from options or the environment.
struct EngineFiles {
  std::string sluice_server, llama_server, model_file;
  std::string log_folder;
};

// Thread-compatible. Stops the process (SIGTERM, after 30 s SIGKILL) when destroyed. The kernel kills it (SIGKILL) when
// the thread that started it ends in any other way, so that is the main thread; what a program has started itself lives
// on.
class EngineProcess {
 public:
  // Starts it on a free loopback port; does not wait until it is ready. NOT_FOUND: no such program; INVALID_ARGUMENT: a
  // model is missing.
  static absl::StatusOr<std::unique_ptr<EngineProcess>> Start(const EngineSpec& spec, const EngineFiles& files);
  ~EngineProcess();

  const std::string& url() const { return url_; }  // as a Target takes it
  const std::string& command() const { return command_; }
  const std::string& log_file() const { return log_file_; }
  bool alive();                                 // reaps it when it has ended
  std::string ended() const { return ended_; }  // "exit code 1", "signal 9"; empty while alive

  // CPU since the last call and resident memory now. `now` on the run's clock.
  ResourceSample Sample(int64_t now_ns);

  void Signal(int signal);
  absl::Status Restart();  // starts the same command again, on the same port

 private:
  EngineProcess() = default;
  absl::Status Spawn();
  void Terminate();

  std::string name_, url_, command_, log_file_, ended_;
  std::vector<std::string> arguments_, environment_;
  pid_t pid_ = -1;
  int64_t last_cpu_ns_ = 0, last_at_ns_ = 0;
};

}  // namespace sluice::loadtest
