// Lengths in tokens, drawn from a distribution that the user writes in a few characters:
//   512                  always 512 (K stands for 1024: 8K)
//   256-1024             uniform, both ends included
//   512~0.8              log-normal with median 512 and sigma 0.8 of the logarithm, cut at 3 sigma
//   512~0.8[16-4096]     the same, cut at these bounds
// and pairs of them with weights: "in,out" or "in,out:weight;in,out:weight;...".
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loadtest/random.h"

namespace sessa::loadtest {

inline constexpr int kMaxTokens = 16 << 20;  // more in one request is a slip of the pen

class Lengths {
 public:
  Lengths() = default;  // always 1
  static Lengths Fixed(int tokens) { return Uniform(tokens, tokens); }
  static Lengths Uniform(int low, int high);
  static Lengths LogNormal(int median, double sigma, int low, int high);
  // INVALID_ARGUMENT names the text. Tokens are in [1, kMaxTokens].
  static absl::StatusOr<Lengths> Parse(absl::string_view text);

  int Draw(Random* random) const;
  int low() const { return low_; }
  int high() const { return high_; }
  // Every length times `factor`, at least 1.
  Lengths Scaled(double factor) const;

 private:
  int low_ = 1, high_ = 1;
  double median_ = 0, sigma_ = 0;  // median 0: uniform
};

struct LengthPair {
  std::string text;  // without the weight
  Lengths input, output;
  double weight = 1;
};

// INVALID_ARGUMENT names the pair that is wrong, and why.
absl::StatusOr<std::vector<LengthPair>> ParseLengthPairs(absl::string_view text);

}  // namespace sessa::loadtest
