// A real etcd on loopback, with its data in a temporary folder.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace sluice::state {

// The program comes from the folder of SLUICE_CLIENTS (scripts/setup --clients), or from PATH. It dies with the test.
class EtcdProcess {
 public:
  struct Options {
    std::string scheme = "http";
    std::vector<std::string> arguments;  // more of them
  };
  explicit EtcdProcess(Options options);
  EtcdProcess() : EtcdProcess(Options{}) {}
  ~EtcdProcess();
  EtcdProcess(const EtcdProcess&) = delete;
  EtcdProcess& operator=(const EtcdProcess&) = delete;

  std::string endpoint() const { return host_ + ":" + std::to_string(port_); }
  std::string url() const { return scheme_ + "://" + endpoint(); }

  void Start();  // with the data that is there; does not wait until it serves
  void Kill();   // as kill -9
  void Pause();  // it hangs, its connections stay
  void Resume();

  // Runs etcdctl (plain text endpoints only) and waits for it; fails the test if it fails. Returns what it printed.
  std::string Ctl(const std::vector<std::string>& arguments) const;

 private:
  const std::string scheme_, host_;
  const std::vector<std::string> arguments_;
  const int port_, peer_port_;
  const test::TempFolder folder_;
  pid_t pid_ = -1;
};

// The path of a program of etcd's.
std::string EtcdProgram(const std::string& name);

}  // namespace sluice::state
