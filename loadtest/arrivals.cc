#include "loadtest/arrivals.h"

#include <charconv>
#include <cmath>
#include <fstream>
#include <string>

#include "fmt/format.h"

namespace sluice::loadtest {
namespace {

Duration Seconds(double s) { return Duration(static_cast<int64_t>(s * 1e9)); }

// The time by which a linear ramp from r0 to r1 over `total` seconds has sent n requests: n = r0 t + (r1-r0) t²/(2T).
double RampTime(double r0, double r1, double total, double n) {
  const double a = (r1 - r0) / (2 * total);
  if (std::abs(a) < 1e-12) return n / r0;
  return (-r0 + std::sqrt(std::max(0.0, r0 * r0 + 4 * a * n))) / (2 * a);
}

std::vector<double> Gaps(const LoadSpec& load, size_t count, uint64_t seed) {
  const double shape = load.mode == LoadSpec::Mode::kPoisson ? 1 : load.burstiness;
  std::mt19937_64 random(seed);
  std::gamma_distribution<double> gap(shape, 1 / shape);
  std::vector<double> gaps(count);
  for (double& g : gaps) g = gap(random);
  return gaps;
}

}  // namespace

std::vector<Duration> Arrivals(const LoadSpec& load, double rate, Duration duration, int64_t count, uint64_t seed) {
  std::vector<Duration> times;
  if (load.mode == LoadSpec::Mode::kRamp) {
    const double total = ToSeconds(duration), all = (rate + load.rate_end) / 2 * total;
    for (int64_t i = 0; static_cast<double>(i) < all; ++i) {
      times.push_back(Seconds(RampTime(rate, load.rate_end, total, static_cast<double>(i))));
    }
    return times;
  }
  const auto n =
      static_cast<size_t>(count > 0 ? count : std::max<int64_t>(1, std::llround(rate * ToSeconds(duration))));
  if (load.mode == LoadSpec::Mode::kConstant) {
    for (size_t i = 0; i < n; ++i) times.push_back(Seconds(static_cast<double>(i) / rate));
    return times;
  }
  const std::vector<double> gaps = Gaps(load, n, seed);
  double sum = 0;
  for (const double g : gaps) sum += g;
  const double scale = static_cast<double>(n) / rate / sum;
  double at = 0;
  for (const double g : gaps) {
    at += g * scale;
    times.push_back(Seconds(at));
  }
  return times;
}

absl::StatusOr<std::vector<Duration>> ReadTrace(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::InvalidArgumentError("cannot read the trace file " + path);
  std::vector<Duration> times;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty() || line[0] == '#') continue;
    double seconds = -1;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), seconds);
    if (error != std::errc() || end != line.data() + line.size() || !(seconds >= 0) ||
        (!times.empty() && Seconds(seconds) < times.back())) {
      return absl::InvalidArgumentError(
          fmt::format("{}:{}: '{}'; each line is seconds from the start, ascending", path, number, line));
    }
    times.push_back(Seconds(seconds));
  }
  if (times.empty()) return absl::InvalidArgumentError(path + ": the trace is empty");
  return times;
}

}  // namespace sluice::loadtest
