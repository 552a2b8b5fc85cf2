#include "server/tokenizer/utf8.h"

namespace sessa {

size_t FindInvalidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    UChar32 c = 0;
    U8_NEXT(text.data(), i, text.size(), c);
    if (c < 0) return begin;
  }
  return std::string_view::npos;
}

std::string RepairUtf8(std::string_view bytes, bool each_byte) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    const size_t begin = i;
    UChar32 c = 0;
    U8_NEXT(bytes.data(), i, bytes.size(), c);
    if (c < 0) {
      for (size_t n = each_byte ? i - begin : 1; n > 0; --n) out += "\xEF\xBF\xBD";
    } else {
      out.append(bytes, begin, i - begin);
    }
  }
  return out;
}

size_t CompleteUtf8(std::string_view bytes) {
  int64_t length =
      static_cast<int64_t>(bytes.size());  // signed: the macro looks at length - 2 and length - 3
  U8_TRUNCATE_IF_INCOMPLETE(bytes.data(), 0, length);
  return static_cast<size_t>(length);
}

void AppendUtf8(char32_t c, std::string* out) {
  char buffer[U8_MAX_LENGTH];
  int32_t n = 0;
  U8_APPEND_UNSAFE(buffer, n, static_cast<UChar32>(c));
  out->append(buffer, n);
}

}  // namespace sessa
