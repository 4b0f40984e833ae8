// A server of edge_servers.h as a child process whose CPU time can be read.
#pragma once

#include <sys/types.h>

#include <ctime>
#include <memory>
#include <string>

#include "base/clock.h"

namespace sluice::components {

// Thread-safety: thread-compatible.
class EdgeProcess {
 public:
  // Starts this very binary as `--serve kind step_us` and waits until it says its port. null: it did not start. Its log
  // goes to /dev/null: the line per request is made and written, but not shown.
  static std::unique_ptr<EdgeProcess> Start(const std::string& kind, int step_us);
  ~EdgeProcess();  // ends its standard input and waits for it

  int port() const { return port_; }
  // User and system time of all its threads so far, in nanoseconds as the kernel counts them.
  Duration CpuTime() const;

 private:
  EdgeProcess(pid_t pid, int input) : pid_(pid), input_(input) {}
  const pid_t pid_;
  const int input_;
  int port_ = 0;
  clockid_t clock_{};
};

}  // namespace sluice::components
