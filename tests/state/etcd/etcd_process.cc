#include "tests/state/etcd/etcd_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "base/owned_fd.h"
#include "gtest/gtest.h"

namespace sluice::state {
namespace {

// Free a moment ago; etcd cannot choose one itself.
int FreePort() {
  const OwnedFd fd(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  SLUICE_CHECK(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) == 0, "a port");
  SLUICE_CHECK(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0, "its number");
  return ntohs(address.sin_port);
}

// `output`: a file descriptor for what it prints.
pid_t Spawn(const std::vector<std::string>& words, int output) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  SLUICE_CHECK(pid >= 0, "a process");
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execv(argv[0], argv.data());
  _exit(127);
}

}  // namespace

std::string EtcdProgram(const std::string& name) {
  const char* const clients = getenv("SLUICE_CLIENTS");
  std::istringstream folders(std::string(clients == nullptr ? "" : clients) + "/debian/usr/bin:" + getenv("PATH"));
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string path = folder + "/" + name;
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  SLUICE_CHECK(false, "no program etcd or etcdctl in PATH or SLUICE_CLIENTS: run scripts/setup --clients");
  return "";
}

EtcdProcess::EtcdProcess(Options options)
    : scheme_(options.scheme),
      host_(options.scheme == "https" ? "localhost" : "127.0.0.1"),
      arguments_(std::move(options.arguments)),
      port_(FreePort()),
      peer_port_(FreePort()) {
  Start();
}

EtcdProcess::~EtcdProcess() { Kill(); }

void EtcdProcess::Start() {
  const std::string client = scheme_ + "://127.0.0.1:" + std::to_string(port_);
  const std::string peer = "http://127.0.0.1:" + std::to_string(peer_port_);
  std::vector<std::string> words = {EtcdProgram("etcd"),
                                    "--name=one",
                                    "--data-dir=" + (folder_ / "data"),
                                    "--listen-client-urls=" + client,
                                    "--advertise-client-urls=" + client,
                                    "--listen-peer-urls=" + peer,
                                    "--initial-advertise-peer-urls=" + peer,
                                    "--initial-cluster=one=" + peer,
                                    "--heartbeat-interval=20",
                                    "--election-timeout=200",  // so a lease may have 1 s
                                    "--grpc-keepalive-min-time=50ms",
                                    "--auth-token=simple",
                                    "--log-level=error",
                                    "--logger=zap"};
  words.insert(words.end(), arguments_.begin(), arguments_.end());
  const std::string log = folder_ / "log";
  const OwnedFd output(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  pid_ = Spawn(words, output.get());
}

void EtcdProcess::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  int status = 0;
  waitpid(std::exchange(pid_, -1), &status, 0);
}

void EtcdProcess::Pause() {
  kill(pid_, SIGSTOP);
  int status = 0;
  waitpid(pid_, &status, WUNTRACED);
}

void EtcdProcess::Resume() { kill(pid_, SIGCONT); }

std::string EtcdProcess::Ctl(const std::vector<std::string>& arguments) const {
  std::vector<std::string> words = {EtcdProgram("etcdctl"), "--endpoints=" + url()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::array<int, 2> ends{};
  SLUICE_CHECK(pipe2(ends.data(), O_CLOEXEC) == 0, "a pipe");
  const OwnedFd reader(ends[0]);
  OwnedFd writer(ends[1]);
  const pid_t pid = Spawn(words, writer.get());
  writer = OwnedFd();
  std::string printed;
  std::array<char, 4096> part{};
  for (ssize_t n = 0; (n = read(reader.get(), part.data(), part.size())) > 0;) printed.append(part.data(), n);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0) << printed;
  return printed;
}

}  // namespace sluice::state
