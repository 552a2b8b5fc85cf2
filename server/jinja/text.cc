#include "server/jinja/text.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <functional>

namespace sessa::jinja {
namespace {

bool BeginsCharacter(char c) { return (c & 0xc0) != 0x80; }

constexpr size_t kShort = 16;  // up to here a plain search does not degenerate by much

// The failure function of Knuth, Morris and Pratt: 4 bytes for each byte of `what`. (The standard library's
// searchers are quadratic on hostile text.)
template <typename Text>
std::vector<uint32_t> BordersOf(Text what, size_t size) {
  std::vector<uint32_t> borders(size, 0);
  for (size_t i = 1, k = 0; i < size; ++i) {
    while (k > 0 && what[i] != what[k]) k = borders[k - 1];
    borders[i] = static_cast<uint32_t>(what[i] == what[k] ? ++k : k);
  }
  return borders;
}

// How far behind `begin` the first `what` ends; 0: there is none.
template <typename Text>
size_t EndOfMatch(Text begin, Text end, Text what, const std::vector<uint32_t>& borders) {
  size_t matched = 0;
  for (Text at = begin; at != end; ++at) {
    while (matched > 0 && *at != what[matched]) matched = borders[matched - 1];
    if (*at == what[matched] && ++matched == borders.size()) return static_cast<size_t>(at - begin) + 1;
  }
  return 0;
}

bool ContainsCharacter(std::string_view chars, char32_t c) {
  for (size_t at = 0; at < chars.size();) {
    if (NextCharacter(chars, &at) == c) return true;
  }
  return false;
}

// Whether a character is to be stripped. Of long `chars` a table is made, as the text may be long too.
std::function<bool(char32_t)> Stripped(const std::string* chars, Budget* budget) {
  if (chars == nullptr) return IsSpace;
  budget->StepBytes(static_cast<int64_t>(chars->size()));
  if (chars->size() <= kShort) return [chars](char32_t c) { return ContainsCharacter(*chars, c); };
  std::vector<char32_t> table;
  for (size_t at = 0; at < chars->size();) table.push_back(NextCharacter(*chars, &at));
  std::sort(table.begin(), table.end());
  table.erase(std::unique(table.begin(), table.end()), table.end());
  return [table = std::move(table)](char32_t c) { return std::binary_search(table.begin(), table.end(), c); };
}

}  // namespace

size_t CharacterSize(std::string_view text, size_t at) {
  const size_t begin = at;
  NextCharacter(text, &at);
  return at - begin;
}

char32_t NextCharacter(std::string_view text, size_t* at) {
  if (static_cast<unsigned char>(text[*at]) < 0x80) return static_cast<unsigned char>(text[(*at)++]);
  const auto piece = text.substr(*at, 4);
  int32_t n = 0;
  UChar32 c = 0;
  U8_NEXT(piece.data(), n, static_cast<int32_t>(piece.size()), c);
  if (c < 0) n = 1, c = 0xfffd;
  *at += static_cast<size_t>(n);
  return static_cast<char32_t>(c);
}

char32_t LastCharacter(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && text.size() - at < 4 && !BeginsCharacter(text[at])) --at;
  size_t end = at;
  const char32_t c = NextCharacter(text, &end);
  return end == text.size() ? c : 0xfffd;
}

void AppendCharacter(char32_t c, std::string* out) {
  char bytes[4];
  int32_t n = 0;
  U8_APPEND_UNSAFE(bytes, n, static_cast<UChar32>(c));
  out->append(bytes, static_cast<size_t>(n));
}

int64_t CountCharacters(std::string_view text, Budget* budget) {
  budget->StepBytes(static_cast<int64_t>(text.size()));
  return std::count_if(text.begin(), text.end(), BeginsCharacter);
}

size_t ByteOf(std::string_view text, int64_t index) {
  size_t at = 0;
  while (at < text.size()) {
    if (BeginsCharacter(text[at]) && index-- == 0) break;
    ++at;
  }
  return at;
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool IsPrintable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c < 0x7f;
  constexpr uint32_t kOthers = U_GC_C_MASK | U_GC_Z_MASK;
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & kOthers) == 0;
}

Finder::Finder(std::string_view in, std::string_view what, Budget* budget)
    : in_(in),
      what_(what),
      budget_(budget),
      hold_(budget, what.size() <= kShort ? 0 : static_cast<int64_t>(what.size() * sizeof(uint32_t))) {
  if (what.size() > kShort && budget->StepBytes(static_cast<int64_t>(what.size())))
    borders_ = BordersOf(what.begin(), what.size());
}

size_t Finder::Next() {
  if (!budget_->Step()) return std::string_view::npos;
  size_t found = std::string_view::npos;
  if (what_.size() <= kShort) {
    found = in_.find(what_, at_);
  } else if (in_.size() - at_ >= what_.size()) {
    const size_t end = EndOfMatch(in_.begin() + at_, in_.end(), what_.begin(), borders_);
    if (end > 0) found = at_ + end - what_.size();
  }
  const size_t next = found == std::string_view::npos ? in_.size() : found + what_.size();
  if (!budget_->StepBytes(static_cast<int64_t>(next - at_))) return std::string_view::npos;
  at_ = next;
  return found;
}

size_t FindText(std::string_view in, std::string_view what, Budget* budget) {
  if (what.empty()) return 0;
  return Finder(in, what, budget).Next();
}

size_t FindLastText(std::string_view in, std::string_view what, Budget* budget) {
  if (what.size() > in.size()) return std::string_view::npos;
  if (what.size() <= kShort) {
    const size_t found = in.rfind(what);
    const size_t looked = found == std::string_view::npos ? in.size() : in.size() - found;
    return budget->StepBytes(static_cast<int64_t>(looked)) ? found : std::string_view::npos;
  }
  const ByteHold hold(budget, static_cast<int64_t>(what.size() * sizeof(uint32_t)));
  if (!budget->StepBytes(static_cast<int64_t>(in.size() + what.size()))) return std::string_view::npos;
  const size_t end = EndOfMatch(in.rbegin(), in.rend(), what.rbegin(), BordersOf(what.rbegin(), what.size()));
  return end == 0 ? std::string_view::npos : in.size() - end;
}

std::string_view StripLeft(std::string_view text, const std::string* chars, Budget* budget) {
  const auto stripped = Stripped(chars, budget);
  size_t at = 0;
  while (at < text.size()) {
    size_t next = at;
    if (!stripped(NextCharacter(text, &next))) break;
    at = next;
  }
  budget->StepBytes(static_cast<int64_t>(at));
  return text.substr(at);
}

std::string_view StripRight(std::string_view text, const std::string* chars, Budget* budget) {
  const auto stripped = Stripped(chars, budget);
  size_t end = text.size();
  while (end > 0 && stripped(LastCharacter(text.substr(0, end)))) {
    do --end;
    while (end > 0 && !BeginsCharacter(text[end]));
  }
  budget->StepBytes(static_cast<int64_t>(text.size() - end));
  return text.substr(0, end);
}

void AppendEscaped(std::string_view text, TextBuilder* out) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of("&<>'\"", at), text.size());
    out->Append(text.substr(at, end - at));
    if (end == text.size()) return;
    switch (text[end]) {
      case '&': out->Append("&amp;"); break;
      case '<': out->Append("&lt;"); break;
      case '>': out->Append("&gt;"); break;
      case '\'': out->Append("&#39;"); break;
      default: out->Append("&#34;");
    }
    at = end + 1;
  }
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends, Budget* budget) {
  std::vector<std::string_view> lines;
  budget->StepBytes(static_cast<int64_t>(text.size()));
  for (size_t begin = 0; begin < text.size() && budget->Step();) {
    size_t at = begin, end = text.size();
    while (at < text.size()) {
      const size_t here = at;
      const char32_t c = NextCharacter(text, &at);
      if ((c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029) {
        end = here;
        if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
        break;
      }
    }
    lines.push_back(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  return lines;
}

}  // namespace sessa::jinja
