// Evidence of a rollout for people: as text, and as one self-contained page with plots.
#pragma once

#include <string>
#include <vector>

#include "nlohmann/json_fwd.hpp"

namespace sluice::cli {

// `evidence`: documents of rollout/evidence.h. Fields that are missing are left out.
std::string EvidenceText(const nlohmann::json& evidence);
// The newest first; ratio and e-value of each check over time, the limits, the numbers at the move.
std::string EvidencePage(const std::string& flag, const std::vector<nlohmann::json>& evidence);

}  // namespace sluice::cli
