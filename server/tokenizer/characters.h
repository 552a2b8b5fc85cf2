// What kinds of characters there are, as Hugging Face's `tokenizers` knows them: its parts have tables of
// several versions of Unicode, none of them that of the system's ICU or PCRE2 (unicode_tables.inc).
// Thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sessa {

bool IsSpace(char32_t c);           // White_Space
bool IsNumeric(char32_t c);         // Nd, Nl, No
bool IsPunctuation(char32_t c);     // P*, and ASCII's symbols
bool IsMark(char32_t c);            // M*
bool IsNonspacingMark(char32_t c);  // Mn
bool IsControl(char32_t c);         // what BERT drops
bool IsChinese(char32_t c);         // BERT's ranges of ideographs

// The scripts between which the pre-tokenizer UnicodeScripts cuts, as numbers; kAnyScript: the space, and
// characters of no script there. Chinese and Japanese are one.
inline constexpr int kAnyScript = -1;
int ScriptOf(char32_t c);

// Lower case, but for U+0130, whose lower case is two characters.
char32_t ToLower(char32_t c);

// Whether some character is newer than PCRE2's tables, and the text with older ones for these, of as many
// bytes, that expressions see in the same way. Require: well-formed UTF-8.
bool HasNewCharacters(std::string_view text);
std::string WithoutNewCharacters(std::string_view text);

size_t SpaceAtStart(std::string_view text);       // how many bytes
size_t WithoutSpaceAtEnd(std::string_view text);  // how many bytes are left

}  // namespace sessa
