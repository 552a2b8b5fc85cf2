// The normalizers of tokenizer.json that byte-level checkpoints use: null, NFC, NFD, NFKC, NFKD, Lowercase,
// Strip and Sequences of them. Constant, thread-safe.
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sessa {

class Normalizer {
 public:
  // `json`: the "normalizer" of tokenizer.json. INVALID_ARGUMENT names a type that is not supported.
  static absl::StatusOr<Normalizer> Parse(const boost::json::value& json);

  // Requires: well-formed UTF-8.
  std::string Apply(std::string_view text) const;
  // Apply leaves at least one byte of so many; 0: it may leave none at all.
  int MaxShrink() const;

 private:
  enum class Step { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kStripLeft, kStripRight };
  absl::Status Add(const boost::json::value& json, int depth);
  std::vector<Step> steps_;
};

}  // namespace sessa
