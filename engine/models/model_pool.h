// The models of this process: names, files, states; load, unload, pin, list; who may use which.
// Loading never blocks serving; a model in use is never unloaded.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/backend/backend.h"
#include "engine/scheduler/scheduler.h"

namespace sluice::engine {

struct ModelSpec {
  std::string name;
  std::string path;  // GGUF file, or "synthetic:" for the synthetic backend
  KvGeometry geometry;
  int threads = 0;                           // compute threads; 0 = min(affinity, cgroup cpu.max)
  bool preload = true;                       // load at start
  bool pinned = false;                       // never evicted
  Duration idle_timeout = Duration::zero();  // unloaded when nobody has used it for this long; zero: never
};

// Transitions: unloaded → loading → ready | failed; ready → unloading → unloaded; failed → loading.
enum class ModelState { kUnloaded, kLoading, kReady, kUnloading, kFailed };
std::string_view ModelStateName(ModelState state);  // "unloaded", ...

// A loaded model: its engine. Held through ModelHandle while in use.
class LoadedModel {
 public:
  LoadedModel(ModelSpec spec, std::unique_ptr<Scheduler> scheduler)
      : spec_(std::move(spec)), scheduler_(std::move(scheduler)) {}
  const ModelSpec& spec() const { return spec_; }
  Scheduler& scheduler() const { return *scheduler_; }
  const Tokenizer& tokenizer() const { return scheduler_->backend().tokenizer(); }
  const ModelFacts& facts() const { return scheduler_->backend().facts(); }
  const KvGeometry& geometry() const { return scheduler_->backend().geometry(); }

 private:
  const ModelSpec spec_;
  const std::unique_ptr<Scheduler> scheduler_;
};

// A lease: the model is not unloaded while one exists. Copyable; hold it for one request, not longer.
using ModelHandle = std::shared_ptr<const LoadedModel>;

struct ModelPoolOptions {
  std::vector<ModelSpec> models;         // the first one is the default
  std::vector<std::string> model_roots;  // LoadModel by path only below these folders (symlinks resolved)
  int max_models = 3;                    // loaded at the same time (model_cache.maxModels)
  uint64_t memory_budget_bytes = 0;      // weights + KV of all loaded models; 0: 80 % of the memory limit
  KvGeometry default_geometry;           // for models loaded by path
};

// Makes a backend for a spec; blocks while loading. Injected: engine/llama in the server, others in tests.
using BackendFactory = std::function<absl::StatusOr<std::unique_ptr<Backend>>(const ModelSpec&)>;
// Wraps a backend into its engine.
using SchedulerFactory = std::function<std::unique_ptr<Scheduler>(const ModelSpec&, std::unique_ptr<Backend>)>;
// Judges an unseen file before it is loaded (child process under limits); OK when fit.
using FileProbe = std::function<absl::Status(const std::string& path)>;

struct ModelInfo {
  ModelSpec spec;
  ModelState state = ModelState::kUnloaded;
  absl::Status error;  // why the last load failed
  bool is_default = false;
  int in_use = 0;                   // handles out
  std::optional<ModelFacts> facts;  // when ready
  bool has_chat_template = false;
  uint64_t kv_bytes = 0;
};

// Thread-safety: thread-safe. Owns a loader thread.
class ModelPool {
 public:
  ModelPool(ModelPoolOptions options, BackendFactory make_backend, SchedulerFactory make_scheduler, FileProbe probe,
            const Clock& clock);
  ~ModelPool();  // stops every engine: running streams end with UNAVAILABLE

  using LoadCallback = absl::AnyInvocable<void(absl::StatusOr<ModelHandle>)>;

  // The model, if ready. NOT_FOUND (MODEL_NOT_FOUND, listing what exists); UNAVAILABLE (MODEL_LOADING /
  // MODEL_NOT_LOADED / MODEL_FAILED with the reason). Empty name: the default model. Never blocks.
  absl::StatusOr<ModelHandle> Acquire(std::string_view name) const;

  // As Acquire, but waits (by callback, never blocking) for a model that is loading, and starts the load of a
  // configured one that is not. `ready` runs once: inline, on the loader thread, or with DEADLINE_EXCEEDED from Tick.
  void AcquireOrLoad(std::string_view name, MonoTime deadline, LoadCallback ready);

  // Loads `name` (empty path: as configured; else a file below model_roots). `done` runs on the loader thread.
  void Load(std::string name, std::string path, bool pin, LoadCallback done);

  // FAILED_PRECONDITION (MODEL_IN_USE saying by how many, MODEL_PINNED); NOT_FOUND.
  absl::Status Unload(std::string_view name);
  // Unloads what is ready, not pinned, used by nobody now, nor within the last `idle_for`; the default model only when
  // asked. Returns their names. Blocks until their engines have ended.
  std::vector<std::string> UnloadIdle(Duration idle_for = Duration::zero(), bool default_too = false);
  absl::Status Pin(std::string_view name, bool pinned);

  std::vector<ModelInfo> List() const;      // configured ones first, in order
  std::vector<ModelHandle> Loaded() const;  // for status and metrics; drop the handles at once
  void Tick();                              // expires waiting acquires; unloads models whose idle timeout has passed

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::engine
