// UTF-8 as the tokenizer and the text stream need it: judged, repaired the way Hugging Face's decoders do
// (each maximal ill-formed piece becomes one U+FFFD), and cut without splitting a character. Thin over ICU's
// macros.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sessa {

// Byte offset of the first ill-formed piece; npos when all is well-formed.
size_t FindInvalidUtf8(std::string_view text);

// `bytes` with every ill-formed piece replaced; each_byte: with every byte of it replaced.
std::string RepairUtf8(std::string_view bytes, bool each_byte = false);

// How many bytes of `bytes` come before a character that is cut off at the end.
size_t CompleteUtf8(std::string_view bytes);

void AppendUtf8(char32_t c, std::string* out);

// Calls body(code point) for each character. Requires: well-formed.
template <class Body>
void ForEachCodePoint(std::string_view text, Body body);

}  // namespace sessa

#include <unicode/utf8.h>

#include <cstdint>

template <class Body>
void sessa::ForEachCodePoint(std::string_view text, Body body) {
  for (int32_t i = 0, n = static_cast<int32_t>(text.size()); i < n;) {
    UChar32 c = 0;
    U8_NEXT(text.data(), i, n, c);
    body(static_cast<char32_t>(c));
  }
}
