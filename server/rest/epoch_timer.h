// A timer that can be set anew or stopped: a function that was due just before that is not called any more.
// Used on one strand; `on_due` keeps the timer's owner alive.
#pragma once

#include <cstdint>
#include <utility>

#include "absl/time/time.h"
#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/steady_timer.hpp"

namespace sessa {

class EpochTimer {
 public:
  explicit EpochTimer(const boost::asio::any_io_executor& executor) : timer_(executor) {}

  template <typename F>
  void Start(absl::Duration after, F on_due) {
    timer_.expires_after(absl::ToChronoNanoseconds(after));
    timer_.async_wait(
        [this, epoch = ++epoch_, on_due = std::move(on_due)](const boost::system::error_code& ec) {
          if (!ec && epoch == epoch_) on_due();
        });
  }
  void Stop() {
    ++epoch_;
    timer_.cancel();
  }

 private:
  boost::asio::steady_timer timer_;
  uint64_t epoch_ = 0;
};

}  // namespace sessa
