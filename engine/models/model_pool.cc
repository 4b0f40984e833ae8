#include "engine/models/model_pool.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/machine_limits.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread_name.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace sluice::engine {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxEntries = 64;
constexpr size_t kMaxWaiters = 1024;
constexpr char kSynthetic[] = "synthetic:";

bool IsSynthetic(const ModelSpec& spec) { return spec.path.starts_with(kSynthetic); }

uint64_t FootprintBytes(const LoadedModel& m) {
  return m.facts().weight_bytes + m.facts().kv_bytes_per_token * static_cast<uint64_t>(m.geometry().slots) *
                                      static_cast<uint64_t>(m.geometry().slot_context);
}

}  // namespace

std::string_view ModelStateName(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
      return "unloaded";
    case ModelState::kLoading:
      return "loading";
    case ModelState::kReady:
      return "ready";
    case ModelState::kUnloading:
      return "unloading";
    case ModelState::kFailed:
      return "failed";
  }
  return "failed";
}

struct ModelPool::Impl {
  struct Waiter {
    MonoTime deadline;
    LoadCallback ready;
  };
  struct Entry {
    ModelSpec spec;
    ModelState state = ModelState::kUnloaded;
    absl::Status error;
    std::shared_ptr<const LoadedModel> model;  // the pool's own reference; handles are copies of it
    std::vector<Waiter> waiters;
    MonoTime last_used{};
    int in_use() const { return model == nullptr ? 0 : static_cast<int>(model.use_count()) - 1; }
    bool idle() const { return state == ModelState::kReady && !spec.pinned && in_use() == 0; }
  };

  Entry* Find(std::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  absl::Status NotFound(std::string_view name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  absl::StatusOr<ModelHandle> Use(Entry& e) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  absl::Status CheckRoots(const std::string& path) const;
  void Run();
  void LoadNow(const std::string& name);
  absl::StatusOr<std::shared_ptr<const LoadedModel>> Build(const ModelSpec& spec);
  // Unloads the idle entries that `choose` picks; destroys the models outside the lock. Their names.
  std::vector<std::string> UnloadWhere(const std::function<bool(const Entry&, MonoTime now)>& choose)
      ABSL_LOCKS_EXCLUDED(mu);
  // Takes idle, unpinned models out, least recently used first, until `count` and `bytes` more fit; destroys them
  // outside the lock. RESOURCE_EXHAUSTED when that is not enough.
  absl::Status MakeRoom(const std::string& for_name, uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu);

  ModelPoolOptions options;
  BackendFactory make_backend;
  SchedulerFactory make_scheduler;
  FileProbe probe;
  const Clock& clock;
  uint64_t budget = 0;

  mutable Mutex mu;  // never held while loading, destroying a model, or calling back
  CondVar work;
  bool stopping ABSL_GUARDED_BY(mu) = false;
  std::vector<std::unique_ptr<Entry>> entries ABSL_GUARDED_BY(mu);  // at most kMaxEntries, never erased
  std::deque<std::string> jobs ABSL_GUARDED_BY(mu);                 // names to load; each at most once
  std::thread loader;
};

ModelPool::ModelPool(ModelPoolOptions options, BackendFactory make_backend, SchedulerFactory make_scheduler,
                     FileProbe probe, const Clock& clock)
    : impl_(new Impl{.options = std::move(options),
                     .make_backend = std::move(make_backend),
                     .make_scheduler = std::move(make_scheduler),
                     .probe = std::move(probe),
                     .clock = clock}) {
  impl_->budget =
      impl_->options.memory_budget_bytes > 0 ? impl_->options.memory_budget_bytes : MemoryLimitBytes() / 5 * 4;
  {
    MutexLock lock(impl_->mu);
    for (const ModelSpec& spec : impl_->options.models) {
      auto entry = std::make_unique<Impl::Entry>();
      entry->spec = spec;
      if (spec.preload) {
        entry->state = ModelState::kLoading;
        impl_->jobs.push_back(spec.name);
      }
      impl_->entries.push_back(std::move(entry));
    }
  }
  impl_->loader = std::thread([impl = impl_.get()] { impl->Run(); });
}

ModelPool::~ModelPool() {
  {
    MutexLock lock(impl_->mu);
    impl_->stopping = true;
  }
  impl_->work.Signal();
  impl_->loader.join();
  // Engine threads end here, while the pool still owns its models: a request's handle that is dropped later, even by
  // a stream's last callback, then never destroys a running engine from within.
  for (const ModelHandle& model : Loaded()) model->scheduler().Stop();
}

ModelPool::Impl::Entry* ModelPool::Impl::Find(std::string_view name) {
  if (name.empty()) return entries.empty() ? nullptr : entries.front().get();
  for (const auto& e : entries) {
    if (e->spec.name == name) return e.get();
  }
  return nullptr;
}

absl::Status ModelPool::Impl::NotFound(std::string_view name) const {
  std::vector<std::string> names;
  for (const auto& e : entries) names.push_back(e->spec.name);
  return MakeError(Reason::kModelNotFound,
                   names.empty() ? fmt::format("there is no model '{}': none is configured", name)
                                 : fmt::format("there is no model '{}'; there are: {}", name, fmt::join(names, ", ")));
}

absl::StatusOr<ModelHandle> ModelPool::Impl::Use(Entry& e) {
  if (e.state == ModelState::kReady) {
    e.last_used = clock.Now();
    return e.model;
  }
  if (e.state == ModelState::kFailed) {
    return MakeError(Reason::kModelFailed,
                     fmt::format("model '{}' failed to load: {}", e.spec.name, std::string(e.error.message())));
  }
  const bool loading = e.state == ModelState::kLoading;
  return MakeError(loading ? Reason::kModelLoading : Reason::kModelNotLoaded,
                   fmt::format("model '{}' is {}", e.spec.name, ModelStateName(e.state)),
                   {.retry_after = std::chrono::seconds(1)});
}

absl::StatusOr<ModelHandle> ModelPool::Acquire(std::string_view name) const {
  MutexLock lock(impl_->mu);
  Impl::Entry* e = impl_->Find(name);
  if (e == nullptr) return impl_->NotFound(name);
  return impl_->Use(*e);
}

void ModelPool::AcquireOrLoad(std::string_view name, MonoTime deadline, LoadCallback ready) {
  absl::StatusOr<ModelHandle> answer;
  {
    MutexLock lock(impl_->mu);
    Impl::Entry* e = impl_->Find(name);
    const bool waits = e != nullptr && (e->state == ModelState::kLoading || e->state == ModelState::kUnloaded) &&
                       !impl_->stopping && e->waiters.size() < kMaxWaiters;
    if (waits) {
      e->waiters.push_back({deadline, std::move(ready)});
      if (e->state == ModelState::kUnloaded) {
        e->state = ModelState::kLoading;
        impl_->jobs.push_back(e->spec.name);
        impl_->work.Signal();
      }
      return;
    }
    answer = e == nullptr ? impl_->NotFound(name) : impl_->Use(*e);
  }
  ready(std::move(answer));
}

absl::Status ModelPool::Impl::CheckRoots(const std::string& path) const {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error) {
    return MakeError(Reason::kModelFileNotFound, fmt::format("there is no model file '{}'", path));
  }
  for (const std::string& root : options.model_roots) {
    const fs::path base = fs::canonical(root, error);
    if (error) continue;
    const auto [end, ignored] = std::mismatch(base.begin(), base.end(), real.begin(), real.end());
    if (end == base.end()) return absl::OkStatus();
  }
  return MakeError(Reason::kModelPathNotAllowed,
                   options.model_roots.empty()
                       ? std::string("loading by path is off: model_roots is empty")
                       : fmt::format("'{}' is outside model_roots ({})", path, fmt::join(options.model_roots, ", ")));
}

void ModelPool::Load(std::string name, std::string path, bool pin, LoadCallback done) {
  absl::Status refused = path.empty() ? absl::OkStatus() : impl_->CheckRoots(path);
  absl::StatusOr<ModelHandle> answer;
  {
    MutexLock lock(impl_->mu);
    Impl::Entry* e = impl_->Find(name);
    if (refused.ok() && e == nullptr) {
      if (path.empty()) {
        refused = impl_->NotFound(name);
      } else if (impl_->entries.size() >= kMaxEntries) {
        refused = absl::ResourceExhaustedError(
            fmt::format("{} models are known already, the most there can be", kMaxEntries));
      } else {
        impl_->entries.push_back(std::make_unique<Impl::Entry>());
        e = impl_->entries.back().get();
        e->spec = {.name = name, .path = path, .geometry = impl_->options.default_geometry, .preload = false};
      }
    }
    const bool resting = e != nullptr && (e->state == ModelState::kUnloaded || e->state == ModelState::kFailed);
    if (refused.ok() && !path.empty() && path != e->spec.path) {
      if (resting) {
        e->spec.path = path;
      } else {
        refused = MakeError(Reason::kModelAlreadyLoaded,
                            fmt::format("model '{}' is {} from '{}'; unload it before loading another file", name,
                                        ModelStateName(e->state), e->spec.path));
      }
    }
    if (refused.ok()) {
      e->spec.pinned |= pin;
      if (resting) {
        e->state = ModelState::kLoading;
        impl_->jobs.push_back(e->spec.name);
      }
      if (e->state == ModelState::kLoading) {
        e->waiters.push_back({kInfiniteFuture, std::move(done)});
        impl_->work.Signal();
        return;
      }
      answer = impl_->Use(*e);
    } else {
      answer = refused;
    }
  }
  done(std::move(answer));
}

void ModelPool::Impl::Run() {
  NameThisThread(kLoaderThread);
  for (;;) {
    std::string name;
    {
      MutexLock lock(mu);
      while (jobs.empty() && !stopping) work.Wait(mu);
      if (stopping) break;
      name = std::move(jobs.front());
      jobs.pop_front();
    }
    LoadNow(name);
  }
  std::vector<Waiter> left;
  {
    MutexLock lock(mu);
    for (const auto& e : entries) {
      for (Waiter& w : e->waiters) left.push_back(std::move(w));
      e->waiters.clear();
    }
  }
  for (Waiter& w : left) w.ready(MakeError(Reason::kDraining, "the server is stopping"));
}

void ModelPool::Impl::LoadNow(const std::string& name) {
  ModelSpec spec;
  {
    MutexLock lock(mu);
    spec = Find(name)->spec;
  }
  const MonoTime start = clock.Now();
  LogInfo("model loading", {{"model", name}, {"path", spec.path}});
  auto built = Build(spec);
  std::vector<Waiter> waiters;
  absl::StatusOr<ModelHandle> answer;
  {
    MutexLock lock(mu);
    Entry& e = *Find(name);
    if (built.ok()) {
      e.model = *built;
      e.state = ModelState::kReady;
      e.error = absl::OkStatus();
    } else {
      e.state = ModelState::kFailed;
      e.error = built.status();
    }
    waiters.swap(e.waiters);
    answer = built.ok() ? Use(e) : absl::StatusOr<ModelHandle>(built.status());
  }
  built = absl::UnknownError("moved");  // the pool and the handles alone hold the model
  if (answer.ok()) {
    LogInfo("model ready", {{"model", name},
                            {"description", (*answer)->facts().description},
                            {"bytes", std::to_string(FootprintBytes(**answer)), true},
                            {"load_ms", fmt::format("{:.0f}", ToMillis(clock.Now() - start)), true}});
  } else {
    LogError("model failed", {{"model", name}, {"error", std::string(answer.status().message())}});
  }
  // The last one gets the handle itself, so that whoever is told may unload the model next.
  for (size_t i = 0; i + 1 < waiters.size(); ++i) waiters[i].ready(answer);
  if (!waiters.empty()) waiters.back().ready(std::move(answer));
}

absl::StatusOr<std::shared_ptr<const LoadedModel>> ModelPool::Impl::Build(const ModelSpec& spec) {
  uint64_t file_bytes = 0;
  if (!IsSynthetic(spec)) {
    SLUICE_RETURN_IF_ERROR(probe(spec.path));
    std::error_code ignored;
    file_bytes = fs::file_size(spec.path, ignored);
  }
  SLUICE_RETURN_IF_ERROR(MakeRoom(spec.name, file_bytes));
  SLUICE_ASSIGN_OR_RETURN(auto backend, make_backend(spec));
  auto model = std::make_shared<const LoadedModel>(spec, make_scheduler(spec, std::move(backend)));
  // Now the KV cache is known as well; what does not fit goes again.
  SLUICE_RETURN_IF_ERROR(MakeRoom(spec.name, FootprintBytes(*model)));
  return model;
}

absl::Status ModelPool::Impl::MakeRoom(const std::string& for_name, uint64_t bytes) {
  std::vector<std::shared_ptr<const LoadedModel>> evicted;  // destroyed at return, outside the lock
  MutexLock lock(mu);
  for (;;) {
    int loaded = 0;
    uint64_t used = bytes;
    Entry* victim = nullptr;
    for (const auto& e : entries) {
      if (e->model == nullptr) continue;
      ++loaded;
      used += FootprintBytes(*e->model);
      const bool idle = !e->spec.pinned && e->in_use() == 0;
      if (idle && (victim == nullptr || e->last_used < victim->last_used)) victim = e.get();
    }
    if (loaded < options.max_models && used <= budget) return absl::OkStatus();
    if (victim == nullptr) {
      return MakeError(
          Reason::kNoRoomForModel,
          fmt::format(
              "no room for model '{}' ({} MiB): {} of {} models are loaded, {} of {} MiB would be used, and all "
              "are pinned or in use",
              for_name, bytes >> 20, loaded, options.max_models, used >> 20, budget >> 20));
    }
    LogInfo("model evicted", {{"model", victim->spec.name}, {"for", for_name}});
    evicted.push_back(std::move(victim->model));
    victim->model = nullptr;
    victim->state = ModelState::kUnloaded;
  }
}

absl::Status ModelPool::Unload(std::string_view name) {
  std::shared_ptr<const LoadedModel> gone;  // destroyed outside the lock
  {
    MutexLock lock(impl_->mu);
    Impl::Entry* e = name.empty() ? nullptr : impl_->Find(name);
    if (e == nullptr) return impl_->NotFound(name);
    if (e->spec.pinned) {
      return MakeError(Reason::kModelPinned, fmt::format("model '{}' is pinned", name));
    }
    if (e->state == ModelState::kLoading) {
      return MakeError(Reason::kModelInUse, fmt::format("model '{}' is loading", name));
    }
    if (const int users = e->in_use(); users > 0) {
      return MakeError(Reason::kModelInUse, fmt::format("model '{}' is used by {} running requests", name, users));
    }
    gone = std::move(e->model);
    e->model = nullptr;
    e->state = ModelState::kUnloaded;
  }
  return absl::OkStatus();
}

std::vector<std::string> ModelPool::Impl::UnloadWhere(const std::function<bool(const Entry&, MonoTime now)>& choose) {
  std::vector<std::string> names;
  std::vector<std::shared_ptr<const LoadedModel>> gone;  // destroyed outside the lock
  {
    MutexLock lock(mu);
    const MonoTime now = clock.Now();
    for (const auto& e : entries) {
      if (e->in_use() > 0) e->last_used = now;
      if (!e->idle() || !choose(*e, now)) continue;
      names.push_back(e->spec.name);
      gone.push_back(std::move(e->model));
      e->model = nullptr;
      e->state = ModelState::kUnloaded;
    }
  }
  for (const std::string& name : names) LogInfo("idle model unloaded", {{"model", name}});
  return names;
}

std::vector<std::string> ModelPool::UnloadIdle(Duration idle_for, bool default_too) {
  const std::string first = impl_->options.models.empty() ? "" : impl_->options.models.front().name;
  return impl_->UnloadWhere([&](const Impl::Entry& e, MonoTime now) {
    return now - e.last_used >= idle_for && (default_too || e.spec.name != first);
  });
}

absl::Status ModelPool::Pin(std::string_view name, bool pinned) {
  MutexLock lock(impl_->mu);
  Impl::Entry* e = name.empty() ? nullptr : impl_->Find(name);
  if (e == nullptr) return impl_->NotFound(name);
  e->spec.pinned = pinned;
  return absl::OkStatus();
}

std::vector<ModelInfo> ModelPool::List() const {
  MutexLock lock(impl_->mu);
  std::vector<ModelInfo> list;
  for (const auto& e : impl_->entries) {
    ModelInfo info{
        .spec = e->spec, .state = e->state, .error = e->error, .is_default = list.empty(), .in_use = e->in_use()};
    if (e->model != nullptr) {
      info.facts = e->model->facts();
      info.has_chat_template = e->model->tokenizer().has_chat_template();
      info.kv_bytes = FootprintBytes(*e->model) - e->model->facts().weight_bytes;
    }
    list.push_back(std::move(info));
  }
  return list;
}

std::vector<ModelHandle> ModelPool::Loaded() const {
  MutexLock lock(impl_->mu);
  std::vector<ModelHandle> loaded;
  for (const auto& e : impl_->entries) {
    if (e->model != nullptr) loaded.push_back(e->model);
  }
  return loaded;
}

void ModelPool::Tick() {
  impl_->UnloadWhere([](const Impl::Entry& e, MonoTime now) {
    return e.spec.idle_timeout > Duration::zero() && now - e.last_used >= e.spec.idle_timeout;
  });
  std::vector<LoadCallback> expired;
  {
    MutexLock lock(impl_->mu);
    const MonoTime now = impl_->clock.Now();
    for (const auto& e : impl_->entries) {
      std::erase_if(e->waiters, [&](Impl::Waiter& w) {
        if (now < w.deadline) return false;
        expired.push_back(std::move(w.ready));
        return true;
      });
    }
  }
  for (LoadCallback& ready : expired) {
    ready(MakeError(Reason::kDeadlineInQueue, "the deadline passed while the model was loading"));
  }
}

}  // namespace sluice::engine
