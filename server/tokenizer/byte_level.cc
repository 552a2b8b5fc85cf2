#include "server/tokenizer/byte_level.h"

#include <array>

#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

struct Tables {
  std::array<std::string, 256> characters;  // of bytes, in UTF-8
  std::array<int, 512> bytes;               // of characters; -1: none
};

Tables MakeTables() {
  Tables tables;
  tables.bytes.fill(-1);
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const int c = printable ? b : next++;
    tables.bytes[c] = b;
    AppendUtf8(static_cast<char32_t>(c), &tables.characters[b]);
  }
  return tables;
}

const Tables& TheTables() {
  static const Tables* tables = new Tables(MakeTables());
  return *tables;
}

}  // namespace

std::string ToByteLevel(std::string_view bytes) {
  const Tables& tables = TheTables();
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (char c : bytes) out += tables.characters[static_cast<unsigned char>(c)];
  return out;
}

std::optional<std::string> FromByteLevel(std::string_view text) {
  const Tables& tables = TheTables();
  std::string out;
  bool all = true;
  ForEachCodePoint(text, [&](char32_t c) {
    all = all && c < tables.bytes.size() && tables.bytes[c] >= 0;
    if (all) out += static_cast<char>(tables.bytes[c]);
  });
  return all ? std::optional<std::string>(std::move(out)) : std::nullopt;
}

}  // namespace sessa
