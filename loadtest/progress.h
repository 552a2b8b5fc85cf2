// The line that tells how a run goes: rewritten in place on a terminal, and never wider than it; elsewhere (a
// log) a plain line every few seconds. Fed by the runner, several times a second. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <iosfwd>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "loadtest/record.h"

namespace sessa::loadtest {

struct LiveCounts {
  double now = 0;        // seconds since the run's start
  double end = kNever;   // when the last request will be sent; NaN: not known
  int64_t planned = -1;  // requests in all; -1: not known
  int64_t sent = 0, ok = 0, failed = 0, cancelled = 0, in_flight = 0;
  int64_t output_tokens = 0;
  double max_send_lag = 0;  // seconds
};

struct ProgressOptions {
  std::ostream* out = nullptr;  // null: silent
  bool is_terminal = false;
  std::function<int()> width = nullptr;                // columns of the terminal, asked for at every line
  double terminal_interval = 0.1, plain_interval = 5;  // seconds between lines, at least
};

// On stderr, which may be a terminal or not.
ProgressOptions ProgressOnStderr();

class Progress {
 public:
  explicit Progress(ProgressOptions options) : options_(std::move(options)) {}

  // A new run; label is at the head of each of its lines ("2/5, 8 req/s"), and may be empty.
  void Start(absl::string_view label);
  void Update(const LiveCounts& counts);
  // A line of its own, which stays.
  void Note(absl::string_view text);
  // Shows the last counts and leaves the line.
  void Finish();

 private:
  std::string Line(int width) const;
  void Show();
  void ClearLine();

  const ProgressOptions options_;
  std::string label_;
  std::deque<LiveCounts> recent_;  // as given, of the last seconds: rates are taken over them
  double shown_at_ = kNever;
  bool line_open_ = false;  // a terminal's line that is to be rewritten
};

}  // namespace sessa::loadtest
