// Stop strings and UTF-8; see text_stream.h.
#include "server/core/text_stream.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/tokenizer/utf8.h"

namespace sessa {

std::string StopMatcher::Push(absl::string_view text) {
  if (stopped_) return "";
  if (stops_.empty()) return std::string(text);
  pending_.append(text.data(), text.size());
  size_t best_end = std::string::npos, best_begin = 0;
  for (const std::string& stop : stops_) {
    const size_t begin = pending_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (best_end == std::string::npos || end < best_end || (end == best_end && begin < best_begin)) {
      best_end = end;
      best_begin = begin;
    }
  }
  if (best_end != std::string::npos) {
    stopped_ = true;
    matched_ = pending_.substr(best_begin, best_end - best_begin);
    std::string out = pending_.substr(0, include_ ? best_end : best_begin);
    pending_.clear();
    return out;
  }
  size_t hold = 0;  // the longest suffix that a stop string begins with
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, pending_.size()); n > hold; --n) {
      if (pending_.compare(pending_.size() - n, n, stop, 0, n) == 0) {
        hold = n;
        break;
      }
    }
  }
  std::string out = pending_.substr(0, pending_.size() - hold);
  pending_.erase(0, pending_.size() - hold);
  return out;
}

std::string StopMatcher::PassThrough(absl::string_view text) {
  if (stopped_) return "";
  std::string out = absl::StrCat(pending_, text);
  pending_.clear();
  return out;
}

std::string StopMatcher::Flush() {
  std::string out;
  out.swap(pending_);
  return out;
}

int64_t CountCodePoints(absl::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::string PrintableToken(absl::string_view bytes) {
  if (FindInvalidUtf8({bytes.data(), bytes.size()}) == std::string_view::npos) return std::string(bytes);
  std::string out = "bytes:";
  for (unsigned char c : bytes) absl::StrAppendFormat(&out, "\\x%02x", c);
  return out;
}

}  // namespace sessa
