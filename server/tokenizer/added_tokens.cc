#include "server/tokenizer/added_tokens.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <utility>

namespace sessa {
namespace {

// \w of Unicode: alphabetic, marks, decimal digits, connectors, join controls.
bool IsWord(UChar32 c) {
  return u_isUAlphabetic(c) || (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
         u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL);
}

UChar32 FirstOf(std::string_view text) {
  size_t i = 0;
  UChar32 c = 0;
  U8_NEXT(text.data(), i, text.size(), c);
  return c;
}

UChar32 LastOf(std::string_view text) {
  int32_t i = static_cast<int32_t>(text.size());
  UChar32 c = 0;
  U8_PREV(text.data(), 0, i, c);
  return c;
}

size_t LengthOf(UChar32 c) { return static_cast<size_t>(U8_LENGTH(c)); }

}  // namespace

void AddedTokenMatcher::Add(const AddedToken& token, std::string content) {
  if (content.empty()) return;
  std::vector<Entry>& entries = by_first_byte_[static_cast<unsigned char>(content[0])];
  const auto place = std::find_if(entries.begin(), entries.end(),
                                  [&](const Entry& e) { return e.content.size() < content.size(); });
  entries.insert(place, {std::move(content), token});
}

const AddedTokenMatcher::Entry* AddedTokenMatcher::LongestAt(std::string_view text) const {
  for (const Entry& e : by_first_byte_[static_cast<unsigned char>(text[0])]) {
    if (text.starts_with(e.content)) return &e;
  }
  return nullptr;
}

std::vector<AddedTokenMatcher::Piece> AddedTokenMatcher::Split(std::string_view text) const {
  std::vector<Piece> pieces;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const Entry* e = LongestAt(text.substr(at));
    if (e == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + e->content.size();
    at = end;
    if (e->token.single_word && ((begin > 0 && IsWord(LastOf(text.substr(0, begin)))) ||
                                 (end < text.size() && IsWord(FirstOf(text.substr(end)))))) {
      continue;
    }
    if (e->token.lstrip) {
      while (begin > done && u_isUWhiteSpace(LastOf(text.substr(0, begin))))
        begin -= LengthOf(LastOf(text.substr(0, begin)));
    }
    if (e->token.rstrip) {
      while (end < text.size() && u_isUWhiteSpace(FirstOf(text.substr(end))))
        end += LengthOf(FirstOf(text.substr(end)));
    }
    at = end;
    if (begin > done) pieces.push_back({text.substr(done, begin - done), -1});
    pieces.push_back({text.substr(begin, end - begin), e->token.id});
    done = end;
  }
  if (done < text.size()) pieces.push_back({text.substr(done), -1});
  return pieces;
}

}  // namespace sessa
