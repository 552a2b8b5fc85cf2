// See line_writer.h.
#include "server/core/line_writer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "engine/mutex.h"

namespace sessa {
namespace {

constexpr char kErase[] = "\x1b[K";  // from the cursor, which a carriage return has put at the line's begin

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
  State(int fd, size_t max_bytes, Tell tell) : fd(fd), max_bytes(max_bytes), tell(tell) {
    waiting.reserve(max_bytes);
  }
  bool HasRoom(size_t num_bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return waiting.size() + num_bytes <= max_bytes;
  }
  // `line` without breaks, then `end`.
  void Append(absl::string_view line, char end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const size_t begin = waiting.size();
    waiting.append(line.data(), line.size());
    std::replace(waiting.begin() + begin, waiting.end(), '\n', ' ');
    waiting += end;
    news.notify_one();
  }

  const int fd;
  const size_t max_bytes;
  const Tell tell;
  Mutex mutex;
  std::condition_variable_any news, idle;
  std::string waiting ABSL_GUARDED_BY(mutex);
  bool is_transient ABSL_GUARDED_BY(mutex) = false;   // what was written last
  size_t transient_begin ABSL_GUARDED_BY(mutex) = 0;  // in `waiting`, of a transient line at its end
  int64_t num_dropped ABSL_GUARDED_BY(mutex) = 0;
  bool writing ABSL_GUARDED_BY(mutex) = false;
  bool stop ABSL_GUARDED_BY(mutex) = false;
};

LineWriter::LineWriter(int fd, size_t max_bytes, Tell tell)
    : state_(std::make_shared<State>(fd, max_bytes, tell)) {
  std::thread([state = state_] { Run(state); }).detach();
}

std::string LineWriter::TellPlainly(int64_t num_dropped) {
  return absl::StrCat(num_dropped, " log lines dropped\n");
}

LineWriter::~LineWriter() {
  MutexLock lock(&state_->mutex);
  state_->stop = true;
  state_->news.notify_one();
}

void LineWriter::Write(absl::string_view line) {
  State* s = state_.get();
  MutexLock lock(&s->mutex);
  if (!s->HasRoom(sizeof(kErase) + line.size() + 1)) {
    ++s->num_dropped;
    return;
  }
  if (std::exchange(s->is_transient, false)) s->waiting += kErase;
  s->Append(line, '\n');
}

void LineWriter::WriteTransient(absl::string_view line) {
  State* s = state_.get();
  MutexLock lock(&s->mutex);
  if (s->is_transient && s->transient_begin < s->waiting.size()) s->waiting.resize(s->transient_begin);
  line = line.substr(0, kMaxTransientBytes);
  if (!s->HasRoom(sizeof(kErase) + line.size() + 1)) return;
  s->transient_begin = s->waiting.size();
  s->is_transient = true;
  s->waiting += kErase;
  s->Append(line, '\r');
}

bool LineWriter::Flush(absl::Duration timeout) {
  State* s = state_.get();
  MutexLock lock(&s->mutex);
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
    } else if (num_dropped > num_told && WritePiece(state->fd, state->tell(num_dropped - num_told)).empty()) {
      num_told = num_dropped;
    }
  }
}

}  // namespace sessa
