// Tokens that are found in the text as they stand, before any word is cut: special ones and others that a
// checkpoint added. Leftmost first, of those the longest. Constant after construction, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sessa {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool lstrip = false, rstrip = false;  // takes the white space beside it along
  bool single_word = false;             // only where no word character touches it
  bool normalized = true;               // looked for in the normalized text
};

class AddedTokenMatcher {
 public:
  void Add(const AddedToken& token, std::string content);  // `content` as it stands in the text searched

  struct Piece {
    std::string_view text;
    int32_t id;  // -1: no added token
  };
  // Covers all of `text`. Requires: well-formed UTF-8.
  std::vector<Piece> Split(std::string_view text) const;

 private:
  struct Entry {
    std::string content;
    AddedToken token;
  };
  const Entry* LongestAt(std::string_view text) const;
  std::vector<Entry> by_first_byte_[256];  // longest first
};

}  // namespace sessa
