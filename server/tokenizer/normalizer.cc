#include "server/tokenizer/normalizer.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/json_fields.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

std::string Normalize(const icu::Normalizer2* form, UErrorCode error, std::string_view text) {
  if (U_FAILURE(error))
    return std::string(text);  // ICU's own data is missing: cannot happen with its shared library
  const icu::UnicodeString in =
      icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
  std::string out;
  form->normalize(in, error).toUTF8String(out);
  return out;
}

// Character by character as Hugging Face does it: no special case for a final sigma.
std::string Lowercase(std::string_view text) {
  std::string out;
  ForEachCodePoint(text, [&out](char32_t c) {
    AppendUtf8(static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))), &out);
    if (c == 0x130) AppendUtf8(0x307, &out);  // the one character whose lower case is two
  });
  return out;
}

size_t SpaceAtStart(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    size_t next = i;
    UChar32 c = 0;
    U8_NEXT(text.data(), next, text.size(), c);
    if (!u_isUWhiteSpace(c)) break;
    i = next;
  }
  return i;
}

size_t WithoutSpaceAtEnd(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    int32_t i = static_cast<int32_t>(end);
    UChar32 c = 0;
    U8_PREV(text.data(), 0, i, c);
    if (!u_isUWhiteSpace(c)) break;
    end = static_cast<size_t>(i);
  }
  return end;
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Parse(const boost::json::value& json) {
  Normalizer normalizer;
  if (absl::Status added = normalizer.Add(json, 0); !added.ok()) return added;
  return normalizer;
}

absl::Status Normalizer::Add(const boost::json::value& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  JsonFields fields(json, "normalizer");
  const std::string type = fields.String("type");
  if (!fields.status().ok()) return fields.status();
  if (type == "NFC") return steps_.push_back(Step::kNfc), absl::OkStatus();
  if (type == "NFD") return steps_.push_back(Step::kNfd), absl::OkStatus();
  if (type == "NFKC") return steps_.push_back(Step::kNfkc), absl::OkStatus();
  if (type == "NFKD") return steps_.push_back(Step::kNfkd), absl::OkStatus();
  if (type == "Lowercase") return steps_.push_back(Step::kLowercase), absl::OkStatus();
  if (type == "Strip") {
    if (fields.Bool("strip_left", true)) steps_.push_back(Step::kStripLeft);
    if (fields.Bool("strip_right", true)) steps_.push_back(Step::kStripRight);
    return fields.status();
  }
  if (type == "Sequence" && depth < 8) {
    const boost::json::array* list = fields.Array("normalizers");
    if (list == nullptr) return fields.status();
    for (const boost::json::value& item : *list) {
      if (absl::Status added = Add(item, depth + 1); !added.ok()) return added;
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("normalizer: type '", type, "' is not supported"));
}

std::string Normalizer::Apply(std::string_view text) const {
  std::string out(text);
  for (Step step : steps_) {
    UErrorCode error = U_ZERO_ERROR;
    switch (step) {
      case Step::kNfc: out = Normalize(icu::Normalizer2::getNFCInstance(error), error, out); break;
      case Step::kNfd: out = Normalize(icu::Normalizer2::getNFDInstance(error), error, out); break;
      case Step::kNfkc: out = Normalize(icu::Normalizer2::getNFKCInstance(error), error, out); break;
      case Step::kNfkd: out = Normalize(icu::Normalizer2::getNFKDInstance(error), error, out); break;
      case Step::kLowercase: out = Lowercase(out); break;
      case Step::kStripLeft: out.erase(0, SpaceAtStart(out)); break;
      case Step::kStripRight: out.erase(WithoutSpaceAtEnd(out)); break;
    }
  }
  return out;
}

// Of one character the most bytes go where a mathematical letter of four becomes ASCII; composing takes at
// most three to one (Hangul), and of what it joins only letters were longer before.
int Normalizer::MaxShrink() const {
  for (Step step : steps_) {
    if (step == Step::kStripLeft || step == Step::kStripRight) return 0;
  }
  return steps_.empty() ? 1 : 4;
}

}  // namespace sessa
