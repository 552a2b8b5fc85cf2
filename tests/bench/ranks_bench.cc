// ./dev bench ranks: what ranks in processes of their own cost, over TCP on this machine's loopback. Two
// Markdown tables: a plan, from the call that sends it until another process has read and judged it, beside
// the byte that a bare connection takes there (the limit); and a collective of one matrix among processes,
// beside the same among threads. Medians.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "engine/rank_group.h"
#include "kernels/backend.h"
#include "kernels/process_rank.h"
#include "kernels/socket_io.h"

namespace sessa {
namespace {

constexpr int kVocabSize = 32000, kPageSize = 64;

int64_t Nanoseconds() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

double MedianMicroseconds(std::vector<int64_t> nanoseconds) {
  std::nth_element(nanoseconds.begin(), nanoseconds.begin() + nanoseconds.size() / 2, nanoseconds.end());
  return static_cast<double>(nanoseconds[nanoseconds.size() / 2]) / 1e3;
}

void Require(bool right, const char* what) {
  if (right) return;
  std::perror(what);
  std::exit(1);
}

// Both ends of a TCP connection on the loopback.
std::pair<int, int> Connection() {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* any = reinterpret_cast<sockaddr*>(&address);
  const int listener = socket(AF_INET, SOCK_STREAM, 0), to = socket(AF_INET, SOCK_STREAM, 0);
  Require(bind(listener, any, size) == 0 && listen(listener, 1) == 0 &&
              getsockname(listener, any, &size) == 0 && connect(to, any, size) == 0,
          "connecting");
  const int from = accept(listener, nullptr, nullptr);
  close(listener);
  const int on = 1;
  for (const int end : {to, from}) setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return {to, from};
}

// `body` in a process of its own, which ends with it.
pid_t Fork(const std::function<void()>& body) {
  const pid_t child = fork();
  Require(child >= 0, "fork");
  if (child == 0) {
    body();
    std::_Exit(0);
  }
  return child;
}

void Reap(const std::vector<pid_t>& children) {
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    Require(status == 0, "a rank failed");
  }
}

StepPlan Plan(int num_sequences, int rows_of_each, int context) {
  StepPlan plan;
  const int num_pages = (context + rows_of_each + kPageSize - 1) / kPageSize;
  for (int i = 0; i < num_sequences; ++i) {
    PlanSequence& s = plan.sequences.emplace_back();
    s.first_row = plan.num_rows();
    s.num_rows = rows_of_each;
    s.start = context;
    for (int p = 0; p < num_pages; ++p) s.pages.push_back(i * num_pages + p);
    for (int row = 0; row < rows_of_each; ++row) {
      plan.token_ids.push_back((i * 31 + row) % kVocabSize);
      plan.positions.push_back(context + row);
    }
  }
  return plan;
}

void MeasurePlans() {
  constexpr int kSamples = 2000;
  std::printf("| plan | KiB | us until it is read | encode, us | a byte, us |\n|---|---|---|---|---|\n");
  for (const auto& [name, sequences, rows, context] : {std::tuple{"1 decode at 2048", 1, 1, 2048},
                                                       {"16 decodes at 2048", 16, 1, 2048},
                                                       {"256 decodes at 2048", 256, 1, 2048},
                                                       {"256 decodes at 32768", 256, 1, 32768},
                                                       {"512 rows of a prompt at 8192", 1, 512, 8192}}) {
    const StepPlan plan = Plan(sequences, rows, context);
    std::vector<int32_t> logit_rows, words;
    for (int i = 0; i < sequences; ++i) logit_rows.push_back((i + 1) * rows - 1);
    const StepBounds bounds = {kVocabSize, 1024, 1 << 20, {kPageSize, 1 << 20, 1, 0}};
    const auto [here, there] = Connection();
    const auto [bare_here, bare_there] = Connection();
    const pid_t child = Fork([&, there = there, bare_there = bare_there] {
      RankGroup group(1, 2, {there});
      StepMessage message;
      for (int i = 0; i < kSamples; ++i) {
        char byte = 0;
        Require(ReceiveAll(bare_there, &byte, 1, kNoLimit).ok(), "the bare byte");
        int64_t now = Nanoseconds();
        Require(SendAll(bare_there, &now, sizeof(now), kNoLimit).ok(), "the time");
        Require(group.ReceiveStep(bounds, &message).ok(), "the step");
        now = Nanoseconds();
        Require(SendAll(bare_there, &now, sizeof(now), kNoLimit).ok(), "the time");
      }
    });
    RankGroup group(0, 2, {here});
    std::vector<int64_t> steps, bytes, encodes;
    for (int i = 0; i < kSamples; ++i) {
      std::this_thread::sleep_for(
          std::chrono::microseconds(200));  // as a step does: the other end sleeps by then
      int64_t begin = Nanoseconds(), read = 0;
      Require(SendAll(bare_here, "x", 1, kNoLimit).ok() &&
                  ReceiveAll(bare_here, &read, sizeof(read), kNoLimit).ok(),
              "a byte");
      bytes.push_back(read - begin);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      begin = Nanoseconds();
      Require(
          group.SendStep(plan, logit_rows).ok() && ReceiveAll(bare_here, &read, sizeof(read), kNoLimit).ok(),
          "a step");
      steps.push_back(read - begin);
      begin = Nanoseconds();
      EncodeStep(plan, logit_rows, &words);
      encodes.push_back(Nanoseconds() - begin);
    }
    Reap({child});
    std::printf("| %s | %.1f | %.1f | %.1f | %.1f |\n", name, static_cast<double>(words.size()) * 4 / 1024,
                MedianMicroseconds(steps), MedianMicroseconds(encodes), MedianMicroseconds(bytes));
    for (const int end : {here, there, bare_here, bare_there}) close(end);
  }
}

// Microseconds of a call, as rank 0 sees it.
double Gather(Communicator* rank, int rows, int cols, int num_calls) {
  std::vector<float> values(static_cast<size_t>(rows) * cols, 1);
  std::vector<int> bounds;
  for (int r = 0; r <= rank->size(); ++r) bounds.push_back(cols * r / rank->size());
  std::vector<int64_t> times;
  for (int i = 0; i < num_calls; ++i) {
    const int64_t begin = Nanoseconds();
    rank->AllGather({{{values.data(), rows, cols, cols}, bounds}});
    times.push_back(Nanoseconds() - begin);
  }
  Require(rank->status().ok(), "a collective");
  return MedianMicroseconds(times);
}

double AmongProcesses(int size, int rows, int cols, int num_calls) {
  std::vector<int> ours;
  std::vector<pid_t> children;
  for (int r = 1; r < size; ++r) {
    const auto [here, there] = Connection();
    ours.push_back(here);
    children.push_back(Fork([&, there = there] {
      const auto backend = MakeCpuBackend({.num_threads = 1});
      Gather(MakeSocketCommunicator(r, size, {there}, backend.get()).get(), rows, cols, num_calls);
    }));
    close(there);
  }
  const auto backend = MakeCpuBackend({.num_threads = 1});
  const double median =
      Gather(MakeSocketCommunicator(0, size, ours, backend.get()).get(), rows, cols, num_calls);
  Reap(children);
  for (const int end : ours) close(end);
  return median;
}

double AmongThreads(int size, int rows, int cols, int num_calls) {
  const auto ranks = MakeThreadCommunicators(size);
  std::vector<std::thread> threads;
  for (int r = 1; r < size; ++r)
    threads.emplace_back([&, r] { Gather(ranks[r].get(), rows, cols, num_calls); });
  const double median = Gather(ranks[0].get(), rows, cols, num_calls);
  for (std::thread& thread : threads) thread.join();
  return median;
}

void MeasureCollectives() {
  std::printf(
      "\n| ranks | matrix | processes, us | threads, us | processes, GB/s in and out of rank 0 "
      "|\n|---|---|---|---|---|\n");
  for (const int size : {2, 4}) {
    for (const auto& [rows, cols] : {std::pair{1, 1024}, {16, 1024}, {1, 32000}, {512, 1024}, {512, 4096}}) {
      const int num_calls = rows * cols > 100000 ? 200 : 2000;
      const double processes = AmongProcesses(size, rows, cols, num_calls);
      const double threads = AmongThreads(size, rows, cols, num_calls);
      // Rank 0 reads the parts of the others and sends each all but its own.
      const double bytes = 4.0 * rows * cols / size * (size - 1) * size;
      std::printf("| %d | %d x %d | %.1f | %.1f | %.2f |\n", size, rows, cols, processes, threads,
                  bytes / processes / 1e3);
    }
  }
}

}  // namespace
}  // namespace sessa

int main() {
  sessa::MeasurePlans();
  sessa::MeasureCollectives();
}
