// Bytes written as printable characters, GPT-2's way (Radford et al. 2019), so that any text has tokens that
// can be written down: printable bytes of Latin-1 stand for themselves, the others for characters from U+0100
// on.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sessa {

// Each byte's character.
std::string ToByteLevel(std::string_view bytes);

// The bytes of characters so written; none when some character is none of the 256.
std::optional<std::string> FromByteLevel(std::string_view text);

}  // namespace sessa
