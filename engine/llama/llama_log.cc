#include "engine/llama/llama_log.h"

#include <mutex>
#include <string_view>

#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "engine/llama/llama_backend.h"
#include "llama.h"
#include "log.h"

namespace sluice::engine {
namespace {

constexpr size_t kMaxPending = 4096;

thread_local std::string* captured = nullptr;
thread_local std::string pending;  // libllama may send a line in pieces
thread_local ggml_log_level pending_level = GGML_LOG_LEVEL_INFO;

// "llama_model_load: error loading model: ..." without the function's name and the common lead-ins.
std::string_view StripLeadIns(std::string_view line) {
  const size_t colon = line.find(": ");
  if (colon != std::string_view::npos && line.substr(0, colon).find(' ') == std::string_view::npos) {
    line.remove_prefix(colon + 2);
  }
  for (std::string_view lead_in : {"error loading model: ", "failed to initialize the context: "}) {
    if (line.substr(0, lead_in.size()) == lead_in) line.remove_prefix(lead_in.size());
  }
  return line;
}

void OnLine(ggml_log_level level, const std::string& raw) {
  if (raw.empty()) return;
  const std::string line = ReplaceInvalidUtf8(raw);  // names from a hostile file
  if (level == GGML_LOG_LEVEL_ERROR && captured != nullptr) {
    if (captured->empty()) *captured = StripLeadIns(line);
    Log(LogLevel::kDebug, "libllama: " + line);
  } else if (level == GGML_LOG_LEVEL_ERROR) {
    LogError("libllama: " + line);
  } else if (level == GGML_LOG_LEVEL_WARN) {
    LogWarning("libllama: " + line);
  } else {
    Log(LogLevel::kDebug, "libllama: " + line);
  }
}

// Called from C: nothing may be thrown out of here.
void LogCallback(ggml_log_level level, const char* text, void*) try {
  if (level != GGML_LOG_LEVEL_CONT) pending_level = level;
  pending += text;
  size_t end;
  while ((end = pending.find('\n')) != std::string::npos) {
    OnLine(pending_level, pending.substr(0, end));
    pending.erase(0, end + 1);
  }
  if (pending.size() > kMaxPending) pending.clear();
} catch (...) {
}

}  // namespace

LlamaErrorCapture::LlamaErrorCapture() {
  SLUICE_CHECK(captured == nullptr, "captures do not nest");
  captured = &first_;
}

LlamaErrorCapture::~LlamaErrorCapture() { captured = nullptr; }

void InitLlamaRuntime() {
  static std::once_flag once;  // libllama's log sink and backend registry are process-wide
  std::call_once(once, [] {
    llama_log_set(&LogCallback, nullptr);
    common_log_set_verbosity_thold(-1);  // llama-common has a logger of its own, which writes to stderr
    llama_backend_init();
  });
}

}  // namespace sluice::engine
