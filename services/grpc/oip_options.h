// What a request of the Open Inference Protocol may say, whichever way it says it: input tensors, request parameters,
// and the JSON of sampling_parameters all name the same options. One table for reading, metadata and error texts.
#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "services/grpc/oip_tensor.h"
#include "sluice/v1/inference.pb.h"

namespace sluice::services {

struct OipRequest {
  sluice::v1::GenerateRequest generate;  // what the native API calls the same request; its codec checks the ranges
  std::string id;                        // returned in every response
  Duration timeout{};                    // zero: none given
  bool stream = false;                   // text as it comes, else all at the end
  std::optional<bool> exclude_input;     // unset: text_output begins with text_input unless it is streamed
  std::string repeated_input;            // what text_output begins with
  bool empty_final_response = false;
  bool want_text = false, want_token_ids = false, want_finish_reason = false, want_embedding = false;
};

enum OipPlace : unsigned { kOipTensor = 1, kOipParameter = 2, kOipJson = 4 };

struct OipOption {
  std::string_view name;
  std::string_view datatype;  // "ID" (a parameter only): a number or a string
  unsigned places;            // OipPlace bits
  // `value` is what `datatype` decodes to. False: out of range. Null: sampling_parameters, which the reader unfolds.
  bool (*set)(OipRequest& request, const OipValue& value);
  std::string_view wants = datatype;  // for error texts
  bool list = false;                  // more than one element
};

std::span<const OipOption> OipOptions();
// nullptr: no such option there.
const OipOption* FindOipOption(std::string_view name, OipPlace place);
// "a, b, c": the options of one place, for error texts.
std::string OipOptionNames(OipPlace place);

// Fills a request from options, collecting what is wrong with all of them.
class OipOptionReader {
 public:
  OipOptionReader(OipRequest& request, std::vector<FieldViolation>& violations)
      : request_(request), violations_(violations) {}

  // `field` names the option in violations. Numbers may come as text ("0.7"), as Triton's clients send them.
  void Set(const OipOption& option, const std::string& field, std::span<const OipValue> values);
  void SetParameter(const std::string& name, const inference::InferParameter& parameter);
  bool given(std::string_view name) const { return given_.contains(name); }

 private:
  void SetSamplingParameters(const std::string& json);
  void Violate(const std::string& field, std::string description);

  OipRequest& request_;
  std::vector<FieldViolation>& violations_;
  std::set<std::string_view> given_;  // names of options; refers to the table
};

}  // namespace sluice::services
