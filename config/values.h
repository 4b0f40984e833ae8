// Text → typed value, strictly, with words for what is wrong. Pure; used for YAML and environment alike.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace sluice::config {

// Either a value, or `what` is wrong with the text.
template <typename T>
struct Parsed {
  std::optional<T> value;
  std::string what;
};

// Quoted for a message: printable, at most 64 bytes of it.
std::string Quote(std::string_view text);

// Decimal digits with an optional minus; nothing else.
Parsed<int64_t> ParseInteger(std::string_view text, int64_t min, int64_t max);
Parsed<double> ParseNumber(std::string_view text, double min, double max);  // finite
// true/yes/on, false/no/off in any case; `digits`: 1 and 0 as well (environment).
Parsed<bool> ParseBool(std::string_view text, bool digits);
// Percent 0..100 with at most two decimals → basis points, without floating point: "33.33" → 3333.
Parsed<uint32_t> ParsePercentAsBps(std::string_view text);
// RFC 3339 with seconds and an offset, of 1970 or later: "2026-01-31T23:59:59Z", "2026-01-31T23:59:59.5+02:00".
Parsed<WallTime> ParseTimestamp(std::string_view text);
// Text without control characters, at most `max_bytes`.
Parsed<std::string> ParseText(std::string_view text, size_t max_bytes);
// What may become a metric label or a log field: 1..128 of A-Z a-z 0-9 . _ : / @ + -
Parsed<std::string> ParseName(std::string_view text);
// The name of a header that flags may look at: lower case, not binary, carries no secret.
Parsed<std::string> ParseHeaderName(std::string_view text);
// host:port or [IPv6]:port; port 0 = any free one.
Parsed<std::string> ParseAddress(std::string_view text);
// What gRPC can listen on: that, or unix:/absolute/path (at most 107 bytes, as the kernel takes it).
Parsed<std::string> ParseGrpcAddress(std::string_view text);

// True for 127.0.0.0/8, ::1, localhost and unix sockets: no other machine gets there. Requires: ParseGrpcAddress
// accepts it.
bool IsLoopback(std::string_view address);

// "maxConcurrentStreams" → "MAX_CONCURRENT_STREAMS", "server.grpc_address" → "SERVER_GRPC_ADDRESS".
std::string ScreamingCase(std::string_view key);

// The candidate that `name` was probably meant to be: few edits away, ignoring case and underscores.
std::optional<std::string> NearestName(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace sluice::config
