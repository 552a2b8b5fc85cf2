#include "engine/page_forecast.h"

#include <algorithm>
#include <cmath>

#include "kernels/round.h"

namespace sessa {
namespace {

constexpr double kForget = 1.0 - 1.0 / 64;
// Until answers have ended, one of 256 tokens counts as seen: chats leave max_tokens at all that fits.
constexpr double kPriorTokens = 256;

int GrowthOf(const PageDemand& d, int num_steps, int page_size) {
  return std::max(0, CeilDiv(d.num_cached + num_steps, page_size) - d.num_held);
}

}  // namespace

void AnswerLengths::Observe(int num_generated, int max_tokens) {
  generated_ = kForget * generated_ + num_generated;
  allowed_ = kForget * allowed_ + max_tokens;
}

int AnswerLengths::ExpectedRemaining(int num_generated, int max_tokens) const {
  const double share = (generated_ + std::min<double>(kPriorTokens, max_tokens)) / (allowed_ + max_tokens);
  return static_cast<int>(std::ceil(share * (max_tokens - num_generated)));
}

int PeakGrowth(absl::Span<PageDemand> demands, int page_size) {
  std::sort(demands.begin(), demands.end(),
            [](const PageDemand& a, const PageDemand& b) { return a.remaining < b.remaining; });
  int peak = 0, released = 0;
  for (size_t next = 0; next < demands.size(); ++next) {  // just before this one ends
    const int steps = demands[next].remaining;
    int growth = 0;
    for (size_t i = next; i < demands.size(); ++i) growth += GrowthOf(demands[i], steps, page_size);
    peak = std::max(peak, growth - released);
    released += demands[next].num_own;
  }
  return peak;
}

}  // namespace sessa
