// What runs a connection's strand: its server's usual threads, or, while `yields` says so, those that are
// nicer. Reading a body of megabytes costs milliseconds of a core, half of them for memory that is new; at
// the engine's priority streams waited for them, and for those of four such bodies at once.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/strand.hpp"

namespace sessa {

// An executor in Boost.Asio's sense, to be had a strand of. Copies share `yields`. Thread-safe.
class YieldingExecutor {
 public:
  using Any = boost::asio::any_io_executor;
  using Blocking = boost::asio::execution::blocking_t;

  // Sockets and timers belong to the context of `usual`.
  YieldingExecutor(Any usual, Any nicer) : usual_(std::move(usual)), nicer_(std::move(nicer)) {}
  // Requires: `strand` is one of these.
  static YieldingExecutor Of(const Any& strand) {
    return strand.target<boost::asio::strand<YieldingExecutor>>()->get_inner_executor();
  }

  const std::shared_ptr<std::atomic<bool>>& yields() const { return yields_; }

  template <typename F>
  void execute(F&& function) const {
    (*yields_ ? nicer_ : usual_).execute(std::forward<F>(function));
  }
  boost::asio::execution_context& query(boost::asio::execution::context_t) const noexcept {
    return usual_.context();
  }
  Blocking query(Blocking) const noexcept {
    return boost::asio::query(usual_, boost::asio::execution::blocking);
  }
  YieldingExecutor require(Blocking::never_t never) const {
    YieldingExecutor other = *this;
    other.usual_ = boost::asio::require(usual_, never);
    other.nicer_ = boost::asio::require(nicer_, never);
    return other;
  }
  bool operator==(const YieldingExecutor& other) const noexcept {
    return yields_ == other.yields_ && usual_ == other.usual_ && nicer_ == other.nicer_;
  }
  bool operator!=(const YieldingExecutor& other) const noexcept { return !(*this == other); }

 private:
  Any usual_, nicer_;
  std::shared_ptr<std::atomic<bool>> yields_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace sessa
