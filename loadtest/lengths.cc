// See lengths.h.
#include "loadtest/lengths.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sessa::loadtest {
namespace {

absl::Status Bad(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("'", text, "': ", why));
}

absl::StatusOr<int> ParseTokens(absl::string_view text, absl::string_view whole) {
  absl::string_view digits = absl::StripAsciiWhitespace(text);
  const int64_t unit = absl::ConsumeSuffix(&digits, "K") || absl::ConsumeSuffix(&digits, "k") ? 1024 : 1;
  int64_t count = 0;
  if (!absl::SimpleAtoi(digits, &count))
    return Bad(whole, absl::StrCat("'", text, "' is not a number of tokens"));
  if (count < 1 || count > kMaxTokens / unit)
    return Bad(whole, absl::StrCat(text, " is not within 1 and ", kMaxTokens));
  return static_cast<int>(count * unit);
}

absl::StatusOr<std::pair<int, int>> ParseRange(absl::string_view text, absl::string_view whole) {
  const std::pair<absl::string_view, absl::string_view> ends = absl::StrSplit(text, absl::MaxSplits('-', 1));
  absl::StatusOr<int> low = ParseTokens(ends.first, whole);
  if (!low.ok()) return low.status();
  absl::StatusOr<int> high = ParseTokens(ends.second, whole);
  if (!high.ok()) return high.status();
  if (*low > *high) return Bad(whole, absl::StrCat(*low, " is above ", *high));
  return std::pair(*low, *high);
}

int Round(double tokens) { return static_cast<int>(std::clamp<double>(std::round(tokens), 1, kMaxTokens)); }

}  // namespace

Lengths Lengths::Uniform(int low, int high) {
  Lengths lengths;
  lengths.low_ = low;
  lengths.high_ = high;
  return lengths;
}

Lengths Lengths::LogNormal(int median, double sigma, int low, int high) {
  Lengths lengths = Uniform(low, high);
  lengths.median_ = median;
  lengths.sigma_ = sigma;
  return lengths;
}

absl::StatusOr<Lengths> Lengths::Parse(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  const size_t tilde = text.find('~');
  if (tilde == absl::string_view::npos) {
    if (text.find('-') == absl::string_view::npos) {
      absl::StatusOr<int> tokens = ParseTokens(text, text);
      if (!tokens.ok()) return tokens.status();
      return Fixed(*tokens);
    }
    auto range = ParseRange(text, text);
    if (!range.ok()) return range.status();
    return Uniform(range->first, range->second);
  }
  absl::StatusOr<int> median = ParseTokens(text.substr(0, tilde), text);
  if (!median.ok()) return median.status();
  absl::string_view rest = text.substr(tilde + 1);
  std::pair<int, int> range = {0, 0};
  if (const size_t open = rest.find('['); open != absl::string_view::npos) {
    absl::string_view bounds = rest.substr(open + 1);
    if (!absl::ConsumeSuffix(&bounds, "]")) return Bad(text, "the bounds need a closing ]");
    auto parsed = ParseRange(bounds, text);
    if (!parsed.ok()) return parsed.status();
    range = *parsed;
    rest = rest.substr(0, open);
  }
  double sigma = 0;
  if (!absl::SimpleAtod(rest, &sigma) || !(sigma > 0 && sigma <= 5))
    return Bad(text, absl::StrCat("sigma '", rest, "' is not a number above 0 and at most 5"));
  if (range.second == 0)
    range = {Round(*median * std::exp(-3 * sigma)), Round(*median * std::exp(3 * sigma))};
  if (*median < range.first || *median > range.second)
    return Bad(text, "the median is outside of the bounds");
  return LogNormal(*median, sigma, range.first, range.second);
}

int Lengths::Draw(Random* random) const {
  if (median_ == 0) return static_cast<int>(random->Between(low_, high_));
  const double normal = std::normal_distribution<double>()(*random);
  return static_cast<int>(std::clamp<double>(std::round(median_ * std::exp(sigma_ * normal)), low_, high_));
}

Lengths Lengths::Scaled(double factor) const {
  Lengths scaled = *this;
  scaled.low_ = Round(low_ * factor);
  scaled.high_ = Round(high_ * factor);
  scaled.median_ = median_ * factor;
  return scaled;
}

absl::StatusOr<std::vector<LengthPair>> ParseLengthPairs(absl::string_view text) {
  std::vector<LengthPair> pairs;
  for (absl::string_view item : absl::StrSplit(text, ';')) {
    item = absl::StripAsciiWhitespace(item);
    LengthPair pair;
    absl::string_view lengths = item;
    if (const size_t colon = item.find(':'); colon != absl::string_view::npos) {
      lengths = item.substr(0, colon);
      if (!absl::SimpleAtod(item.substr(colon + 1), &pair.weight) || !(pair.weight > 0 && pair.weight <= 1e9))
        return Bad(item, "the weight is not a number above 0");
    }
    const std::vector<absl::string_view> parts = absl::StrSplit(lengths, ',');
    if (parts.size() != 2) return Bad(item, "not of the form 'input,output' or 'input,output:weight'");
    absl::StatusOr<Lengths> input = Lengths::Parse(parts[0]);
    if (!input.ok()) return Bad(item, absl::StrCat("input ", input.status().message()));
    absl::StatusOr<Lengths> output = Lengths::Parse(parts[1]);
    if (!output.ok()) return Bad(item, absl::StrCat("output ", output.status().message()));
    pair.text = std::string(lengths);
    pair.input = *input;
    pair.output = *output;
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

}  // namespace sessa::loadtest
