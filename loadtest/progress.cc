// The progress line; see progress.h.
#include "loadtest/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sessa::loadtest {
namespace {

constexpr double kRateSeconds = 3;  // shorter ones flicker, longer ones hide a stall
constexpr int kPlainWidth = 200;

std::string Short(double value) {
  if (value >= 1e6) return absl::StrFormat("%.1fM", value / 1e6);
  if (value >= 1e4) return absl::StrFormat("%.0fk", value / 1e3);
  if (value >= 1e3) return absl::StrFormat("%.1fk", value / 1e3);
  return absl::StrFormat("%.*f", value < 10 ? 1 : 0, value);
}

// "[####......]" of the share that is done.
std::string Bar(double share) {
  constexpr int kCells = 20;
  const int full = static_cast<int>(std::clamp(share, 0.0, 1.0) * kCells);
  return absl::StrCat("[", std::string(full, '#'), std::string(kCells - full, '.'), "]");
}

}  // namespace

ProgressOptions ProgressOnStderr() {
  ProgressOptions options;
  options.out = &std::cerr;
  options.is_terminal = isatty(STDERR_FILENO);
  options.width = [] {
    winsize size = {};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  };
  return options;
}

void Progress::Start(absl::string_view label) {
  label_ = std::string(label);
  recent_.clear();
  shown_at_ = kNever;
}

void Progress::Update(const LiveCounts& counts) {
  recent_.push_back(counts);
  while (recent_.size() > 2 && recent_[1].now <= counts.now - kRateSeconds) recent_.pop_front();
  const double interval = options_.is_terminal ? options_.terminal_interval : options_.plain_interval;
  if (std::isnan(shown_at_) && !options_.is_terminal) shown_at_ = counts.now;  // a log needs no line of zeros
  if (counts.now - shown_at_ < interval) return;
  Show();
}

void Progress::Note(absl::string_view text) {
  if (options_.out == nullptr) return;
  ClearLine();
  *options_.out << text << "\n" << std::flush;
}

void Progress::Finish() {
  if (!recent_.empty()) Show();
  if (line_open_) *options_.out << "\n" << std::flush;
  line_open_ = false;
  recent_.clear();
}

void Progress::Show() {
  if (options_.out == nullptr) return;
  shown_at_ = recent_.back().now;
  ClearLine();
  // A line as wide as the terminal would wrap on some of them, so the last column stays free.
  const int width = options_.is_terminal ? options_.width() - 1 : kPlainWidth;
  *options_.out << Line(width) << (options_.is_terminal ? "" : "\n") << std::flush;
  line_open_ = options_.is_terminal;
}

void Progress::ClearLine() {
  if (line_open_) *options_.out << "\r\x1b[K";
  line_open_ = false;
}

std::string Progress::Line(int width) const {
  const LiveCounts& first = recent_.front();
  const LiveCounts& now = recent_.back();
  const double seconds = now.now - first.now;
  const bool has_end = now.planned > 0 || now.end > 0;

  // The parts stand by importance: what does not fit is left out from the end.
  std::vector<std::string> parts;
  if (!label_.empty()) parts.push_back(label_);
  if (options_.is_terminal && has_end) {
    parts.push_back(Bar(now.planned > 0
                            ? static_cast<double>(now.ok + now.failed + now.cancelled) / now.planned
                            : now.now / now.end));
  }
  parts.push_back(now.end > 0 ? absl::StrFormat("%.0f/%.0f s", now.now, now.end)
                              : absl::StrFormat("%.0f s", now.now));
  parts.push_back(now.planned > 0 ? absl::StrFormat("%d/%d ok", now.ok, now.planned)
                                  : absl::StrFormat("%d ok", now.ok));
  if (now.failed > 0) parts.push_back(absl::StrFormat("%d failed", now.failed));
  parts.push_back(absl::StrFormat("%d in flight", now.in_flight));
  if (seconds > 0) {
    parts.push_back(absl::StrCat(Short((now.output_tokens - first.output_tokens) / seconds), " tok/s"));
    parts.push_back(absl::StrCat(Short((now.ok - first.ok) / seconds), " req/s"));
  }
  if (now.max_send_lag >= 0.001) parts.push_back(absl::StrFormat("lag %.0f ms", now.max_send_lag * 1e3));
  if (now.cancelled > 0) parts.push_back(absl::StrFormat("%d cancelled", now.cancelled));

  std::string line;
  for (const std::string& part : parts) {
    const std::string joined = absl::StrCat(line, line.empty() ? "" : "  ", part);
    if (static_cast<int>(joined.size()) > width) break;
    line = joined;
  }
  return line;
}

}  // namespace sessa::loadtest
