#include "server/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/file/json_fields.h"
#include "server/tokenizer/byte_level.h"
#include "server/tokenizer/characters.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

namespace json = boost::json;

// GPT-2's words (Radford et al. 2019).
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Span {
  size_t begin, end;
  bool match;
};

absl::Status Unsupported(const std::string& type) {
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.json.pre_tokenizer: type '", type, "' is not supported"));
}

// The text in spans that are each a character which `is` tells, or what lies between those.
std::vector<Span> FindCharacters(std::string_view text, bool (*is)(char32_t)) {
  std::vector<Span> spans;
  size_t at = 0, gap = 0;
  std::string one;
  ForEachCodePoint(text, [&](char32_t c) {
    one.clear();
    AppendUtf8(c, &one);
    const size_t begin = at;
    at += one.size();
    if (!is(c)) return;
    if (begin > gap) spans.push_back({gap, begin, false});
    spans.push_back({begin, at, true});
    gap = at;
  });
  if (gap < text.size()) spans.push_back({gap, text.size(), false});
  return spans;
}

// Runs of one script, each with the characters of none that follow it, and as a match what comes before the
// first.
std::vector<Span> FindScripts(std::string_view text) {
  std::vector<Span> spans;
  size_t at = 0, begin = 0;
  int last = kAnyScript;
  std::string one;
  ForEachCodePoint(text, [&](char32_t c) {
    const int script = ScriptOf(c);
    if (script != kAnyScript && script != last) {
      if (at > begin) spans.push_back({begin, at, last == kAnyScript});
      begin = at;
      last = script;
    }
    one.clear();
    AppendUtf8(c, &one);
    at += one.size();
  });
  if (at > begin) spans.push_back({begin, at, last == kAnyScript});
  return spans;
}

absl::StatusOr<std::vector<Span>> FindRegex(std::string_view text, const Regex& regex, bool invert) {
  auto matches = regex.FindAll(text);
  if (!matches.ok()) return matches.status();
  std::vector<Span> spans;
  size_t at = 0;
  for (auto [begin, end] : *matches) {
    if (begin > at) spans.push_back({at, begin, invert});
    spans.push_back({begin, end, !invert});
    at = end;
  }
  if (at < text.size()) spans.push_back({at, text.size(), invert});
  return spans;
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const json::value& json) {
  PreTokenizer p;
  if (absl::Status added = p.Add(json, 0); !added.ok()) return added;
  return p;
}

absl::StatusOr<PreTokenizer::Behavior> PreTokenizer::ParseBehavior(const std::string& name) {
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.json.pre_tokenizer.behavior: '", name, "' is not supported"));
}

absl::Status PreTokenizer::AddRegex(std::string_view pattern, Behavior behavior, bool invert) {
  absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) return regex.status();
  steps_.push_back(
      {.kind = Kind::kSplitRegex, .regex = {*std::move(regex)}, .behavior = behavior, .invert = invert});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddByteLevel(const json::value& json) {
  JsonFields fields(json, "tokenizer.json.pre_tokenizer");
  if (fields.Bool("add_prefix_space", true)) steps_.push_back({.kind = Kind::kPrefixSpace});
  if (fields.Bool("use_regex", true)) {
    if (absl::Status added = AddRegex(kGpt2, Behavior::kIsolated); !added.ok()) return added;
  }
  steps_.push_back({.kind = Kind::kBytes});
  return fields.status();
}

absl::Status PreTokenizer::AddMetaspace(const json::value& json) {
  JsonFields fields(json, "tokenizer.json.pre_tokenizer");
  Step step{.kind = Kind::kSpaces};
  step.text = fields.String("replacement", "\u2581");
  // add_prefix_space is what older versions wrote.
  const std::string scheme =
      fields.String("prepend_scheme", fields.Bool("add_prefix_space", true) ? "always" : "never");
  step.prepend = scheme == "always"  ? Prepend::kAlways
                 : scheme == "first" ? Prepend::kFirst
                                     : Prepend::kNever;
  if (step.prepend == Prepend::kNever && scheme != "never")
    fields.Fail("prepend_scheme", absl::StrCat("'", scheme, "' is not supported"));
  if (step.text.empty()) fields.Fail("replacement", "must not be empty");
  const bool split = fields.Bool("split", true);
  if (!fields.status().ok()) return fields.status();
  const Regex literal = Regex::Literal(step.text);
  steps_.push_back(std::move(step));
  if (split)
    steps_.push_back({.kind = Kind::kSplitRegex, .regex = {literal}, .behavior = Behavior::kMergedWithNext});
  return absl::OkStatus();
}

absl::Status PreTokenizer::Add(const json::value& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  JsonFields fields(json, "tokenizer.json.pre_tokenizer");
  const std::string type = fields.String("type");
  if (!fields.status().ok()) return fields.status();
  const auto at_characters = [this](bool (*is)(char32_t), Behavior behavior) {
    steps_.push_back({.kind = Kind::kSplitCharacters, .is = is, .behavior = behavior});
    return absl::OkStatus();
  };
  if (type == "ByteLevel") return AddByteLevel(json);
  if (type == "Metaspace") return AddMetaspace(json);
  if (type == "Split") {
    absl::StatusOr<Regex> regex = Regex::OfPattern(json, "tokenizer.json.pre_tokenizer");
    absl::StatusOr<Behavior> behavior = ParseBehavior(fields.String("behavior"));
    const bool invert = fields.Bool("invert", false);
    if (!regex.ok()) return regex.status();
    if (!fields.status().ok()) return fields.status();
    if (!behavior.ok()) return behavior.status();
    steps_.push_back(
        {.kind = Kind::kSplitRegex, .regex = {*std::move(regex)}, .behavior = *behavior, .invert = invert});
    return absl::OkStatus();
  }
  if (type == "Digits") {
    const bool individual = fields.Bool("individual_digits", false);
    if (!fields.status().ok()) return fields.status();
    return at_characters(IsNumeric, individual ? Behavior::kIsolated : Behavior::kContiguous);
  }
  if (type == "Punctuation") {
    absl::StatusOr<Behavior> behavior = ParseBehavior(fields.String("behavior", "Isolated"));
    return behavior.ok() ? at_characters(IsPunctuation, *behavior) : behavior.status();
  }
  if (type == "BertPreTokenizer") {
    at_characters(IsSpace, Behavior::kRemoved).IgnoreError();
    return at_characters(IsPunctuation, Behavior::kIsolated);
  }
  if (type == "CharDelimiterSplit") {
    const std::string delimiter = fields.String("delimiter");
    if (delimiter.empty()) fields.Fail("delimiter", "must be a character");
    if (!fields.status().ok()) return fields.status();
    steps_.push_back(
        {.kind = Kind::kSplitRegex, .regex = {Regex::Literal(delimiter)}, .behavior = Behavior::kRemoved});
    return absl::OkStatus();
  }
  if (type == "FixedLength") {
    const int32_t length = fields.Int("length", 5);
    if (length < 1 || length > 65535) fields.Fail("length", "must be in [1, 65535]");
    if (!fields.status().ok()) return fields.status();
    return AddRegex(absl::StrCat("(?s:.{1,", length, "})"), Behavior::kIsolated);
  }
  if (type == "UnicodeScripts") {
    steps_.push_back({.kind = Kind::kSplitScripts, .behavior = Behavior::kRemoved});
    return absl::OkStatus();
  }
  if (type == "WhitespaceSplit") return at_characters(IsSpace, Behavior::kRemoved);
  if (type == "Whitespace")
    return AddRegex("[\\w\\x{200c}\\x{200d}]+|[^\\w\\x{200c}\\x{200d}\\s]+", Behavior::kRemoved,
                    /*invert=*/true);
  if (type != "Sequence" || depth >= 8) return Unsupported(type);
  const json::array* list = fields.Array("pretokenizers");
  if (list == nullptr) return fields.status();
  for (const json::value& item : *list) {
    if (absl::Status added = Add(item, depth + 1); !added.ok()) return added;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> PreTokenizer::Split(std::string_view text, bool at_start) const {
  std::vector<Word> words, next;
  if (!text.empty()) words.push_back({std::string(text), at_start});
  for (const Step& step : steps_) {
    next.clear();
    next.reserve(words.size());
    for (Word& word : words) {
      if (absl::Status done = Apply(step, std::move(word), &next); !done.ok()) return done;
    }
    words.swap(next);
  }
  std::vector<std::string> out;
  out.reserve(words.size());
  for (Word& word : words) out.push_back(std::move(word.text));
  return out;
}

bool PreTokenizer::drops_text() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [](const Step& step) { return step.behavior == Behavior::kRemoved; });
}

bool PreTokenizer::writes_bytes() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [](const Step& step) { return step.kind == Kind::kBytes; });
}

absl::Status PreTokenizer::Apply(const Step& step, Word word, std::vector<Word>* out) {
  switch (step.kind) {
    case Kind::kSplitRegex:
    case Kind::kSplitCharacters:
    case Kind::kSplitScripts: return Cut(step, word, out);
    case Kind::kPrefixSpace:
      if (word.text.front() != ' ') word.text.insert(word.text.begin(), ' ');
      break;
    case Kind::kBytes: word.text = ToByteLevel(word.text); break;
    case Kind::kSpaces:
      absl::StrReplaceAll({{" ", step.text}}, &word.text);
      if ((step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && word.is_first)) &&
          !word.text.starts_with(step.text))
        word.text.insert(0, step.text);
      break;
  }
  out->push_back(std::move(word));
  return absl::OkStatus();
}

absl::Status PreTokenizer::Cut(const Step& step, const Word& word, std::vector<Word>* out) {
  absl::StatusOr<std::vector<Span>> found =
      step.kind == Kind::kSplitCharacters ? FindCharacters(word.text, step.is)
      : step.kind == Kind::kSplitScripts  ? FindScripts(word.text)
                                          : FindRegex(word.text, step.regex[0], step.invert);
  if (!found.ok()) return found.status();
  const std::vector<Span>& spans = *found;
  const auto emit = [&](const Span& s) {
    out->push_back({word.text.substr(s.begin, s.end - s.begin), word.is_first && s.begin == 0});
  };
  switch (step.behavior) {
    case Behavior::kIsolated:
      for (const Span& s : spans) emit(s);
      break;
    case Behavior::kRemoved:
      for (const Span& s : spans) {
        if (!s.match) emit(s);
      }
      break;
    case Behavior::kContiguous:  // neighbours of one kind become one
      for (size_t i = 0; i < spans.size();) {
        Span run = spans[i];
        while (++i < spans.size() && spans[i].match == run.match) run.end = spans[i].end;
        emit(run);
      }
      break;
    case Behavior::kMergedWithPrevious:  // a match ends the word before it
      for (size_t i = 0; i < spans.size(); ++i) {
        Span s = spans[i];
        if (!s.match && i + 1 < spans.size() && spans[i + 1].match) s.end = spans[++i].end;
        emit(s);
      }
      break;
    case Behavior::kMergedWithNext:
      for (size_t i = 0; i < spans.size(); ++i) {
        Span s = spans[i];
        if (s.match && i + 1 < spans.size() && !spans[i + 1].match) s.end = spans[++i].end;
        emit(s);
      }
      break;
  }
  return absl::OkStatus();
}

}  // namespace sessa
