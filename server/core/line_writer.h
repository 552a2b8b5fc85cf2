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
  // The line, with its break, that tells of lines that were dropped.
  using Tell = std::string (*)(int64_t num_dropped);

  explicit LineWriter(int fd, size_t max_bytes = kMaxBytes, Tell tell = &TellPlainly);
  // Gives up what waits. Does not wait for a write that hangs: its thread keeps what it needs alive.
  ~LineWriter();

  // A line break is added; those inside become spaces. Never blocks on the descriptor, and allocates nothing.
  void Write(absl::string_view line);
  // For a terminal: what the next line, of either kind, takes the place of. At most kMaxTransientBytes; one
  // that waits still is replaced.
  void WriteTransient(absl::string_view line);
  // Waits until all is written or dropped; false when that takes longer.
  bool Flush(absl::Duration timeout);
  int64_t num_dropped() const;

  static constexpr size_t kMaxTransientBytes = 512;

 private:
  struct State;
  static std::string TellPlainly(int64_t num_dropped);
  static void Run(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
};

}  // namespace sessa
