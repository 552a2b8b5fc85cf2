#include "server/tokenizer/normalizer.h"

#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/byte_level.h"
#include "server/tokenizer/characters.h"
#include "server/tokenizer/json_fields.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

namespace json = boost::json;

// Hugging Face's library has the tables of Unicode 11: characters that are newer have no other form.
std::string Normalize(const icu::Normalizer2* form, UErrorCode error, std::string_view text) {
  static const auto* known = [] {
    UErrorCode ignored = U_ZERO_ERROR;
    auto* set = new icu::UnicodeSet("[:age=11.0:]", ignored);
    set->freeze();
    return set;
  }();
  std::string out;
  if (U_SUCCESS(error)) {
    const icu::FilteredNormalizer2 filtered(*form, *known);
    icu::StringByteSink<std::string> sink(&out, static_cast<int32_t>(text.size()));
    const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
    filtered.normalizeUTF8(0, piece, sink, nullptr, error);
  }
  return U_SUCCESS(error) ? out : std::string(text);  // without ICU's own data, which its library holds
}

// The text of what `each(character, &out)` appends.
template <class Each>
std::string Rewrite(std::string_view text, Each each) {
  std::string out;
  out.reserve(text.size());
  ForEachCodePoint(text, [&](char32_t c) { each(c, &out); });
  return out;
}

template <class Dropped>
std::string Without(std::string_view text, Dropped dropped) {
  return Rewrite(text, [dropped](char32_t c, std::string* out) {
    if (!dropped(c)) AppendUtf8(c, out);
  });
}

// Character by character as Hugging Face does it: no special case for a final sigma.
void AppendLower(char32_t c, std::string* out) {
  AppendUtf8(ToLower(c), out);
  if (c == 0x130) AppendUtf8(0x307, out);  // the one character whose lower case is two
}

// BERT's: what cannot be seen is dropped, and all white space is a space.
void AppendClean(char32_t c, std::string* out) {
  if (c == 0xFFFD || IsControl(c)) return;
  AppendUtf8(IsSpace(c) ? U' ' : c, out);
}

void AppendSpaced(char32_t c, std::string* out) {
  if (!IsChinese(c)) return AppendUtf8(c, out);
  *out += ' ';
  AppendUtf8(c, out);
  *out += ' ';
}

// Of SentencePiece's "nmt" rules: control characters are dropped, others are spaces.
void AppendNmt(char32_t c, std::string* out) {
  if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F)
    return;
  const bool space = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
  AppendUtf8(space ? U' ' : c, out);
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Parse(const json::value& json) {
  Normalizer normalizer;
  if (absl::Status added = normalizer.Add(json, 0); !added.ok()) return added;
  return normalizer;
}

absl::Status Normalizer::Add(const json::value& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  JsonFields fields(json, "tokenizer.json.normalizer");
  const std::string type = fields.String("type");
  if (!fields.status().ok()) return fields.status();
  for (const auto& [name, kind] : {std::pair{"NFC", Kind::kNfc},
                                   {"NFD", Kind::kNfd},
                                   {"NFKC", Kind::kNfkc},
                                   {"NFKD", Kind::kNfkd},
                                   {"Lowercase", Kind::kLowercase},
                                   {"StripAccents", Kind::kStripAccents},
                                   {"Nmt", Kind::kNmt},
                                   {"ByteLevel", Kind::kByteLevel}}) {
    if (type == name) return Add(kind), absl::OkStatus();
  }
  if (type == "Strip") {
    if (fields.Bool("strip_left", true)) Add(Kind::kStripLeft);
    if (fields.Bool("strip_right", true)) Add(Kind::kStripRight);
    return fields.status();
  }
  if (type == "BertNormalizer") return AddBert(json);
  if (type == "Prepend") return steps_.push_back({Kind::kPrepend, fields.String("prepend")}), fields.status();
  if (type == "Replace") {
    auto pattern = Regex::OfPattern(json, "tokenizer.json.normalizer");
    if (!pattern.ok()) return pattern.status();
    steps_.push_back({Kind::kReplace, fields.String("content"), {*std::move(pattern)}});
    return fields.status();
  }
  if (type == "Precompiled") {
    if (fields.Find("precompiled_charsmap") == nullptr) return fields.status();
    auto map = CharactersMap::FromBase64(fields.String("precompiled_charsmap"));
    if (!map.ok())
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.json.normalizer.precompiled_charsmap: ", map.status().message()));
    steps_.push_back({Kind::kMap, "", {}, *std::move(map)});
    return fields.status();
  }
  if (type == "Sequence" && depth < 8) {
    const json::array* list = fields.Array("normalizers");
    if (list == nullptr) return fields.status();
    for (const json::value& item : *list) {
      if (absl::Status added = Add(item, depth + 1); !added.ok()) return added;
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.json.normalizer: type '", type, "' is not supported"));
}

absl::Status Normalizer::AddBert(const json::value& json) {
  JsonFields fields(json, "tokenizer.json.normalizer");
  const bool lowercase = fields.Bool("lowercase", true);
  if (fields.Bool("clean_text", true)) Add(Kind::kCleanText);
  if (fields.Bool("handle_chinese_chars", true)) Add(Kind::kSpaceChinese);
  if (fields.Bool("strip_accents", lowercase)) Add(Kind::kNfd), Add(Kind::kStripMarks);
  if (lowercase) Add(Kind::kLowercase);
  return fields.status();
}

absl::StatusOr<std::string> Normalizer::Apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    auto next = Apply(step, std::move(out));
    if (!next.ok()) return next;
    out = *std::move(next);
  }
  return out;
}

absl::StatusOr<std::string> Normalizer::Apply(const Step& step, std::string text) {
  UErrorCode error = U_ZERO_ERROR;
  switch (step.kind) {
    case Kind::kNfc: return Normalize(icu::Normalizer2::getNFCInstance(error), error, text);
    case Kind::kNfd: return Normalize(icu::Normalizer2::getNFDInstance(error), error, text);
    case Kind::kNfkc: return Normalize(icu::Normalizer2::getNFKCInstance(error), error, text);
    case Kind::kNfkd: return Normalize(icu::Normalizer2::getNFKDInstance(error), error, text);
    case Kind::kLowercase: return Rewrite(text, AppendLower);
    case Kind::kStripLeft: return text.substr(SpaceAtStart(text));
    case Kind::kStripRight: return text.substr(0, WithoutSpaceAtEnd(text));
    case Kind::kStripAccents: return Without(text, IsMark);
    case Kind::kCleanText: return Rewrite(text, AppendClean);
    case Kind::kSpaceChinese: return Rewrite(text, AppendSpaced);
    case Kind::kStripMarks: return Without(text, IsNonspacingMark);
    case Kind::kNmt: return Rewrite(text, AppendNmt);
    case Kind::kPrepend: return text.empty() ? text : step.content + text;
    case Kind::kReplace: return step.pattern[0].ReplaceAll(text, step.content);
    case Kind::kMap: return step.map->Apply(text);
    case Kind::kByteLevel: return ToByteLevel(text);
  }
  return text;
}

// Of one character the most bytes go where a mathematical letter of four becomes ASCII; composing takes at
// most three to one (Hangul), and of what it joins only letters were longer before.
int Normalizer::MaxShrink() const {
  int shrink = 1;
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kPrepend:
      case Kind::kByteLevel: break;
      case Kind::kNfc:
      case Kind::kNfd:
      case Kind::kNfkc:
      case Kind::kNfkd:
      case Kind::kLowercase: shrink = std::max(shrink, 4); break;
      case Kind::kReplace:
        if (step.pattern[0].literal().empty() || step.content.size() < step.pattern[0].literal().size())
          return 0;
        break;
      default: return 0;
    }
  }
  return shrink;
}

bool Normalizer::writes_bytes() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& s) { return s.kind == Kind::kByteLevel; });
}

}  // namespace sessa
