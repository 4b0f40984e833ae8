#include "services/ofrep/ofrep_handler.h"

#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/digest.h"
#include "base/status.h"
#include "base/strings.h"
#include "flags/flagd/strict_json.h"
#include "fmt/format.h"
#include "services/flag_answers.h"

namespace sluice::services {
namespace {

using nlohmann::json;

constexpr std::string_view kFlags = "evaluate/flags";

HttpResponse Json(int status, const json& body) {
  // Texts come from checked JSON and protobuf, so this cannot meet bytes that are no UTF-8; replaced if it ever does.
  return {status, {{"content-type", "application/json"}}, body.dump(-1, ' ', false, json::error_handler_t::replace)};
}

json ErrorBody(std::string_view key, std::string_view code, std::string_view details) {
  json body = {{"errorCode", code}, {"errorDetails", details}};
  if (!key.empty()) body["key"] = ReplaceInvalidUtf8(key);
  return body;
}

// %41 is A; nothing for what is no such escape.
std::optional<std::string> DecodePath(std::string_view path) {
  std::string decoded;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      decoded += path[i];
      continue;
    }
    unsigned byte = 0;
    if (path.size() - i < 3 || !absl::SimpleHexAtoi(ToAbsl(path.substr(i + 1, 2)), &byte)) return std::nullopt;
    decoded += static_cast<char>(byte);
    i += 2;
  }
  if (!IsValidUtf8(decoded)) return std::nullopt;
  return decoded;
}

// The context of the body; an empty body is an empty context.
absl::StatusOr<json> ReadContext(std::string_view body) {
  if (body.empty()) return json::object();
  SLUICE_ASSIGN_OR_RETURN(json document, flags::flagd::ParseStrictJson(body, {.max_bytes = kMaxOfrepBodyBytes}));
  if (!document.is_object()) return absl::InvalidArgumentError("the body is no object");
  const auto context = document.find("context");
  if (context == document.end()) return json::object();
  if (context->is_object()) return std::move(*context);
  return MakeError(Reason::kInvalidContext, "context is no object");
}

json Encode(const FlagAnswer& answer) {
  if (answer.error != FlagError::kNone) {
    json body = ErrorBody(answer.key, FlagErrorCode(answer.error), answer.message);
    body["metadata"] = answer.metadata;
    return body;
  }
  json body = {{"key", answer.key}, {"reason", answer.reason}, {"metadata", answer.metadata}};
  if (!answer.value.is_null()) body["value"] = answer.value;
  if (!answer.variant.empty()) body["variant"] = answer.variant;
  return body;
}

// Strong: of the bytes of the answer, which hold everything that the context and the flags changed in it.
std::string ETagOf(std::string_view body) { return fmt::format("\"{}\"", Sha256Hex(body).substr(0, 32)); }

bool Matches(std::string_view if_none_match, std::string_view etag) {
  for (absl::string_view part : absl::StrSplit(ToAbsl(if_none_match), ',')) {
    part = absl::StripAsciiWhitespace(part);
    absl::ConsumePrefix(&part, "W/");
    if (part == "*" || ToStd(part) == etag) return true;
  }
  return false;
}

HttpResponse AnswerOne(const flags::FlagSet& set, const std::string& key, const json& context, WallTime now) {
  const FlagAnswer answer = AnswerFlag(set, key, context, now);
  const int status = answer.error == FlagError::kNone ? 200 : answer.error == FlagError::kFlagNotFound ? 404 : 400;
  return Json(status, Encode(answer));
}

HttpResponse AnswerAll(const HttpRequest& request, const flags::FlagSet& set, const json& context, WallTime now) {
  json list = json::array();
  for (const FlagAnswer& answer : AnswerAllFlags(set, context, now)) list.push_back(Encode(answer));
  HttpResponse response = Json(200, {{"flags", std::move(list)}, {"metadata", json::object()}});
  const std::string etag = ETagOf(response.body);
  const auto known = request.headers.find("if-none-match");
  if (known != request.headers.end() && Matches(known->second, etag)) response = {.status = 304};
  response.headers["etag"] = etag;
  return response;
}

}  // namespace

HttpResponse HandleOfrep(const HttpRequest& request, const flags::FlagGate& gate, WallTime now) {
  std::string_view path = request.path;
  const bool ours = path.starts_with(kOfrepPrefix) && path.substr(kOfrepPrefix.size()).starts_with(kFlags);
  if (ours) path.remove_prefix(kOfrepPrefix.size() + kFlags.size());
  if (!ours || (!path.empty() && path[0] != '/')) return Json(404, ErrorBody("", "GENERAL", "there is no such path"));
  if (request.method != "POST") {
    HttpResponse response = Json(405, ErrorBody("", "GENERAL", "use POST"));
    response.headers["allow"] = "POST";
    return response;
  }
  if (!path.empty()) path.remove_prefix(1);
  const std::optional<std::string> key = DecodePath(path);
  if (!key.has_value()) return Json(400, ErrorBody("", "GENERAL", "the key in the path is not well encoded"));
  if (request.body.size() > kMaxOfrepBodyBytes) {
    return Json(413, ErrorBody(*key, "GENERAL", fmt::format("the body is larger than {} bytes", kMaxOfrepBodyBytes)));
  }
  const absl::StatusOr<json> context = ReadContext(request.body);
  if (!context.ok()) {
    const bool invalid = GetErrorDetails(context.status()).reason == Reason::kInvalidContext;
    return Json(400, ErrorBody(*key, invalid ? "INVALID_CONTEXT" : "PARSE_ERROR", ToStd(context.status().message())));
  }
  const auto set = gate.snapshot();
  if (key->empty()) return AnswerAll(request, *set, *context, now);
  if (set->Find(*key) == nullptr) gate.CountNotFound("ofrep");
  return AnswerOne(*set, *key, *context, now);
}

}  // namespace sluice::services
