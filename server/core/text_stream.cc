// Stop strings and UTF-8; see text_stream.h.
#include "server/core/text_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/tokenizer/utf8.h"

namespace sessa {

StopMatcher::Found StopMatcher::Find(absl::string_view text) const {
  Found best;
  for (const std::string& stop : stops_) {
    const size_t begin = text.find(stop);
    if (begin == text.npos) continue;
    const size_t end = begin + stop.size();
    if (best.stop == nullptr || end < best.end || (end == best.end && begin < best.begin))
      best = {begin, end, &stop};
  }
  return best;
}

size_t StopMatcher::Held(absl::string_view text) const {
  size_t hold = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, text.size()); n > hold; --n) {
      if (text.substr(text.size() - n) == absl::string_view(stop).substr(0, n)) {
        hold = n;
        break;
      }
    }
  }
  return hold;
}

std::string StopMatcher::Shown(size_t end, std::vector<size_t>* places) const {
  std::string out;
  for (size_t i = 0; i < end; ++i) {
    if (!shown_[i]) continue;
    out += pending_[i];
    if (places != nullptr) places->push_back(i);
  }
  return out;
}

std::string StopMatcher::Push(absl::string_view text, bool shown) {
  if (stopped_) return "";
  if (stops_.empty()) return shown ? std::string(text) : "";
  pending_.append(text.data(), text.size());
  shown_.resize(pending_.size(), shown);
  std::vector<size_t> places;
  const std::string visible = Shown(pending_.size(), &places);
  Found found = Find(pending_);
  if (Found other = Find(visible); other.stop != nullptr) {
    other.begin = places[other.begin];
    other.end = places[other.end - 1] + 1;
    if (found.stop == nullptr || other.end < found.end ||
        (other.end == found.end && other.begin < found.begin))
      found = other;
  }
  if (found.stop != nullptr) {
    stopped_ = true;
    matched_ = *found.stop;
    std::string out = Shown(found.begin);
    if (include_) out += matched_;
    pending_.clear();
    shown_.clear();
    return out;
  }
  const size_t held = Held(pending_), held_shown = Held(visible);
  const size_t whole = pending_.size() - held;  // from here on all is kept, before it only what is shown
  const size_t begin = held_shown == 0 ? whole : std::min(whole, places[visible.size() - held_shown]);
  std::string out = Shown(begin), kept;
  std::vector<bool> kept_shown;
  for (size_t i = begin; i < pending_.size(); ++i) {
    if (i < whole && !shown_[i]) continue;
    kept += pending_[i];
    kept_shown.push_back(shown_[i]);
  }
  pending_ = std::move(kept);
  shown_ = std::move(kept_shown);
  return out;
}

std::string StopMatcher::PassThrough(absl::string_view text) {
  if (stopped_) return "";
  return absl::StrCat(Flush(), text);
}

std::string StopMatcher::Flush() {
  std::string out = Shown(pending_.size());
  pending_.clear();
  shown_.clear();
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
