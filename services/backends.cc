#include "services/backends.h"

#include <charconv>
#include <thread>

#include "base/machine_limits.h"
#include "engine/llama/llama_backend.h"
#include "fmt/format.h"

namespace sluice::services {
namespace {

constexpr std::string_view kSyntheticPrefix = "synthetic:";

}  // namespace

absl::StatusOr<engine::SyntheticOptions> ParseSynthetic(const std::string& path) {
  engine::SyntheticOptions options;
  std::string_view rest = std::string_view(path).substr(kSyntheticPrefix.size());
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    const size_t equals = item.find('=');
    const std::string_view key = item.substr(0, equals);
    const std::string_view text = equals == std::string_view::npos ? std::string_view() : item.substr(equals + 1);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size() || value > 60'000'000) {
      return absl::InvalidArgumentError(
          fmt::format("'{}': '{}' needs a whole number from 0 to 60000000, got '{}'", path, key, text));
    }
    const Duration micros = std::chrono::microseconds(value);
    if (key == "step_us") {
      options.step_cost = micros;
    } else if (key == "decode_row_us") {
      options.decode_row_cost = micros;
    } else if (key == "prefill_row_us") {
      options.prefill_row_cost = micros;
    } else if (key == "natural_length") {
      options.natural_length_max = static_cast<int>(value);
    } else if (key == "seed") {
      options.seed = value;
    } else {
      return absl::InvalidArgumentError(fmt::format(
          "'{}': unknown key '{}'; there are step_us, decode_row_us, prefill_row_us, natural_length, seed", path, key));
    }
  }
  return options;
}

engine::BackendFactory MakeBackendFactory(int max_batch_tokens) {
  return [max_batch_tokens](const engine::ModelSpec& spec) -> absl::StatusOr<std::unique_ptr<engine::Backend>> {
    if (spec.path.starts_with(kSyntheticPrefix)) {
      auto options = ParseSynthetic(spec.path);
      if (!options.ok()) return options.status();
      options->geometry = spec.geometry;
      options->max_batch_tokens = max_batch_tokens;
      return std::make_unique<engine::SyntheticBackend>(*options, [](Duration d) { std::this_thread::sleep_for(d); });
    }
    return engine::LoadLlamaBackend({.path = spec.path,
                                     .geometry = spec.geometry,
                                     .threads = spec.threads > 0 ? spec.threads : UsableCpus(),
                                     .max_batch_tokens = max_batch_tokens});
  };
}

}  // namespace sluice::services
