#include "server/tokenizer/characters.h"

#include <unicode/uchar.h>
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

char32_t ToLower(char32_t c) {
  if (const Mapped* row = Find(kLower, c)) return row->to + (c - row->first);
  return static_cast<char32_t>(u_tolower(static_cast<UChar32>(c)));
}

std::string WithoutNewCharacters(std::string_view text) {
  std::string out(text);
  for (size_t at = 0; at < out.size();) {
    const size_t begin = at;
    if (static_cast<unsigned char>(out[at]) < 0x80) {
      ++at;
      continue;
    }
    UChar32 c = 0;
    U8_NEXT(out.data(), at, out.size(), c);
    if (const Mapped* row = Find(kNewCharacters, static_cast<char32_t>(c))) {
      std::string old;
      AppendUtf8(row->to, &old);
      out.replace(begin, at - begin, old);
    }
  }
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
