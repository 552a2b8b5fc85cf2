// Threads that work for long and take short turns. Being nicer is not enough: who has a core is asked to
// leave it at a timer's tick, and Linux's ticks are up to 4 ms apart (250 Hz), so that a thread which may
// have a tenth of a core had 4 ms of it at a time; a step, which waits for the slowest of the engine's
// threads, took twice as long where that came to two of them. So such a thread sleeps for a moment about
// every millisecond: another that waits has the core then, and keeps it, being less nice.
//
// A timer of its own interrupts it, as parsers and tokenizers would otherwise have to think of it everywhere.
#pragma once

#include <ctime>
#include <optional>

namespace sessa {

// Of the thread that makes it, which begins, ends and destroys it too. Where a sandbox forbids timers nothing
// changes.
class ShortTurns {
 public:
  ShortTurns();
  ~ShortTurns();
  ShortTurns(const ShortTurns&) = delete;
  ShortTurns& operator=(const ShortTurns&) = delete;

  // From Begin to End turns are short. What it calls must go on where a signal (SIGRTMIN) interrupts it: it
  // is asked for with SA_RESTART.
  void Begin();
  void End();

 private:
  std::optional<timer_t> timer_;
};

}  // namespace sessa
