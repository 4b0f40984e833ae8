#include "fmt/format.h"
#include "loadtest/kserve_target.h"
#include "loadtest/native_target.h"
#include "loadtest/openai_target.h"
#include "loadtest/target.h"

namespace sluice::loadtest {

absl::StatusOr<std::unique_ptr<Target>> MakeTarget(const TargetOptions& options, EventLoop& loop, const Clock& clock,
                                                   MonoTime epoch) {
  const std::string scheme = options.url.substr(0, options.url.find("://"));
  if (scheme == "grpc" || scheme == "grpcs") return MakeNativeTarget(options, loop, clock, epoch);
  if (scheme == "kserve" || scheme == "kserves") return MakeKserveTarget(options, loop, clock, epoch);
  if (scheme == "http" || scheme == "https") return MakeOpenAiTarget(options, loop, clock, epoch);
  return absl::InvalidArgumentError(
      fmt::format("'{}' is no target; there are grpc://HOST:PORT (Sluice), kserve://HOST:PORT (KServe v2, Triton), "
                  "http://HOST:PORT (OpenAI), and with TLS grpcs://, kserves://, https://",
                  options.url));
}

}  // namespace sluice::loadtest
