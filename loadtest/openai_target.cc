#include "loadtest/openai_target.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "loadtest/openai_check.h"
#include "loadtest/openai_transfer.h"

namespace sluice::loadtest {
namespace {

// Reused handles keep their buffers; connections live in the multi handle and outlast them anyway.
constexpr size_t kMaxIdleHandles = 1024;
constexpr long kMaxConnections = 65536;  // kept open; libcurl's default is four for each request under way

class OpenAiTarget final : public Target {
 public:
  OpenAiTarget(const TargetOptions& options, const Clock& clock, MonoTime epoch);
  ~OpenAiTarget() override;

  void Start(Request request, Record* record, std::function<void()> done) override {
    Enqueue(std::make_unique<OpenAiTransfer>(setup_, std::move(request), record, std::move(done)));
  }
  void CancelAll() override { Enqueue(nullptr); }
  absl::Status Check(Duration timeout, const std::atomic<bool>& stop) override;

 private:
  using Transfer = std::unique_ptr<OpenAiTransfer>;

  void Enqueue(Transfer transfer);
  void Wake();
  static int OnSocket(CURL*, curl_socket_t socket, int what, void* self, void*);
  static int OnTimeout(CURLM*, long timeout_ms, void* self);

  // The thread.
  void Run();
  void Begin(Transfer transfer);
  bool TakeQueue();
  int WaitMs() const;
  void Drive(const epoll_event& event);
  void TakeMessages();
  void RunTimers();
  void Settle(OpenAiTransfer* transfer);

  const OpenAiSetup setup_;
  CURLM* multi_ = nullptr;
  int epoll_ = -1, wake_ = -1;

  // Only the thread uses these.
  std::set<std::pair<MonoTime, OpenAiTransfer*>> transfers_;  // owned, by deadline
  std::set<OpenAiTransfer*> slow_;                            // those of them that look away now and then
  std::vector<CurlHandle> idle_;
  MonoTime curl_timer_ = kInfiniteFuture;

  Mutex mutex_;
  std::vector<Transfer> queue_ ABSL_GUARDED_BY(mutex_);  // null: cancel what came before
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

OpenAiTarget::OpenAiTarget(const TargetOptions& options, const Clock& clock, MonoTime epoch)
    : setup_{.options = options,
             .root = OpenAiRoot(options.url),
             .extra = options.body_json.empty() ? nlohmann::json::object()
                                                : nlohmann::json::parse(options.body_json, nullptr, false),
             .clock = clock,
             .epoch = epoch} {
  InitCurl();
  multi_ = curl_multi_init();
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  SLUICE_CHECK(multi_ != nullptr && epoll_ >= 0 && wake_ >= 0, "out of memory or of file descriptors");
  epoll_event event{.events = EPOLLIN, .data = {.fd = wake_}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &OpenAiTarget::OnSocket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &OpenAiTarget::OnTimeout);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, kMaxConnections);
  thread_ = std::thread([this] { Run(); });
}

OpenAiTarget::~OpenAiTarget() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  Wake();
  thread_.join();
  close(wake_);
  close(epoll_);
}

void OpenAiTarget::Enqueue(Transfer transfer) {
  bool was_empty = false;
  {
    MutexLock lock(mutex_);
    was_empty = queue_.empty();
    queue_.push_back(std::move(transfer));
  }
  if (was_empty) Wake();
}

void OpenAiTarget::Wake() {
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof(one));  // it fails only when the counter is full, and then it is awake
}

absl::Status OpenAiTarget::Check(Duration timeout, const std::atomic<bool>& stop) {
  if (!setup_.extra.is_object()) {
    return absl::InvalidArgumentError("the body to merge is no JSON object: " + setup_.options.body_json);
  }
  return CheckOpenAi(setup_.options, setup_.clock, timeout, stop);
}

int OpenAiTarget::OnSocket(CURL*, curl_socket_t socket, int what, void* self, void*) {
  const int epoll = static_cast<OpenAiTarget*>(self)->epoll_;
  epoll_event event{.events = 0, .data = {.fd = socket}};
  if (what == CURL_POLL_REMOVE) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, socket, &event);
    return 0;
  }
  if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) event.events |= EPOLLIN;
  if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) event.events |= EPOLLOUT;
  if (epoll_ctl(epoll, EPOLL_CTL_MOD, socket, &event) != 0 && errno == ENOENT) {
    epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event);
  }
  return 0;
}

int OpenAiTarget::OnTimeout(CURLM*, long timeout_ms, void* self) {
  auto* target = static_cast<OpenAiTarget*>(self);
  target->curl_timer_ =
      timeout_ms < 0 ? kInfiniteFuture : target->setup_.clock.Now() + std::chrono::milliseconds(timeout_ms);
  return 0;
}

void OpenAiTarget::Run() {
  sigset_t signals;  // OpenSSL writes without MSG_NOSIGNAL
  sigemptyset(&signals);
  sigaddset(&signals, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::array<epoll_event, 256> events{};
  while (TakeQueue() || !transfers_.empty()) {
    const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), WaitMs());
    for (int i = 0; i < count; ++i) Drive(events[static_cast<size_t>(i)]);
    if (setup_.clock.Now() >= curl_timer_) {
      curl_timer_ = kInfiniteFuture;
      int running = 0;
      curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    TakeMessages();
    RunTimers();
  }
  idle_.clear();
  curl_multi_cleanup(multi_);  // closes the connections, which calls OnSocket
}

// False when nothing will come any more.
bool OpenAiTarget::TakeQueue() {
  std::vector<Transfer> queue;
  bool stop = false;
  {
    MutexLock lock(mutex_);
    queue.swap(queue_);
    stop = stop_;
  }
  for (Transfer& transfer : queue) {
    if (transfer != nullptr) {
      Begin(std::move(transfer));
      continue;
    }
    while (!transfers_.empty()) {
      OpenAiTransfer* const running = transfers_.begin()->second;
      running->Cancel();
      Settle(running);
    }
  }
  return !stop;
}

void OpenAiTarget::Begin(Transfer transfer) {
  CurlHandle handle;
  if (idle_.empty()) {
    handle.reset(curl_easy_init());
    SLUICE_CHECK(handle != nullptr, "out of memory");
  } else {
    handle = std::move(idle_.back());
    idle_.pop_back();
  }
  OpenAiTransfer* const running = transfer.release();
  running->Prepare(std::move(handle));
  transfers_.emplace(running->deadline(), running);
  if (running->slow()) slow_.insert(running);
  curl_multi_add_handle(multi_, running->handle());
}

int OpenAiTarget::WaitMs() const {
  MonoTime next = transfers_.empty() ? curl_timer_ : std::min(curl_timer_, transfers_.begin()->first);
  for (const OpenAiTransfer* transfer : slow_) next = std::min(next, transfer->next_read());
  if (next == kInfiniteFuture) return -1;
  const Duration left = next - setup_.clock.Now();
  if (left.count() <= 0) return 0;
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::min<int64_t>(ms, INT_MAX));
}

void OpenAiTarget::Drive(const epoll_event& event) {
  if (event.data.fd == wake_) {
    uint64_t count = 0;
    (void)!read(wake_, &count, sizeof(count));
    return;
  }
  int what = 0, running = 0;
  if ((event.events & EPOLLIN) != 0) what |= CURL_CSELECT_IN;
  if ((event.events & EPOLLOUT) != 0) what |= CURL_CSELECT_OUT;
  if ((event.events & (EPOLLERR | EPOLLHUP)) != 0) what |= CURL_CSELECT_IN | CURL_CSELECT_ERR;
  curl_multi_socket_action(multi_, event.data.fd, what, &running);
}

void OpenAiTarget::TakeMessages() {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    char* transfer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
    auto* const running = reinterpret_cast<OpenAiTransfer*>(transfer);
    running->OnOver(message->data.result);
    if (running->finished()) Settle(running);
  }
}

void OpenAiTarget::RunTimers() {
  const MonoTime now = setup_.clock.Now();
  while (!transfers_.empty() && transfers_.begin()->first <= now) {
    OpenAiTransfer* const late = transfers_.begin()->second;
    late->TimeOut();
    Settle(late);
  }
  for (auto it = slow_.begin(); it != slow_.end();) {
    OpenAiTransfer* const reader = *it++;
    if (reader->next_read() > now) continue;
    reader->ReadOn();
    if (reader->finished()) Settle(reader);
  }
}

void OpenAiTarget::Settle(OpenAiTransfer* transfer) {
  curl_multi_remove_handle(multi_, transfer->handle());
  transfers_.erase({transfer->deadline(), transfer});
  slow_.erase(transfer);
  auto [handle, done] = transfer->Finish();
  delete transfer;
  if (idle_.size() < kMaxIdleHandles) idle_.push_back(std::move(handle));
  done();
}

}  // namespace

std::unique_ptr<Target> MakeOpenAiTarget(const TargetOptions& options, EventLoop& /*loop*/, const Clock& clock,
                                         MonoTime epoch) {
  return std::make_unique<OpenAiTarget>(options, clock, epoch);
}

}  // namespace sluice::loadtest
