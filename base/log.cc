#include "base/log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <cstdio>
#include <memory>

#include "base/strings.h"

namespace sluice {
namespace {

constexpr size_t kMaxLineBytes = 8 * 1024;
constexpr size_t kMaxBodyBytes = kMaxLineBytes - 64;  // leaves room for the time stamp and the closing marker

struct Sink {
  LogFormat format = LogFormat::kText;
  std::unique_ptr<spdlog::logger> logger;
};

void Configure(Sink& sink, LogFormat format, LogLevel level) {
  // spdlog stamps the time (RFC 3339, UTC, milliseconds), locks and writes; the rest of the line is made below.
  const std::string stamp = "%Y-%m-%dT%H:%M:%S.%eZ";
  const std::string pattern = format == LogFormat::kJson ? "{\"ts\":\"" + stamp + "\",%v" : stamp + " %v";
  sink.format = format;
  sink.logger = std::make_unique<spdlog::logger>("sluice", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  sink.logger->set_formatter(
      std::make_unique<spdlog::pattern_formatter>(pattern, spdlog::pattern_time_type::utc, "\n"));
  sink.logger->set_level(static_cast<spdlog::level::level_enum>(SPDLOG_LEVEL_DEBUG + static_cast<int>(level)));
}

// Never destroyed: threads may still log while the process exits.
Sink& ProcessSink() {
  static Sink* const sink = [] {
    auto* made = new Sink;
    Configure(*made, LogFormat::kText, LogLevel::kInfo);
    return made;
  }();
  return *sink;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

// Appends `s` with control characters (and, if asked, quotes and backslashes) escaped as in JSON; malformed UTF-8
// becomes U+FFFD. Stops before a character that would pass the limit of a line; returns whether all of it fitted.
bool AppendEscaped(std::string& out, std::string_view s, bool quoted) {
  const bool too_long = s.size() > kMaxLineBytes;
  if (too_long) s = s.substr(0, CompleteUtf8Prefix(s.substr(0, kMaxLineBytes)));
  const std::string text = ReplaceInvalidUtf8(s);
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t length = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    std::string escaped = text.substr(i, length);
    if (c == '\n') {
      escaped = "\\n";
    } else if (c < 0x20 || c == 0x7F) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\u%04x", c);
      escaped = hex;
    } else if (quoted && (c == '"' || c == '\\')) {
      escaped.insert(0, 1, '\\');
    }
    if (out.size() + escaped.size() > kMaxBodyBytes) return false;
    out += escaped;
    i += length;
  }
  return !too_long;
}

bool AppendQuoted(std::string& out, std::string_view s) {
  out += '"';
  const bool whole = AppendEscaped(out, s, /*quoted=*/true);
  out += '"';
  return whole;
}

// JSON has no NaN, no infinity, no hex and no leading '+' or zeros; such a `raw` value is written as a string.
bool IsJsonScalar(std::string_view s) {
  if (s == "true" || s == "false" || s == "null") return true;
  size_t i = 0;
  const auto digits = [&] {
    const size_t from = i;
    while (i < s.size() && s[i] >= '0' && s[i] <= '9') ++i;
    return i - from;
  };
  if (i < s.size() && s[i] == '-') ++i;
  const size_t first = i;
  const size_t whole = digits();
  if (whole == 0 || (whole > 1 && s[first] == '0')) return false;
  if (i < s.size() && s[i] == '.' && (++i, digits() == 0)) return false;
  if (i < s.size() && (s[i] == 'e' || s[i] == 'E')) {
    ++i;
    if (i < s.size() && (s[i] == '+' || s[i] == '-')) ++i;
    if (digits() == 0) return false;
  }
  return i == s.size();
}

bool NeedsQuotes(std::string_view s) { return s.empty() || s.find_first_of(" =\"\\") != std::string_view::npos; }

// Appends one field; false when it was cut or, if not even its key fitted, left out.
bool AppendField(std::string& out, const LogField& field, bool json) {
  const size_t mark = out.size();
  out += json ? "," : " ";
  bool whole = json ? AppendQuoted(out, field.key) : AppendEscaped(out, field.key, /*quoted=*/true);
  out += json ? ':' : '=';
  const bool bare = field.raw && field.value.size() <= 64 && IsJsonScalar(field.value);
  if (!whole || out.size() + 2 + (bare ? field.value.size() : 0) > kMaxBodyBytes) {
    out.resize(mark);
    return false;
  }
  if (bare) {
    out += field.value;
    return true;
  }
  return json || NeedsQuotes(field.value) ? AppendQuoted(out, field.value)
                                          : AppendEscaped(out, field.value, /*quoted=*/true);
}

}  // namespace

void InitLogging(LogFormat format, LogLevel level) { Configure(ProcessSink(), format, level); }

void Log(LogLevel level, std::string_view message, const std::vector<LogField>& fields) {
  Sink& sink = ProcessSink();
  const auto spd_level = static_cast<spdlog::level::level_enum>(SPDLOG_LEVEL_DEBUG + static_cast<int>(level));
  if (!sink.logger->should_log(spd_level)) return;
  const bool json = sink.format == LogFormat::kJson;
  std::string body;
  body += json ? "\"level\":\"" : "";
  body += LevelName(level);
  body += json ? "\",\"msg\":" : " ";
  bool whole = json ? AppendQuoted(body, message) : AppendEscaped(body, message, /*quoted=*/false);
  for (const LogField& field : fields) whole = whole && AppendField(body, field, json);
  if (!whole) body += json ? ",\"cut\":true" : " cut=true";
  if (json) body += '}';
  sink.logger->log(spd_level, spdlog::string_view_t(body.data(), body.size()));
}

}  // namespace sluice
