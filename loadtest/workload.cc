#include "loadtest/workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {
namespace {

// Common words: nearly every tokenizer has each of them, with the blank before it, as one token.
constexpr std::array<const char*, 240> kWords = {
    "time",   "year",    "people",  "way",       "day",     "man",      "thing",    "woman",    "life",    "child",
    "world",  "school",  "state",   "family",    "student", "group",    "country",  "problem",  "hand",    "part",
    "place",  "case",    "week",    "company",   "system",  "program",  "question", "work",     "number",  "night",
    "point",  "home",    "water",   "room",      "mother",  "area",     "money",    "story",    "fact",    "month",
    "lot",    "right",   "study",   "book",      "eye",     "job",      "word",     "business", "issue",   "side",
    "kind",   "head",    "house",   "service",   "friend",  "father",   "power",    "hour",     "game",    "line",
    "end",    "member",  "law",     "car",       "city",    "name",     "team",     "minute",   "idea",    "body",
    "back",   "parent",  "face",    "others",    "level",   "office",   "door",     "health",   "person",  "art",
    "war",    "history", "party",   "result",    "change",  "morning",  "reason",   "research", "girl",    "guy",
    "moment", "air",     "teacher", "force",     "order",   "value",    "action",   "model",    "season",  "society",
    "tax",    "record",  "paper",   "space",     "ground",  "form",     "event",    "matter",   "center",  "couple",
    "site",   "project", "base",    "star",      "table",   "need",     "court",    "oil",      "cost",    "figure",
    "street", "image",   "phone",   "data",      "picture", "practice", "piece",    "land",     "product", "doctor",
    "wall",   "worker",  "news",    "test",      "movie",   "north",    "love",     "step",     "plan",    "building",
    "hair",   "sense",   "bank",    "nature",    "energy",  "food",     "field",    "truth",    "south",   "color",
    "source", "size",    "effect",  "film",      "light",   "voice",    "answer",   "song",     "glass",   "river",
    "summer", "winter",  "spring",  "tree",      "bird",    "horse",    "green",    "blue",     "white",   "black",
    "red",    "small",   "large",   "young",     "old",     "long",     "short",    "high",     "low",     "early",
    "late",   "hard",    "easy",    "open",      "close",   "full",     "free",     "great",    "good",    "bad",
    "new",    "own",     "same",    "different", "every",   "other",    "each",     "more",     "most",    "some",
    "many",   "few",     "first",   "second",    "third",   "next",     "last",     "best",     "better",  "true",
    "real",   "clear",   "sure",    "strong",    "deep",    "wide",     "simple",   "common",   "public",  "private",
    "local",  "recent",  "major",   "natural",   "final",   "main",     "human",    "single",   "special", "whole",
    "under",  "over",    "after",   "before",    "between", "through",  "during",   "without",  "within",  "around"};

constexpr int kFirstId = 1000, kIds = 28000;  // token ids that vocabularies of 32,000 and more have

}  // namespace

absl::StatusOr<std::vector<GivenPrompt>> ReadPrompts(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::InvalidArgumentError("cannot read the prompts file " + path);
  std::vector<GivenPrompt> prompts;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    if (line[0] != '{') {
      prompts.push_back({.text = line});
      continue;
    }
    try {
      const auto json = nlohmann::json::parse(line);
      if (json.contains("image") || json.contains("images")) {
        return absl::InvalidArgumentError(
            fmt::format("{}:{}: image prompts are not supported, as the engine takes no images", path, number));
      }
      prompts.push_back({.text = json.at("prompt"), .max_tokens = json.value("max_tokens", 0)});
    } catch (const nlohmann::json::exception& e) {
      return absl::InvalidArgumentError(fmt::format("{}:{}: {}", path, number, e.what()));
    }
  }
  if (prompts.empty()) return absl::InvalidArgumentError(path + ": no prompts");
  return prompts;
}

Workload::Workload(const WorkloadSpec& spec, std::vector<GivenPrompt> prompts, uint64_t seed, std::string label)
    : spec_(spec), prompts_(std::move(prompts)), label_(std::move(label)), random_(seed) {
  // Prefixes are the same in every block and arm: they are what is shared.
  std::mt19937_64 own(7919);
  std::swap(own, random_);
  for (int g = 0; g < spec_.shared_prefix_groups && spec_.shared_prefix_tokens > 0; ++g) {
    prefixes_.push_back(Words(spec_.shared_prefix_tokens));
    std::vector<int>& ids = prefix_ids_.emplace_back();
    for (int i = 0; i < spec_.shared_prefix_tokens; ++i) ids.push_back(kFirstId + static_cast<int>(random_() % kIds));
  }
  std::swap(own, random_);
}

int Workload::Draw(const LengthSpec& spec) {
  double length = spec.mean;
  switch (spec.kind) {
    case LengthSpec::Kind::kFixed:
      return static_cast<int>(spec.mean);
    case LengthSpec::Kind::kUniform:
      return std::uniform_int_distribution<int>(spec.min, spec.max)(random_);
    case LengthSpec::Kind::kNormal:
      length = std::normal_distribution<>(spec.mean, spec.stddev)(random_);
      break;
    case LengthSpec::Kind::kLognormal: {
      const double variance = std::log(1 + spec.stddev * spec.stddev / (spec.mean * spec.mean));
      length = std::lognormal_distribution<>(std::log(spec.mean) - variance / 2, std::sqrt(variance))(random_);
      break;
    }
  }
  return std::clamp(static_cast<int>(std::lround(length)), spec.min, spec.max);
}

std::string Workload::Words(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += kWords[random_() % kWords.size()];
  }
  return text;
}

void Workload::Fill(Request& r) {
  r.max_tokens = std::max(1, Draw(spec_.output_tokens));
  r.temperature = spec_.temperature;
  r.seed = random_() >> 1;
  r.ignore_eos = spec_.ignore_eos;
  r.timeout = spec_.timeout;
  if (Chance(spec_.cancel_share)) r.cancel_after_messages = spec_.cancel_after;
  if (Chance(spec_.slow_share)) r.read_delay = spec_.slow_delay;
}

Planned Workload::Next() {
  Planned planned;
  Request& r = planned.request;
  const int64_t number = count_++;
  r.id = fmt::format("{}-{}", label_, number);
  r.user = spec_.users > 0 ? fmt::format("user-{}", random_() % static_cast<uint64_t>(spec_.users)) : r.id;
  Fill(r);
  if (!spec_.tenants.empty()) {
    std::vector<double> weights;
    for (const TenantSpec& t : spec_.tenants) weights.push_back(t.weight);
    const TenantSpec& tenant =
        spec_.tenants[std::discrete_distribution<size_t>(weights.begin(), weights.end())(random_)];
    r.tenant = tenant.name;
    r.priority_class = tenant.priority_class;
  }
  std::string text;
  int tokens = std::max(1, Draw(spec_.prompt_tokens));
  if (Chance(spec_.long_prompt_share)) tokens = spec_.long_prompt_tokens;
  const bool shares = !prefixes_.empty() && Chance(spec_.shared_prefix_share);
  const size_t group = shares ? random_() % prefixes_.size() : 0;
  if (shares) tokens = std::max(1, tokens - spec_.shared_prefix_tokens);
  if (!prompts_.empty()) {
    const GivenPrompt& given = prompts_[static_cast<size_t>(number) % prompts_.size()];
    text = given.text;
    if (given.max_tokens > 0) r.max_tokens = given.max_tokens;
  } else if (spec_.form == WorkloadSpec::Form::kTokens) {
    if (shares) r.token_ids = prefix_ids_[group];
    for (int i = 0; i < tokens; ++i) r.token_ids.push_back(kFirstId + static_cast<int>(random_() % kIds));
    return planned;
  } else {
    text = Words(tokens);
  }
  if (shares) text = prefixes_[group] + ' ' + text;
  if (spec_.form != WorkloadSpec::Form::kChat) {
    r.prompt = std::move(text);
    return planned;
  }
  r.chat = {{"user", std::move(text)}};
  planned.turns = std::max(1, Draw(spec_.turns));
  if (planned.turns > 1) {
    planned.conversation = number;
    r.conversation = fmt::format("{}-c{}", label_, number);
    r.keep_text = true;
  }
  return planned;
}

Planned Workload::NextTurn(const Planned& last, const std::string& answer) {
  Planned planned = last;
  ++planned.turn;
  Request& r = planned.request;
  r.id = fmt::format("{}-t{}", last.request.id.substr(0, last.request.id.find("-t")), planned.turn);
  r.cancel_after_messages = 0;
  r.read_delay = Duration(0);
  Fill(r);
  r.chat.emplace_back("assistant", answer);
  r.chat.emplace_back("user", Words(std::max(1, Draw(spec_.prompt_tokens))));
  return planned;
}

}  // namespace sluice::loadtest
