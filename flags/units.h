// Types of flags with units. A plain number is taken as it always was: bytes, or what the flag's name ends
// in.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace sessa {

// 65536, 512MiB, 4GiB, 1.5Gi (powers of 1024), 4GB, 500k (powers of 1000); at least 0.
struct ByteSize {
  int64_t bytes = 0;
};
bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error);
std::string AbslUnparseFlag(ByteSize size);  // 4MiB where that is exact

// 30 and 0.5 are seconds; also 30s, 250ms, 1h30m. Finite.
struct FlagSeconds {
  double value = 0;
};
bool AbslParseFlag(absl::string_view text, FlagSeconds* seconds, std::string* error);
std::string AbslUnparseFlag(FlagSeconds seconds);  // a plain number

// The same; a plain number is milliseconds.
struct FlagMilliseconds {
  double value = 0;
};
bool AbslParseFlag(absl::string_view text, FlagMilliseconds* milliseconds, std::string* error);
std::string AbslUnparseFlag(FlagMilliseconds milliseconds);

}  // namespace sessa
