// Server-sent events (WHATWG HTML, "event stream interpretation"), as far as OpenAI-compatible servers use
// them: the data of each event. Bytes come in any pieces; lines end in LF, CR or CRLF.
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"

namespace sessa::loadtest {

class SseParser {
 public:
  // Called for each event that has data, with its lines joined by LF. What it sees is gone when it returns.
  // False: nothing more is wanted, Feed returns at once.
  using OnEvent = std::function<bool(absl::string_view data)>;

  explicit SseParser(OnEvent on_event) : on_event_(std::move(on_event)) {}

  // False: on_event wanted no more.
  bool Feed(absl::string_view bytes);
  // Bytes of an event that is not complete yet.
  size_t pending_bytes() const { return line_.size() + data_.size(); }

 private:
  bool OnLine(absl::string_view line);

  const OnEvent on_event_;
  std::string line_;      // the start of a line whose end has not come
  std::string data_;      // lines of the event so far, each with an LF
  bool skip_lf_ = false;  // the last line ended in CR: an LF belongs to it
  bool at_start_ = true;  // a byte order mark may come
};

}  // namespace sessa::loadtest
