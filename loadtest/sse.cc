// See sse.h.
#include "loadtest/sse.h"

#include "absl/strings/strip.h"

namespace sessa::loadtest {

bool SseParser::Feed(absl::string_view bytes) {
  while (!bytes.empty()) {
    if (skip_lf_) {
      skip_lf_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const size_t end = bytes.find_first_of("\r\n");
    if (end == absl::string_view::npos) {
      line_.append(bytes.data(), bytes.size());
      return true;
    }
    skip_lf_ = bytes[end] == '\r';
    bool more;
    if (line_.empty()) {
      more = OnLine(bytes.substr(0, end));
    } else {
      line_.append(bytes.data(), end);
      more = OnLine(line_);
      line_.clear();
    }
    bytes.remove_prefix(end + 1);
    if (!more) return false;
  }
  return true;
}

bool SseParser::OnLine(absl::string_view line) {
  if (at_start_) {
    at_start_ = false;
    absl::ConsumePrefix(&line, "\xEF\xBB\xBF");
  }
  if (line.empty()) {
    if (data_.empty()) return true;
    data_.pop_back();  // the last line's LF
    const bool more = on_event_(data_);
    data_.clear();
    return more;
  }
  if (!absl::ConsumePrefix(&line, "data")) return true;                // a comment, or another field
  if (!line.empty() && !absl::ConsumePrefix(&line, ":")) return true;  // "database: ..."
  absl::ConsumePrefix(&line, " ");
  data_.append(line.data(), line.size());
  data_ += '\n';
  return true;
}

}  // namespace sessa::loadtest
