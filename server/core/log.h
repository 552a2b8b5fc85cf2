// Lines through a bounded queue with a writer thread of its own: who logs never waits for who reads. A line
// that finds the queue full is dropped, and so is what a descriptor refuses (full disk, closed pipe); both
// are counted, and told of in a line of their own once lines can be written again. All of it is thread-safe.
//
// spdlog's asynchronous logger drops and counts too, but its end waits for the writer: a server whose stderr
// nobody reads could not exit.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sessa {

class LineWriter {
 public:
  static constexpr size_t kMaxBytes = 1 << 20;  // that wait; the writer has as many in its hands

  explicit LineWriter(int fd, size_t max_bytes = kMaxBytes);
  // Gives up what waits. Does not wait for a write that hangs: its thread keeps what it needs alive.
  ~LineWriter();

  // A line break is added; those inside become spaces. Never blocks on the descriptor, and allocates nothing.
  void Write(absl::string_view line);
  // Waits until all is written or dropped; false when that takes longer.
  bool Flush(absl::Duration timeout);
  int64_t num_dropped() const;

 private:
  struct State;
  static void Run(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
};

// The process' own log, on stderr.
LineWriter& StderrLog();
inline void Log(absl::string_view line) { StderrLog().Write(line); }

inline constexpr size_t kMaxLoggedBytes = 512;  // of a value that a client wrote

// A value of logfmt: as it is when it can be mistaken for nothing else, otherwise quoted and escaped, so that
// what a client wrote stays one field of one line. Cut after kMaxLoggedBytes.
std::string Quoted(absl::string_view value);

}  // namespace sessa
