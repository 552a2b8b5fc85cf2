#include "engine/ngram_drafter.h"

#include <algorithm>
#include <bit>

namespace sessa {
namespace {

constexpr size_t kFewestPlaces = 256;
constexpr int kLongest = 32;  // of a match, in tokens: longer ones are no safer
// Before a sequence has shown how it goes: about what English text and code give.
constexpr double kPriorHits[] = {0.4, 0.5, 0.65, 0.8, 0.9};
constexpr double kPriorWeight = 1;
constexpr double kForget = 1.0 - 1.0 / 16;  // a text changes its ways within some tens of tokens

}  // namespace

int NgramDrafter::LengthClass(int length) {
  return std::min<int>(kLengths, std::bit_width(static_cast<unsigned>(length - kGram + 1))) - 1;
}

int32_t* NgramDrafter::PlaceOf(absl::Span<const int32_t> gram) {
  uint64_t hash = 0;
  for (int32_t token : gram) hash = (hash ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15u;
  return &places_[(hash >> 32) & (places_.size() - 1)];
}

void NgramDrafter::Remember(absl::Span<const int32_t> tokens, int end) {
  if (end >= kGram) *PlaceOf(tokens.subspan(end - kGram, kGram)) = end;
}

// How many tokens before a and b are the same.
int NgramDrafter::MatchingTokens(absl::Span<const int32_t> tokens, int a, int b) const {
  int n = 0;
  while (n < std::min({a, b, kLongest}) && tokens[a - 1 - n] == tokens[b - 1 - n]) ++n;
  return n;
}

void NgramDrafter::Observe(absl::Span<const int32_t> tokens, int prompt_size) {
  const size_t wanted = std::clamp<size_t>(std::bit_ceil(tokens.size()), kFewestPlaces, kMaxPlaces);
  if (places_.size() < wanted) {  // doubles at least, so that all in all a token is hashed twice
    places_.assign(wanted, 0);
    for (int end = kGram; end <= num_seen_; ++end) Remember(tokens, end);
  }
  while (num_seen_ < static_cast<int>(tokens.size())) {
    const int32_t token = tokens[num_seen_];
    if (match_ >= 0) {
      const bool hit = tokens[match_] == token;
      if (num_seen_ >= prompt_size) {
        Outcomes& outcomes = outcomes_[LengthClass(length_)];
        outcomes.hits = kForget * outcomes.hits + (hit ? 1 : 0);
        outcomes.tries = kForget * outcomes.tries + 1;
      }
      match_ = hit ? match_ + 1 : -1;
      length_ = std::min(length_ + 1, kLongest);
    }
    const int end = ++num_seen_;
    if (match_ < 0 && end >= kGram) {
      const int place = *PlaceOf(tokens.subspan(end - kGram, kGram));
      length_ = place > 0 ? MatchingTokens(tokens, place, end) : 0;
      if (length_ >= kGram) match_ = place;  // less: another gram of the same hash
    }
    Remember(tokens, end);
  }
}

// Where it comes to the end of what is known it goes on with its own guesses: a text that repeats itself.
void NgramDrafter::Draft(absl::Span<const int32_t> tokens, int most, std::vector<int32_t>* drafts) const {
  if (match_ < 0) return;
  const size_t begin = drafts->size();
  for (int i = 0; i < most; ++i) {
    const size_t from = static_cast<size_t>(match_) + i;
    drafts->push_back(from < tokens.size() ? tokens[from] : (*drafts)[begin + from - tokens.size()]);
  }
}

double NgramDrafter::Chance(int i) const {
  const int c = LengthClass(std::max(kGram, length_) + i);
  const Outcomes& outcomes = outcomes_[c];
  return (outcomes.hits + kPriorWeight * kPriorHits[c]) / (outcomes.tries + kPriorWeight);
}

}  // namespace sessa
