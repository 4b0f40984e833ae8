// The run's file: one JSON object a line, each with "type": run, block, request, resource, fault, end. Written as
// things happen, so that an interrupted run keeps what it had.
#pragma once

#include <cstdio>
#include <string>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "loadtest/record.h"

namespace sluice::loadtest {

std::string ToLine(const Record& record);

// Thread-safe; each call writes one line through stdio's buffer.
class RunWriter {
 public:
  // Creates the file. PERMISSION_DENIED or NOT_FOUND with the path.
  static absl::StatusOr<std::unique_ptr<RunWriter>> Open(const std::string& path);
  ~RunWriter();

  void Begin(const Run& run);  // environment and scenario
  void Add(const Record& record);
  void Add(const BlockSample& block);
  void Add(const ResourceSample& sample);
  void Add(const FaultEvent& event);
  void End(const std::string& how);  // "complete", or what interrupted it
  absl::Status Flush();
  // An error of writing (a full disk), if there was one.
  absl::Status status() const;

 private:
  explicit RunWriter(std::FILE* file, std::string path) : file_(file), path_(std::move(path)) {}
  void Write(const std::string& line);

  mutable Mutex mutex_;
  std::FILE* file_ ABSL_GUARDED_BY(mutex_);
  const std::string path_;
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;
};

// INVALID_ARGUMENT naming file and line.
absl::StatusOr<Run> ReadRun(const std::string& path);

}  // namespace sluice::loadtest
