// Logging: one process-wide sink (stderr), set once by main; JSON or text. Messages are for operators; prompts
// and generated text are never logged.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Structured fields of one line. Values are written as JSON strings, or bare when `raw` (numbers, booleans).
struct LogField {
  std::string key, value;
  bool raw = false;
};

// Not thread-safe: call once, before other threads exist.
void InitLogging(LogFormat format, LogLevel level);

// Thread-safe. Lines longer than 8 KiB are cut.
void Log(LogLevel level, std::string_view message, const std::vector<LogField>& fields = {});

inline void LogInfo(std::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(std::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(std::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kError, message, fields);
}

}  // namespace sluice
