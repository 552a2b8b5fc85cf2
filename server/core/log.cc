// See log.h.
#include "server/core/log.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "engine/mutex.h"

namespace sessa {
namespace {

// Whole lines of at most PIPE_BUF bytes, which a pipe takes in one piece though other processes write to it
// too.
absl::string_view NextPiece(absl::string_view lines) {
  if (lines.size() <= PIPE_BUF) return lines;
  size_t end = lines.substr(0, PIPE_BUF).rfind('\n');
  if (end == absl::string_view::npos) end = lines.find('\n');
  return lines.substr(0, end + 1);
}

// Waits as long as the descriptor makes it. What could not be written.
absl::string_view WritePiece(int fd, absl::string_view piece) {
  while (!piece.empty()) {
    const ssize_t n = write(fd, piece.data(), piece.size());
    if (n > 0) {
      piece.remove_prefix(n);
    } else if (n < 0 && errno == EAGAIN) {  // made so by whom we share it with
      pollfd ready = {fd, POLLOUT, 0};
      poll(&ready, 1, -1);
    } else if (n == 0 || errno != EINTR) {
      break;
    }
  }
  return piece;
}

}  // namespace

struct LineWriter::State {
  State(int fd, size_t max_bytes) : fd(fd), max_bytes(max_bytes) { waiting.reserve(max_bytes); }

  const int fd;
  const size_t max_bytes;
  Mutex mutex;
  std::condition_variable_any news, idle;
  std::string waiting ABSL_GUARDED_BY(mutex);
  int64_t num_dropped ABSL_GUARDED_BY(mutex) = 0;
  bool writing ABSL_GUARDED_BY(mutex) = false;
  bool stop ABSL_GUARDED_BY(mutex) = false;
};

LineWriter::LineWriter(int fd, size_t max_bytes) : state_(std::make_shared<State>(fd, max_bytes)) {
  std::thread([state = state_] { Run(state); }).detach();
}

LineWriter::~LineWriter() {
  MutexLock lock(&state_->mutex);
  state_->stop = true;
  state_->news.notify_one();
}

void LineWriter::Write(absl::string_view line) {
  MutexLock lock(&state_->mutex);
  std::string& waiting = state_->waiting;
  if (waiting.size() + line.size() + 1 > state_->max_bytes) {
    ++state_->num_dropped;
    return;
  }
  const size_t begin = waiting.size();
  waiting.append(line.data(), line.size());
  std::replace(waiting.begin() + begin, waiting.end(), '\n', ' ');
  waiting += '\n';
  state_->news.notify_one();
}

bool LineWriter::Flush(absl::Duration timeout) {
  MutexLock lock(&state_->mutex);
  State* s = state_.get();
  return WaitUntil(&s->idle, &s->mutex, MonotonicNow() + timeout,
                   [s]()
                       ABSL_EXCLUSIVE_LOCKS_REQUIRED(s->mutex) { return s->waiting.empty() && !s->writing; });
}

int64_t LineWriter::num_dropped() const {
  MutexLock lock(&state_->mutex);
  return state_->num_dropped;
}

void LineWriter::Run(const std::shared_ptr<State>& state) {
  std::string lines;
  lines.reserve(state->max_bytes);
  int64_t num_told = 0;  // of those dropped
  bool cut = false;      // the last line that was begun lacks its end
  while (true) {
    int64_t num_dropped = 0;
    {
      MutexLock lock(&state->mutex);
      state->writing = false;
      if (state->waiting.empty()) state->idle.notify_all();
      while (state->waiting.empty() && !state->stop) state->news.wait(state->mutex);
      if (state->stop) return;
      state->writing = true;
      lines.swap(state->waiting);
      num_dropped = state->num_dropped;
    }
    int64_t num_lost = 0;
    for (absl::string_view rest = lines; !rest.empty();) {
      const absl::string_view piece = NextPiece(rest);
      rest.remove_prefix(piece.size());
      if (cut && !WritePiece(state->fd, "\n").empty()) {
        num_lost += std::count(piece.begin(), piece.end(), '\n');
        continue;
      }
      const absl::string_view left = WritePiece(state->fd, piece);
      num_lost += std::count(left.begin(), left.end(), '\n');
      cut = !left.empty() && left.size() < piece.size() && piece[piece.size() - left.size() - 1] != '\n';
    }
    lines.clear();
    if (num_lost > 0) {
      MutexLock lock(&state->mutex);
      state->num_dropped += num_lost;
    } else if (num_dropped > num_told &&
               WritePiece(state->fd, absl::StrCat(num_dropped - num_told, " log lines dropped\n")).empty()) {
      num_told = num_dropped;
    }
  }
}

LineWriter& StderrLog() {
  static LineWriter& log = *new LineWriter(STDERR_FILENO);  // never destroyed: threads may log to the end
  return log;
}

std::string Quoted(absl::string_view value) {
  const absl::string_view cut = value.substr(0, kMaxLoggedBytes);
  const auto is_plain = [](char c) { return absl::ascii_isgraph(c) && c != '"' && c != '\\' && c != '='; };
  std::string text;
  if (!cut.empty() && std::all_of(cut.begin(), cut.end(), is_plain)) {
    text = std::string(cut);
  } else {
    text = absl::StrCat("\"", absl::CHexEscape(cut), "\"");
  }
  return cut.size() < value.size() ? absl::StrCat(text, "...") : text;
}

}  // namespace sessa
