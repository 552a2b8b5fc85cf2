// Python's str on UTF-8: characters, case, classes and white space by ICU's Unicode tables. What is not
// well-formed UTF-8 is taken byte by byte. Functions that take a budget charge it for what they look at.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/jinja/budget.h"

namespace sessa::jinja {

// Abseil's own string_view, where it is not the standard's.
inline absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

size_t CharacterSize(std::string_view text, size_t at);  // in bytes, at least 1
// The character that begins at `at`, and moves past it; U+FFFD for a byte that is none.
char32_t NextCharacter(std::string_view text, size_t* at);
char32_t LastCharacter(std::string_view text);  // Requires: not empty
void AppendCharacter(char32_t c, std::string* out);
int64_t CountCharacters(std::string_view text, Budget* budget);
// The byte where character `index` begins; the size when there are not so many.
size_t ByteOf(std::string_view text, int64_t index);

// Python's isspace, which is also what split and strip cut at.
bool IsSpace(char32_t c);
bool IsPrintable(char32_t c);  // what repr does not escape

// Linear in both, whatever they hold. npos when it is not there.
size_t FindText(std::string_view in, std::string_view what, Budget* budget);
size_t FindLastText(std::string_view in, std::string_view what, Budget* budget);

// The places of `what` in a text, one after the other without overlap. Both outlive it. Requires: `what` is
// not empty.
class Finder {
 public:
  Finder(std::string_view in, std::string_view what, Budget* budget);
  size_t Next();  // npos at the end, and once the budget has failed

 private:
  const std::string_view in_, what_;
  Budget* const budget_;
  const ByteHold hold_;
  std::vector<uint32_t> borders_;  // of Knuth, Morris and Pratt; empty for a short `what`
  size_t at_ = 0;
};

// Without `chars`: white space; else any of its characters.
std::string_view StripLeft(std::string_view text, const std::string* chars, Budget* budget);
std::string_view StripRight(std::string_view text, const std::string* chars, Budget* budget);

enum class Case { kUpper, kLower, kTitle, kCapitalize, kSwap, kFold };
Value ChangeCase(std::string_view text, Case to, Budget* budget);
// Every character has the property, and there is one; as Python's isalpha and so on.
enum class Property { kAlpha, kAlnum, kDecimal, kDigit, kNumeric, kSpace, kPrintable, kAscii };
bool HasProperty(std::string_view text, Property property, Budget* budget);
bool IsCase(std::string_view text, Case is, Budget* budget);  // kUpper, kLower or kTitle

// &, <, >, ' and " as HTML writes them.
void AppendEscaped(std::string_view text, TextBuilder* out);
// A text cut at every end of a line that Python knows; with the ends when they are to be kept.
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends, Budget* budget);

}  // namespace sessa::jinja
