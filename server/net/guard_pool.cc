// See guard_pool.h.
#include "server/net/guard_pool.h"

#include <exception>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"

namespace sessa {
namespace {

namespace net = boost::asio;
}  // namespace

class GuardPool::Worker {
 public:
  explicit Worker(const GuardContext* context)
      : context_(context), work_(net::make_work_guard(shared_.io)), timer_(shared_.io) {
    shared_.scratch = std::make_unique<char[]>(GuardedConnection::kChunkBytes);
    Tick();
    thread_ = std::thread([this] { Run(); });
  }
  ~Worker() { Stop(); }

  void Add(ScopedFd socket, TlsContext::Context tls, bool is_own) {
    auto connection =
        std::make_shared<GuardedConnection>(&shared_, context_, std::move(socket), std::move(tls), is_own);
    net::post(shared_.io, [this, connection = std::move(connection)] {
      if (!ending_) connection->Start();
    });
  }
  void BeginShutdown() {
    absl::Notification begun;
    net::post(shared_.io, [this, &begun] {
      ending_ = true;
      for (const auto& connection : All()) connection->BeginShutdown();
      Tick();
      begun.Notify();
    });
    begun.WaitForNotification();
  }
  // Requires: BeginShutdown. False at the deadline.
  bool WaitUntilEmpty(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithDeadline(absl::Condition(&empty_), deadline);
  }
  void Stop() {
    shared_.io.stop();
    if (thread_.joinable()) thread_.join();
    for (const auto& connection : All()) connection->Close();
    // What waits holds its connection: let it hear that all is over.
    shared_.io.restart();
    shared_.io.poll();
  }

 private:
  std::vector<std::shared_ptr<GuardedConnection>> All() const {
    return {shared_.connections.begin(), shared_.connections.end()};
  }

  void Run() {
    while (true) {
      try {
        shared_.io.run();
        return;
      } catch (const std::exception&) {  // no memory for a tick, or to begin a connection: the rest goes on
      }
    }
  }

  void Tick() {
    // At the end it is looked more often: the end waits for this.
    const absl::Duration tick = ending_ ? absl::Milliseconds(10) : context_->options.tick;
    timer_.expires_after(absl::ToChronoNanoseconds(tick));
    timer_.async_wait([this](boost::system::error_code ec) {
      if (!ec) Tick();
    });
    for (const auto& connection : All()) connection->Tick(GuardedConnection::Clock::now());
    absl::MutexLock lock(&mutex_);
    empty_ = ending_ && shared_.connections.empty();
  }

  const GuardContext* const context_;
  GuardThread shared_;
  net::executor_work_guard<net::io_context::executor_type> work_;
  net::steady_timer timer_;
  bool ending_ = false;  // of the thread
  absl::Mutex mutex_;
  bool empty_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

GuardPool::GuardPool(const GuardOptions& options, ConnectionStats* stats, std::function<void(ScopedFd)> serve)
    : context_{options, stats, std::move(serve)} {
  for (int i = 0; i < options.num_threads; ++i) workers_.push_back(std::make_unique<Worker>(&context_));
}

GuardPool::~GuardPool() { Shutdown(absl::Now()); }

void GuardPool::Add(ScopedFd socket, TlsContext::Context tls, bool is_own) {
  absl::MutexLock lock(&mutex_);  // Shutdown must not find a connection that comes after it
  if (closed_) return;
  workers_[next_++ % workers_.size()]->Add(std::move(socket), std::move(tls), is_own);
}

void GuardPool::BeginShutdown() {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(closed_, true)) return;
  }
  for (const auto& worker : workers_) worker->BeginShutdown();
}

void GuardPool::Shutdown(absl::Time deadline) {
  BeginShutdown();
  for (const auto& worker : workers_) {
    if (!worker->WaitUntilEmpty(deadline)) break;
  }
  for (const auto& worker : workers_) worker->Stop();
}

}  // namespace sessa
