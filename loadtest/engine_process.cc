#include "loadtest/engine_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <thread>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "fmt/format.h"

extern char** environ;

namespace sluice::loadtest {
namespace {

// A loopback port that nobody uses just now.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

std::vector<std::string> SluiceArguments(const std::string& model, int port) {
  return {"--model", "default=" + model, "--grpc-address", fmt::format("127.0.0.1:{}", port), "--metrics-address",
          "off"};
}

std::vector<std::string> LlamaArguments(const EngineSpec& spec, const std::string& model, int port) {
  std::vector<std::string> arguments = {"-m",        model, "--host", "127.0.0.1", "--port", std::to_string(port),
                                        "--no-webui"};
  const auto add = [&](const char* flag, int value) {
    if (value > 0) arguments.insert(arguments.end(), {flag, std::to_string(value)});
  };
  add("-np", spec.slots);
  add("-c", spec.slots * spec.slot_context);
  add("-t", spec.threads);
  add("-tb", spec.threads);
  return arguments;
}

void AddSluiceEnvironment(const EngineSpec& spec, std::vector<std::string>& environment) {
  const auto add = [&](const char* name, int value) {
    if (value > 0) environment.push_back(fmt::format("{}={}", name, value));
  };
  add("SLUICE_ENGINE_SLOTS", spec.slots);
  add("SLUICE_STREAMING_MAX_CONCURRENT_STREAMS", spec.slots);
  add("SLUICE_ENGINE_SLOT_CONTEXT", spec.slot_context);
  add("SLUICE_ENGINE_THREADS", spec.threads);
}

int64_t CpuNs(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text, '\0');  // empty when the process has ended, whenever it did
  const size_t after_name = text.rfind(')');
  if (after_name == std::string::npos) return 0;
  const std::vector<std::string> fields = absl::StrSplit(text.substr(after_name + 2), ' ');
  if (fields.size() < 13) return 0;
  return (std::stoll(fields[11]) + std::stoll(fields[12])) * (1'000'000'000 / sysconf(_SC_CLK_TCK));
}

int64_t ResidentBytes(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/statm", pid));
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// The child's side of a start, up to the program: async-signal-safe calls only. Returns with errno when that fails.
void Become(char* const* argv, char* const* envp, const char* log_file, pid_t parent) {
  setpgid(0, 0);  // Ctrl-C is ours to handle: the engine ends with us
  // The generator runs at a higher priority where it may (see Session); what it starts must not.
  setpriority(PRIO_PROCESS, 0, std::max(getpriority(PRIO_PROCESS, 0), 0));
  prctl(PR_SET_PDEATHSIG, SIGKILL);     // nobody else would end it when we are killed
  if (getppid() != parent) _exit(127);  // we were, just now
  const int input = open("/dev/null", O_RDONLY);
  const int log = open(log_file, O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (input < 0 || log < 0 || dup2(input, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) return;
  close(input);
  close(log);
  execve(argv[0], argv, envp);
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngineProcess>> EngineProcess::Start(const EngineSpec& spec, const EngineFiles& files) {
  auto engine = std::unique_ptr<EngineProcess>(new EngineProcess());
  engine->name_ = spec.name;
  const int port = FreePort();
  const std::string model = spec.model_file.empty() ? files.model_file : spec.model_file;
  const bool sluice = spec.start == "sluice" || spec.start.ends_with("/sluice-server");
  const bool llama = spec.start == "llama-server" || spec.start.ends_with("/llama-server");
  if ((sluice || llama) && model.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("engine '{}': which model? Give --model-file (or model_file in the scenario): a GGUF file{}",
                    spec.name, sluice ? " or synthetic:" : ""));
  }
  std::string program = spec.start;
  if (spec.start == "sluice") program = files.sluice_server;
  if (spec.start == "llama-server") program = files.llama_server;
  if (program.empty() || access(program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(fmt::format("engine '{}': there is no program {} to start; {}", spec.name,
                                           program.empty() ? spec.start : program,
                                           llama ? "scripts/peers builds llama-server, then give --llama-server"
                                                 : "give --sluice-server, or a path in start:"));
  }
  engine->arguments_ = {program};
  std::vector<std::string> known;
  if (sluice) known = SluiceArguments(model, port);
  if (llama) known = LlamaArguments(spec, model, port);
  for (const std::string& a : spec.arguments)
    known.push_back(absl::StrReplaceAll(a, {{"{port}", std::to_string(port)}}));
  engine->arguments_.insert(engine->arguments_.end(), known.begin(), known.end());
  engine->command_ = absl::StrJoin(engine->arguments_, " ");
  // getenv finds the first of equal names: the scenario's, then the geometry's, then ours.
  for (const auto& [name, value] : spec.env) engine->environment_.push_back(name + "=" + value);
  if (sluice) AddSluiceEnvironment(spec, engine->environment_);
  for (char** variable = environ; *variable != nullptr; ++variable) engine->environment_.emplace_back(*variable);
  engine->log_file_ = fmt::format("{}/{}.log", files.log_folder, spec.name);
  const char* scheme = sluice ? (spec.door == "kserve" ? "kserve" : "grpc") : "http";
  engine->url_ = fmt::format("{}://127.0.0.1:{}", scheme, port);
  SLUICE_RETURN_IF_ERROR(engine->Spawn());
  return engine;
}

absl::Status EngineProcess::Spawn() {
  std::vector<char*> argv, envp;
  for (std::string& a : arguments_) argv.push_back(a.data());
  for (std::string& e : environment_) envp.push_back(e.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  std::array<int, 2> pipe{};  // closed by the program's start, or errno comes through it
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) {
    return absl::InternalError(fmt::format("cannot start {}: {}", arguments_[0], std::strerror(errno)));
  }
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    Become(argv.data(), envp.data(), log_file_.c_str(), parent);
    const int error = errno;
    (void)!write(pipe[1], &error, sizeof(error));
    _exit(127);
  }
  int error = pid_ < 0 ? errno : 0;
  close(pipe[1]);
  while (pid_ > 0 && read(pipe[0], &error, sizeof(error)) < 0 && errno == EINTR) {
  }
  close(pipe[0]);
  ended_.clear();
  last_cpu_ns_ = last_at_ns_ = 0;
  if (error == 0) return absl::OkStatus();
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
  pid_ = -1;
  return absl::InternalError(fmt::format("cannot start {}: {}", arguments_[0], std::strerror(error)));
}

bool EngineProcess::alive() {
  if (pid_ < 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  pid_ = -1;
  ended_ = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                               : fmt::format("exit code {}", WEXITSTATUS(status));
  return false;
}

ResourceSample EngineProcess::Sample(int64_t now_ns) {
  ResourceSample sample{.arm = name_, .at_ns = now_ns, .alive = alive()};
  if (!sample.alive) return sample;
  const int64_t cpu = CpuNs(pid_);
  if (last_at_ns_ > 0 && now_ns > last_at_ns_) {
    sample.cpu_percent = 100.0 * static_cast<double>(cpu - last_cpu_ns_) / static_cast<double>(now_ns - last_at_ns_);
  }
  last_cpu_ns_ = cpu;
  last_at_ns_ = now_ns;
  sample.rss_bytes = ResidentBytes(pid_);
  return sample;
}

void EngineProcess::Signal(int signal) {
  if (alive()) kill(pid_, signal);
}

absl::Status EngineProcess::Restart() {
  Terminate();
  return Spawn();
}

void EngineProcess::Terminate() {
  if (!alive()) return;
  kill(pid_, SIGCONT);
  kill(pid_, SIGTERM);
  for (int i = 0; i < 300 && alive(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  if (!alive()) return;
  kill(pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  ended_ = "signal 9";
}

EngineProcess::~EngineProcess() { Terminate(); }

}  // namespace sluice::loadtest
