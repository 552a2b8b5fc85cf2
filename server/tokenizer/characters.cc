#include "server/tokenizer/characters.h"

#include <unicode/uchar.h>
#include <unicode/uscript.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>

#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

struct Range {
  char32_t first, last;
};
struct Mapped {
  char32_t first, last, to;  // kLower: of the first, and so on; kNewCharacters: of each
};

#include "server/tokenizer/unicode_tables.inc"

// The row that holds `c`; null without one.
template <class Row, size_t n>
const Row* Find(const Row (&rows)[n], char32_t c) {
  const Row* row = std::upper_bound(rows, rows + n, c, [](char32_t x, const Row& r) { return x < r.first; });
  return row != rows && c <= row[-1].last ? row - 1 : nullptr;
}

}  // namespace

bool IsSpace(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }
bool IsNumeric(char32_t c) { return Find(kNumeric, c) != nullptr; }
bool IsPunctuation(char32_t c) { return Find(kPunctuation, c) != nullptr; }
bool IsMark(char32_t c) { return Find(kMarks, c) != nullptr; }
bool IsNonspacingMark(char32_t c) { return Find(kNonspacingMarks, c) != nullptr; }
bool IsControl(char32_t c) {
  if (c >= 0xF0000) return (c & 0xFFFF) < 0xFFFE;  // the private planes, but for what is no character
  return c == 0 || Find(kControls, c) != nullptr;
}

int ScriptOf(char32_t c) {
  if (c == ' ' || Find(kNoScript, c) != nullptr) return kAnyScript;
  if (c == 0x30FC) return USCRIPT_HAN;                      // the mark of a long vowel
  if (c == 0x953 || c == 0x954) return USCRIPT_DEVANAGARI;  // these four have changed since
  if (c == 0x589 || c == 0x61C) return USCRIPT_COMMON;
  UErrorCode error = U_ZERO_ERROR;
  const UScriptCode script = uscript_getScript(static_cast<UChar32>(c), &error);
  if (script == USCRIPT_UNKNOWN) return kAnyScript;  // of private use
  return script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA ? USCRIPT_HAN : script;
}

char32_t ToLower(char32_t c) {
  if (const Mapped* row = Find(kLower, c)) return row->to + (c - row->first);
  return static_cast<char32_t>(u_tolower(static_cast<UChar32>(c)));
}

bool HasNewCharacters(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0xE0) {  // the first of them has three bytes
      ++at;
      continue;
    }
    UChar32 c = 0;
    U8_NEXT(text.data(), at, text.size(), c);
    if (Find(kNewCharacters, static_cast<char32_t>(c)) != nullptr) return true;
  }
  return false;
}

std::string WithoutNewCharacters(std::string_view text) {
  std::string out;
  ForEachCodePoint(text, [&out](char32_t c) {
    const Mapped* row = Find(kNewCharacters, c);
    AppendUtf8(row != nullptr ? row->to : c, &out);
  });
  return out;
}

bool IsChinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
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

}  // namespace sessa
