#include "server/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/json_fields.h"

namespace sessa {
namespace {

// GPT-2's words (Radford et al. 2019).
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kEverything = "(?s:.+)";

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const boost::json::value& json) {
  PreTokenizer p;
  if (absl::Status added = p.Add(json, 0); !added.ok()) return added;
  if (!p.byte_level_)
    return absl::InvalidArgumentError(
        "pre_tokenizer: only byte-level tokenizers are supported; it must end in ByteLevel");
  return p;
}

absl::StatusOr<PreTokenizer::Behavior> PreTokenizer::ParseBehavior(const std::string& name) {
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return absl::InvalidArgumentError(absl::StrCat("pre_tokenizer.behavior: '", name, "' is not supported"));
}

absl::Status PreTokenizer::AddRegex(std::string_view pattern, Behavior behavior, bool invert,
                                    bool prefix_space) {
  absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok())
    return absl::InvalidArgumentError(absl::StrCat("pre_tokenizer: ", regex.status().message()));
  steps_.push_back({*std::move(regex), behavior, invert, prefix_space});
  return absl::OkStatus();
}

absl::Status PreTokenizer::Add(const boost::json::value& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  JsonFields fields(json, "pre_tokenizer");
  const std::string type = fields.String("type");
  if (!fields.status().ok()) return fields.status();
  if (byte_level_)
    return absl::InvalidArgumentError(
        absl::StrCat("pre_tokenizer: '", type, "' after ByteLevel is not supported"));
  if (type == "ByteLevel") {
    byte_level_ = true;
    const bool prefix_space = fields.Bool("add_prefix_space", true),
               use_regex = fields.Bool("use_regex", true);
    if (!fields.status().ok() || (!use_regex && !prefix_space)) return fields.status();
    return AddRegex(use_regex ? kGpt2 : kEverything, Behavior::kIsolated, false, prefix_space);
  }
  if (type == "Split") {
    const boost::json::value none, *of_pattern = fields.Find("pattern");
    JsonFields pattern(of_pattern != nullptr ? *of_pattern : none, "pre_tokenizer.pattern");
    const bool literal = pattern.Find("String") != nullptr;
    const std::string source = literal ? Regex::Quote(pattern.String("String")) : pattern.String("Regex");
    absl::StatusOr<Behavior> behavior = ParseBehavior(fields.String("behavior"));
    const bool invert = fields.Bool("invert", false);
    if (!pattern.status().ok()) return pattern.status();
    if (!fields.status().ok()) return fields.status();
    if (!behavior.ok()) return behavior.status();
    return AddRegex(source, *behavior, invert);
  }
  if (type == "Digits") {
    const bool individual = fields.Bool("individual_digits", false);
    if (!fields.status().ok()) return fields.status();
    return AddRegex(individual ? "\\p{N}" : "\\p{N}+", Behavior::kIsolated);
  }
  if (type == "WhitespaceSplit") return AddRegex("\\s", Behavior::kRemoved);
  if (type == "Whitespace") return AddRegex("\\w+|[^\\w\\s]+", Behavior::kRemoved, /*invert=*/true);
  if (type == "Sequence" && depth < 8) {
    const boost::json::array* list = fields.Array("pretokenizers");
    if (list == nullptr) return fields.status();
    for (const boost::json::value& item : *list) {
      if (absl::Status added = Add(item, depth + 1); !added.ok()) return added;
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("pre_tokenizer: type '", type, "' is not supported"));
}

absl::StatusOr<std::vector<std::string>> PreTokenizer::Split(std::string_view text) const {
  std::vector<std::string> words, next;
  if (!text.empty()) words.emplace_back(text);
  for (const Step& step : steps_) {
    next.clear();
    for (std::string& word : words) {
      if (absl::Status done = Apply(step, std::move(word), &next); !done.ok()) return done;
    }
    words.swap(next);
  }
  return words;
}

bool PreTokenizer::drops_text() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [](const Step& step) { return step.behavior == Behavior::kRemoved; });
}

absl::Status PreTokenizer::Apply(const Step& step, std::string word, std::vector<std::string>* out) {
  if (step.prefix_space && word.front() != ' ') word.insert(word.begin(), ' ');
  auto matches = step.regex.FindAll(word);
  if (!matches.ok()) return matches.status();
  struct Piece {
    size_t begin, end;
    bool match;
  };
  std::vector<Piece> pieces;
  size_t at = 0;
  for (auto [begin, end] : *matches) {
    if (begin > at) pieces.push_back({at, begin, step.invert});
    pieces.push_back({begin, end, !step.invert});
    at = end;
  }
  if (at < word.size()) pieces.push_back({at, word.size(), step.invert});

  const auto emit = [&](const Piece& p) { out->push_back(word.substr(p.begin, p.end - p.begin)); };
  switch (step.behavior) {
    case Behavior::kIsolated:
      for (const Piece& p : pieces) emit(p);
      break;
    case Behavior::kRemoved:
      for (const Piece& p : pieces) {
        if (!p.match) emit(p);
      }
      break;
    case Behavior::kContiguous:  // neighbours of one kind become one
      for (size_t i = 0; i < pieces.size();) {
        Piece run = pieces[i];
        while (++i < pieces.size() && pieces[i].match == run.match) run.end = pieces[i].end;
        emit(run);
      }
      break;
    case Behavior::kMergedWithPrevious:  // a match ends the word before it
      for (size_t i = 0; i < pieces.size(); ++i) {
        Piece p = pieces[i];
        if (!p.match && i + 1 < pieces.size() && pieces[i + 1].match) p.end = pieces[++i].end;
        emit(p);
      }
      break;
    case Behavior::kMergedWithNext:
      for (size_t i = 0; i < pieces.size(); ++i) {
        Piece p = pieces[i];
        if (p.match && i + 1 < pieces.size() && !pieces[i + 1].match) p.end = pieces[++i].end;
        emit(p);
      }
      break;
  }
  return absl::OkStatus();
}

}  // namespace sessa
