// Guesses how a sequence goes on: as it did where its last tokens stood before (prompt lookup decoding,
// Saxena 2023; LLMA, Yang et al. 2023). Edits, extractions and quotes repeat long pieces of what they are
// made from, and a guess costs next to nothing. A guess may be wrong and never matters for what is generated:
// the Scheduler has each one verified. Owned by its Sequence, which holds the tokens; not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace sessa {

// Follows one earlier place of the text for as long as it goes on alike, and looks for a new one, the latest
// that the last kGram tokens stand at, when it does not. So a token costs O(1), however long the text is.
class NgramDrafter {
 public:
  static constexpr int kGram = 3;             // tokens that have to repeat
  static constexpr int kMaxPlaces = 1 << 17;  // remembered, 4 bytes each; of a longer text the latest

  // Takes note of the tokens behind those that it has seen. Requires: the same tokens as before, and more.
  // Those from prompt_size on count for Chance.
  void Observe(absl::Span<const int32_t> tokens, int prompt_size);

  // Appends what it expects behind the tokens, which it has all seen: `most` of them, or none.
  void Draft(absl::Span<const int32_t> tokens, int most, std::vector<int32_t>* drafts) const;

  // How likely the i-th token of a draft is right where all before it are, in (0, 1): by how often this
  // sequence has lately gone on as a match of that length let expect, whether or not it was drafted then.
  double Chance(int i) const;

 private:
  struct Outcomes {
    double hits = 0, tries = 0;  // forgetting sums
  };
  static constexpr int kLengths = 5;  // of matches: 3, 4 to 5, 6 to 9, 10 to 17, more
  static int LengthClass(int length);

  void Remember(absl::Span<const int32_t> tokens, int end);
  int32_t* PlaceOf(absl::Span<const int32_t> gram);
  int MatchingTokens(absl::Span<const int32_t> tokens, int a, int b) const;

  std::vector<int32_t> places_;  // [a power of two] by hash: one behind the last token of a gram; 0: none
  int num_seen_ = 0;
  int match_ = -1;  // index of the token expected next; -1: nothing to go by
  int length_ = 0;  // of the match: the tokens before match_ that are the last ones too
  std::array<Outcomes, kLengths> outcomes_ = {};
};

}  // namespace sessa
