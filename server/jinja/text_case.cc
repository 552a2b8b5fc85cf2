// See text.h: the case of characters, by Unicode's full mappings, and Python's classes of characters.
#include <unicode/casemap.h>
#include <unicode/locid.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>

#include "server/jinja/text.h"

namespace sessa::jinja {
namespace {

icu::UnicodeString Wide(std::string_view text) {
  return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

std::string Narrow(const icu::UnicodeString& text) {
  std::string out;
  text.toUTF8String(out);
  return out;
}

std::string Upper(std::string_view text) { return Narrow(Wide(text).toUpper(icu::Locale::getRoot())); }
std::string Lower(std::string_view text) { return Narrow(Wide(text).toLower(icu::Locale::getRoot())); }

// One character as the first of a word.
std::string TitleCharacter(std::string_view character) {
  return Narrow(Wide(character).toTitle(nullptr, icu::Locale::getRoot(), U_TITLECASE_NO_BREAK_ADJUSTMENT));
}

bool IsCased(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED) != 0; }

// Python's title: a cased character after one that is not begins a word.
std::string Title(std::string_view text) {
  const std::string lower = Lower(text);
  std::string out;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const bool cased = IsCased(NextCharacter(text, &at));
    const std::string_view character = text.substr(begin, at - begin);
    if (!cased)
      out += character;
    else
      out += inside ? Lower(character) : TitleCharacter(character);
    inside = cased;
  }
  return out;
}

std::string Swapped(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const auto c = static_cast<UChar32>(NextCharacter(text, &at));
    const std::string_view character = text.substr(begin, at - begin);
    out += u_isUUppercase(c)   ? Lower(character)
           : u_isULowercase(c) ? Upper(character)
                               : std::string(character);
  }
  return out;
}

std::string Changed(std::string_view text, Case to) {
  switch (to) {
    case Case::kUpper: return Upper(text);
    case Case::kLower: return Lower(text);
    case Case::kTitle: return Title(text);
    case Case::kSwap: return Swapped(text);
    case Case::kFold: return Narrow(Wide(text).foldCase(U_FOLD_CASE_DEFAULT));
    case Case::kCapitalize: break;
  }
  const size_t first = text.empty() ? 0 : CharacterSize(text, 0);
  return TitleCharacter(text.substr(0, first)) + Lower(text).substr(Lower(text.substr(0, first)).size());
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Without ICU, which takes ten times as long: nearly all texts.
std::string ChangedAscii(std::string_view text, Case to) {
  std::string out(text);
  bool inside = false;
  for (size_t i = 0; i < out.size(); ++i) {
    const bool upper = out[i] >= 'A' && out[i] <= 'Z', lower = out[i] >= 'a' && out[i] <= 'z';
    bool make_upper = to == Case::kUpper;
    if (to == Case::kTitle) make_upper = !inside;
    if (to == Case::kCapitalize) make_upper = i == 0;
    if (to == Case::kSwap) make_upper = lower;
    if (upper && !make_upper) out[i] = static_cast<char>(out[i] + 32);
    if (lower && make_upper) out[i] = static_cast<char>(out[i] - 32);
    inside = upper || lower;
  }
  return out;
}

bool Has(char32_t character, Property property) {
  const auto c = static_cast<UChar32>(character);
  switch (property) {
    case Property::kAlpha: return u_isalpha(c) != 0;
    case Property::kAlnum:
      return u_isalpha(c) || u_charType(c) == U_DECIMAL_DIGIT_NUMBER ||
             u_getNumericValue(c) != U_NO_NUMERIC_VALUE;
    case Property::kDecimal: return u_charType(c) == U_DECIMAL_DIGIT_NUMBER;
    case Property::kDigit: {
      const auto type = static_cast<UNumericType>(u_getIntPropertyValue(c, UCHAR_NUMERIC_TYPE));
      return type == U_NT_DECIMAL || type == U_NT_DIGIT;
    }
    case Property::kNumeric: return u_getNumericValue(c) != U_NO_NUMERIC_VALUE;
    case Property::kSpace: return IsSpace(character);
    case Property::kPrintable: return character == ' ' || IsPrintable(character);
    case Property::kAscii: return character < 0x80;
  }
  return false;
}

}  // namespace

Value ChangeCase(std::string_view text, Case to, Budget* budget) {
  // ICU's wide copies of it, and the result, which is at most three times as long.
  const ByteHold hold(budget, static_cast<int64_t>(text.size() * 8));
  if (!budget->StepBytes(static_cast<int64_t>(text.size()))) return {};
  if (IsAscii(text)) return budget->Text(ChangedAscii(text, to));
  if (!budget->Step(static_cast<int64_t>(text.size()) / 4)) return {};
  return budget->Text(Changed(text, to));
}

bool HasProperty(std::string_view text, Property property, Budget* budget) {
  if (!budget->Step(static_cast<int64_t>(text.size()) / 8)) return false;
  for (size_t at = 0; at < text.size();) {
    if (!Has(NextCharacter(text, &at), property)) return false;
  }
  return !text.empty() || property == Property::kAscii || property == Property::kPrintable;
}

bool IsCase(std::string_view text, Case is, Budget* budget) {
  if (!budget->Step(static_cast<int64_t>(text.size()) / 8)) return false;
  bool any = false, inside = false;
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<UChar32>(NextCharacter(text, &at));
    const bool title = u_istitle(c) != 0 && !u_isUUppercase(c), upper = u_isUUppercase(c) != 0,
               lower = u_isULowercase(c) != 0;
    if (is == Case::kUpper && (lower || title)) return false;
    if (is == Case::kLower && (upper || title)) return false;
    if (is == Case::kTitle && ((upper || title) ? inside : lower && !inside)) return false;
    inside = upper || title || lower;
    any = any || (is == Case::kUpper ? upper : is == Case::kLower ? lower : inside);
  }
  return any;
}

}  // namespace sessa::jinja
