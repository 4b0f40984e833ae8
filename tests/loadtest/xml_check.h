// A strict little checker of well-formed XML 1.0, enough for what the reports write: elements, double-quoted
// attributes, text, the five named entities and numbers. No comments, CDATA or processing instructions.
#pragma once

#include <string>
#include <string_view>

namespace sluice::loadtest {

// Empty when well-formed, else what is wrong and where. A leading <!DOCTYPE html> is skipped.
std::string XmlError(std::string_view xml);

}  // namespace sluice::loadtest
