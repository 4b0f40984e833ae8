#include "loadtest/components/edge_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace sluice::components {

std::unique_ptr<EdgeProcess> EdgeProcess::Start(const std::string& kind, int step_us) {
  int input[2], output[2];
  if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0) return nullptr;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  std::string words[] = {"sluice-components", "--serve", kind, std::to_string(step_us)};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(input[0]);
  close(output[1]);
  std::unique_ptr<EdgeProcess> process;
  if (error == 0) {
    process.reset(new EdgeProcess(pid, input[1]));
    std::FILE* const said = fdopen(output[0], "r");
    const bool ready = std::fscanf(said, "%d", &process->port_) == 1 && clock_getcpuclockid(pid, &process->clock_) == 0;
    std::fclose(said);
    if (!ready) process = nullptr;
  } else {
    close(input[1]);
    close(output[0]);
  }
  return process;
}

EdgeProcess::~EdgeProcess() {
  close(input_);
  waitpid(pid_, nullptr, 0);
}

Duration EdgeProcess::CpuTime() const {
  timespec time{};
  clock_gettime(clock_, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace sluice::components
