// Content-Encoding of request bodies (RFC 9110, 8.4): gzip (RFC 1952) and zstd (RFC 8878), decoded in pieces
// of which none is kept that goes beyond the bound, so that a small body that would become a large one costs
// no more than the largest body that is taken. Pure but for the charging function.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sessa {

enum class ContentCoding { kIdentity, kGzip, kZstd };

// Of the header's value; empty is identity. None: not known here, nor is more than one.
std::optional<ContentCoding> ParseContentCoding(absl::string_view value);

enum class DecodeResult {
  kDone,
  kMalformed,  // not of that coding, cut short, or followed by something else
  kTooLarge,   // more than max_bytes
  kNoRoom,     // `charge` said no
};

// Decodes all of `coded` into `out`. `charge` hears how many bytes are about to be held for it, and may
// refuse. A zstd window of more than 8 MiB is malformed (RFC 8878, 3.1.1.1.2 lets a decoder refuse).
DecodeResult DecodeBody(ContentCoding coding, absl::string_view coded, int64_t max_bytes,
                        const std::function<bool(int64_t)>& charge, std::string* out);

}  // namespace sessa
