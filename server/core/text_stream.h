// Stop strings in a stream of text, and small helpers on UTF-8. Invariant: what comes out depends on the text
// alone, not on how it was cut; only a possible beginning of a stop string is held back. Special tokens that
// are not shown end it all the same where a stop string names them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sessa {

class StopMatcher {
 public:
  // `include`: the matched stop string is part of the text.
  StopMatcher(std::vector<std::string> stops, bool include) : stops_(std::move(stops)), include_(include) {}

  // Text that may be shown now. The stop string whose last byte comes first ends the text (of two that end
  // together, the longer); after that stopped() is true and nothing more comes out. With `shown` false the
  // text is searched but never comes out: a stop string is looked for with and without what is not shown.
  std::string Push(absl::string_view text, bool shown = true);
  // Text that is not searched (before min_tokens).
  std::string PassThrough(absl::string_view text);
  // What was held back, at the end of the text.
  std::string Flush();

  bool stopped() const { return stopped_; }
  const std::string& matched() const { return matched_; }  // Requires: stopped()

 private:
  struct Found {
    size_t begin = std::string::npos, end = std::string::npos;
    const std::string* stop = nullptr;
  };
  Found Find(absl::string_view text) const;
  // The longest suffix of `text` that a stop string begins with.
  size_t Held(absl::string_view text) const;
  // The shown bytes of pending_ before `end`; `places`, where given, gets where each stands in pending_.
  std::string Shown(size_t end, std::vector<size_t>* places = nullptr) const;

  std::vector<std::string> stops_;
  bool include_;
  bool stopped_ = false;
  std::string
      pending_;  // at most a proper prefix of a stop string, twice: with and without what is not shown
  std::vector<bool> shown_;  // of each byte of pending_
  std::string matched_;
};

int64_t CountCodePoints(absl::string_view utf8);
// The text of a token for log-probabilities: itself when it is valid UTF-8, else "bytes:\xe2\x82".
std::string PrintableToken(absl::string_view bytes);

}  // namespace sessa
