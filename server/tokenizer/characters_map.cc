#include "server/tokenizer/characters_map.h"

#include <unicode/brkiter.h>
#include <unicode/utext.h>
#include <unicode/utf8.h>

#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"

namespace sessa {
namespace {

constexpr size_t kLongestGrapheme = 5;  // bytes of one that is looked up whole

// Darts-clone's units: a label or a value, and how far the children are.
uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) == 1; }
uint32_t LabelOf(uint32_t unit) { return unit & (1u << 31 | 0xFF); }
uint32_t ValueOf(uint32_t unit) { return unit & ((1u << 31) - 1); }

size_t EndOfCharacter(std::string_view text, size_t at) {
  U8_FWD_1(text.data(), at, text.size());
  return at;
}

// Where each grapheme of `text` ends. ASCII needs no rules but that a line's two ends are one.
std::vector<size_t> Graphemes(std::string_view text) {
  std::vector<size_t> ends;
  UErrorCode error = U_ZERO_ERROR;
  UText utext = UTEXT_INITIALIZER;
  utext_openUTF8(&utext, text.data(), static_cast<int64_t>(text.size()), &error);
  const std::unique_ptr<icu::BreakIterator> graphemes(
      icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), error));
  if (U_SUCCESS(error)) {
    graphemes->setText(&utext, error);
    for (int32_t end = graphemes->next(); end != icu::BreakIterator::DONE; end = graphemes->next())
      ends.push_back(static_cast<size_t>(end));
  }
  utext_close(&utext);
  if (ends.empty() || ends.back() != text.size()) ends.push_back(text.size());
  return ends;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CharactersMap>> CharactersMap::FromBase64(const std::string& base64) {
  std::string blob;
  if (!absl::Base64Unescape(base64, &blob)) return absl::InvalidArgumentError("is not base64");
  uint32_t bytes = 0;
  if (blob.size() >= sizeof(bytes)) std::memcpy(&bytes, blob.data(), sizeof(bytes));
  if (bytes == 0 || bytes % sizeof(uint32_t) != 0 || bytes > blob.size() - sizeof(bytes))
    return absl::InvalidArgumentError("its trie is cut off");
  std::shared_ptr<CharactersMap> map(new CharactersMap);
  map->units_.resize(bytes / sizeof(uint32_t));
  std::memcpy(map->units_.data(), blob.data() + sizeof(bytes), bytes);
  map->texts_ = blob.substr(sizeof(bytes) + bytes);
  map->texts_ += '\0';
  return map;
}

std::optional<std::string_view> CharactersMap::Find(std::string_view piece) const {
  size_t node = OffsetOf(units_[0]);
  for (char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    node ^= byte;
    if (node >= units_.size() || LabelOf(units_[node]) != byte) return std::nullopt;
    const uint32_t unit = units_[node];
    node ^= OffsetOf(unit);
    if (!HasLeaf(unit)) continue;
    if (node >= units_.size() || ValueOf(units_[node]) >= texts_.size()) return std::nullopt;
    return std::string_view(texts_.c_str() + ValueOf(units_[node]));
  }
  return std::nullopt;
}

std::string CharactersMap::Apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  size_t begin = 0;
  for (const size_t end : Graphemes(text)) {
    const std::string_view grapheme = text.substr(begin, end - begin);
    const auto whole = grapheme.size() <= kLongestGrapheme ? Find(grapheme) : std::nullopt;
    if (whole.has_value()) {
      out.append(*whole);
    } else {
      for (size_t at = begin; at < end;) {
        const size_t next = EndOfCharacter(text, at);
        const std::string_view character = text.substr(at, next - at);
        out.append(Find(character).value_or(character));
        at = next;
      }
    }
    begin = end;
  }
  return out;
}

}  // namespace sessa
