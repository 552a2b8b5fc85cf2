// Events of the prefix cache for routers that send a prompt where its beginning is (--cache_events), over a
// ZeroMQ PUB socket as vLLM's: topic, number of the message (8 bytes, big-endian), and the batch that
// PageNames encodes. The engine never waits for it: events go through a bounded queue to a thread of their
// own, and when that is full all that wait are dropped, and readers are told to forget all they know, so that
// they may take a page for absent and never an absent one for present. ZeroMQ in turn drops for a reader that
// does not read. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cache_observer.h"
#include "engine/mutex.h"
#include "server/cache_events/page_names.h"

namespace sessa {

struct CacheEventsOptions {
  std::string endpoint;  // as zmq_bind takes it: tcp://127.0.0.1:5557; a port * is the system's choice
  std::string topic;
  std::string medium = "CPU";   // where pages lie, or "GPU"
  size_t max_queued = 1 << 14;  // page events; some 5 MB of pages of 64 tokens
  // Told how many were dropped, on the engine's thread; must not block.
  std::function<void(int64_t num)> on_dropped = [](int64_t) {};
};

class CacheEvents final : public CacheObserver {
 public:
  // INVALID_ARGUMENT or UNAVAILABLE when the endpoint cannot be bound.
  static absl::StatusOr<std::shared_ptr<CacheEvents>> Start(CacheEventsOptions options);
  ~CacheEvents() override;

  const std::string& endpoint() const { return endpoint_; }  // with the port that it has

  void OnStored(int32_t page, int32_t parent, absl::Span<const int32_t> tokens,
                std::string_view salt) override;
  void OnRemoved(int32_t page) override;

 private:
  struct Socket;
  CacheEvents(CacheEventsOptions options, std::unique_ptr<Socket> socket, std::string endpoint);
  void Push(PageEvent event);
  void Run();

  const CacheEventsOptions options_;
  const std::unique_ptr<Socket> socket_;  // the thread's, once that runs
  const std::string endpoint_;
  Mutex mutex_;
  std::condition_variable_any news_;
  std::vector<PageEvent> queue_ ABSL_GUARDED_BY(mutex_);
  bool lost_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sessa
