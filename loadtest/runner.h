// Sends the work at its times and keeps what came of it: one run. In open loop each conversation begins at a
// time of the arrival plan, whether or not the server keeps up; in closed loop each of some users sends,
// waits for the answer, thinks, and sends again. The next turn of a conversation is scheduled when the time
// to think after the answer is over.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "loadtest/arrivals.h"
#include "loadtest/client.h"
#include "loadtest/clock.h"
#include "loadtest/progress.h"
#include "loadtest/record.h"
#include "loadtest/self_check.h"
#include "loadtest/workload.h"

namespace sessa::loadtest {

struct LoadOptions {
  int num_users = 0;  // closed loop; 0: open loop
  double think_seconds =
      0;                 // mean of the exponential time between a user's requests and a conversation's turns
  double duration = 60;  // seconds in which requests are sent; infinite: until the work has ended
  int64_t max_requests = 0;   // sent at most, probes aside; 0: no limit
  double drain_seconds = 60;  // then what still runs is ended
  double probe_rate = 0;      // probes/s beside the load
  int probe_tokens = 16;      // of a probe's prompt
  uint64_t seed = 0;
};

class Runner {
 public:
  // `arrivals` null: closed loop. The others must outlive the runner.
  Runner(boost::asio::io_context* io, const Clock& clock, Client* client, Workload* workload,
         std::unique_ptr<Arrivals> arrivals, const LoadOptions& options);

  // Runs the loop until the last request has ended. Fills run->requests, duration and client, without the
  // client's judgement. Once.
  void Execute(Run* run);
  // Nothing more is sent; what runs is ended as cancelled. On the loop's thread.
  void Interrupt();
  // Probes aside. On the loop's thread.
  LiveCounts live() const;

 private:
  std::unique_ptr<Call> Take();
  void FillAhead();
  void PostFillAhead();
  void ArmArrival();
  void ArmProbe();
  void StartUser();
  void SendLater(std::unique_ptr<Call> call, double scheduled);
  void Send(std::unique_ptr<Call> call, double scheduled);
  void OnDone(std::unique_ptr<Call> call);
  double DrawThink();
  // Nothing forbids to send a request that is scheduled at that time.
  bool MayStillSend(double at) const;
  void CheckEnd();

  boost::asio::io_context* const io_;
  const Clock clock_;
  Client* const client_;
  Workload* const workload_;
  const std::unique_ptr<Arrivals> arrivals_;
  const LoadOptions options_;
  HealthMonitor health_;
  Random think_random_;

  std::deque<std::unique_ptr<Call>> ahead_;  // encoded, in order
  int64_t ahead_tokens_ = 0;
  bool ahead_posted_ = false, workload_ended_ = false;

  boost::asio::steady_timer arrival_timer_, probe_timer_, end_timer_, drain_timer_;
  bool arrivals_ended_ = false;  // open loop
  bool interrupted_ = false, draining_ = false;
  int64_t num_waiting_ = 0;  // users and turns that think
  int64_t num_sent_ = 0, num_ok_ = 0, num_cancelled_ = 0, num_failed_ = 0, num_running_ = 0;
  int64_t num_probes_ = 0, num_probes_running_ = 0;
  std::vector<RequestRecord> records_;
};

}  // namespace sessa::loadtest
