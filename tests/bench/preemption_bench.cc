// ./dev bench preemption: what a state cache costs that has half of the pages which a load uses. A real
// engine with random weights (D 512, 8 layers) under 16 clients in closed loop, first with pages to spare,
// then with half of those that were used at the peak. Prints a Markdown table: throughput beside the
// uncontended one.
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "engine/engine.h"
#include "engine/monotonic.h"
#include "tests/reference/random_model.h"

namespace sessa {
namespace {

struct Load {
  const char* name;
  int num_clients, num_requests;
  int min_prompt, max_prompt, min_answer, max_answer;
  int num_stop_ids;  // of a vocabulary of 1024: answers end by chance, after 1024 / num_stop_ids tokens on
                     // average
};

constexpr Load kLoads[] = {
    {"answers of a length known ahead", 16, 64, 64, 256, 64, 256, 0},
    {"answers that end by chance, at most at 512", 16, 64, 64, 256, 512, 512, 8},
};

ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 1024;
  config.hidden_size = 512;
  config.num_layers = 8;
  config.num_heads = 8;
  config.num_kv_heads = 2;
  config.max_position_embeddings = 4096;
  return config;
}

// Ids of the clients whose request has ended, from the engine's thread to the one that sends the next.
class Ended {
 public:
  void Push(int client) {
    const std::lock_guard lock(mutex_);
    clients_.push_back(client);
    news_.notify_one();
  }
  int Pop() {
    std::unique_lock lock(mutex_);
    news_.wait(lock, [this] { return !clients_.empty(); });
    const int client = clients_.front();
    clients_.pop_front();
    return client;
  }

 private:
  std::mutex mutex_;
  std::condition_variable news_;
  std::deque<int> clients_;
};

struct Outcome {
  double tokens_per_second = 0;
  int num_pages = 0, peak_pages = 0;
  int most_preemptions = 0;  // of one request
  int64_t num_preemptions = 0;
  double recomputed = 0;  // share of the tokens computed
};

// `most_preemptions`: written on the engine's thread, read once the engine is gone.
class ClientSink final : public TokenSink {
 public:
  ClientSink(int client, Ended* ended, Outcome* outcome)
      : client_(client), ended_(ended), outcome_(outcome) {}
  void OnPrompt(const PromptInfo&) override {}
  bool OnToken(TokenUpdate) override { return true; }
  void OnEnd(const RequestEnd& end) override {
    if (!end.status.ok()) std::fprintf(stderr, "%s\n", end.status.ToString().c_str()), std::abort();
    outcome_->most_preemptions = std::max(outcome_->most_preemptions, end.num_preemptions);
    ended_->Push(client_);
  }

 private:
  const int client_;
  Ended* const ended_;
  Outcome* const outcome_;
};

std::unique_ptr<Engine> MakeEngine(const WeightSource& weights, int64_t state_cache_bytes,
                                   int max_preemptions) {
  EngineOptions options;
  options.state_cache_bytes = state_cache_bytes;
  options.max_preemptions = max_preemptions;
  options.max_model_len = 1024;
  options.page_size = 16;
  auto engine = Engine::Create(options, Config(), weights);
  if (!engine.ok()) std::fprintf(stderr, "%s\n", engine.status().ToString().c_str()), std::exit(1);
  return *std::move(engine);
}

Outcome Play(const Load& load, const WeightSource& weights, int64_t state_cache_bytes, int max_preemptions) {
  auto engine = MakeEngine(weights, state_cache_bytes, max_preemptions);
  Outcome outcome;
  Ended ended;
  std::mt19937 rng(7);
  const auto between = [&rng](int low, int high) { return low + static_cast<int>(rng() % (high - low + 1)); };
  int num_sent = 0, num_alive = load.num_clients;
  for (int client = 0; client < load.num_clients; ++client) ended.Push(client);
  const absl::Time begin = MonotonicNow();
  while (num_alive > 0) {
    const int client = ended.Pop();
    outcome.peak_pages = std::max(outcome.peak_pages, engine->Stats().num_used_pages);
    if (num_sent == load.num_requests) {
      --num_alive;
      continue;
    }
    ++num_sent;
    Request request;
    for (int n = between(load.min_prompt, load.max_prompt); n > 0; --n)
      request.prompt.push_back(between(0, 1023));
    request.sampling.max_tokens = between(load.min_answer, load.max_answer);
    request.sampling.seed = static_cast<uint64_t>(num_sent);
    request.sampling.temperature = 2;  // of random weights: far from always the same token
    request.sampling.ignore_eos = true;
    for (int id = 0; id < load.num_stop_ids; ++id) request.sampling.stop_token_ids.push_back(id * 100);
    request.sink = std::make_shared<ClientSink>(client, &ended, &outcome);
    if (auto id = engine->Submit(std::move(request)); !id.ok()) {
      std::fprintf(stderr, "%s\n", id.status().ToString().c_str());
      std::exit(1);
    }
  }
  const double seconds = absl::ToDoubleSeconds(MonotonicNow() - begin);
  const EngineStats stats = engine->Stats();
  engine.reset();
  outcome.num_pages = stats.num_pages;
  outcome.num_preemptions = stats.num_preemptions;
  outcome.tokens_per_second = static_cast<double>(stats.generation_tokens) / seconds;
  outcome.recomputed =
      static_cast<double>(stats.num_recomputed_tokens) /
      static_cast<double>(stats.num_recomputed_tokens + stats.prompt_tokens + stats.generation_tokens);
  return outcome;
}

void Bench(const Load& load, const WeightSource& weights) {
  constexpr int64_t kAmple = int64_t{1} << 30;
  const int ample_pages = MakeEngine(weights, kAmple, 4)->Stats().num_pages;
  const auto row = [&load](const char* what, const Outcome& o, double alone) {
    std::printf("| %s | %s | %d | %.0f | %.0f %% | %lld | %d | %.1f %% |\n", load.name, what, o.num_pages,
                o.tokens_per_second, 100 * o.tokens_per_second / alone,
                static_cast<long long>(o.num_preemptions), o.most_preemptions, 100 * o.recomputed);
    std::fflush(stdout);
  };
  const Outcome first = Play(load, weights, kAmple, 4);
  const int64_t half = kAmple / ample_pages * (first.peak_pages / 2 + 1);
  std::vector<std::pair<int, Outcome>> contended;
  for (int max_preemptions : {4, 1, 0})
    contended.emplace_back(max_preemptions, Play(load, weights, half, max_preemptions));
  const Outcome last = Play(load, weights, kAmple, 4);  // once more: the machine may have changed
  const double alone = (first.tokens_per_second + last.tokens_per_second) / 2;
  row("to spare, before", first, alone);
  for (const auto& [max_preemptions, outcome] : contended) {
    row(max_preemptions == 4   ? "half, `--max_preemptions 4` (at least 80 %)"
        : max_preemptions == 1 ? "half, `--max_preemptions 1` (at least 80 %)"
                               : "half, `--max_preemptions 0`",
        outcome, alone);
  }
  row("to spare, after", last, alone);
}

}  // namespace
}  // namespace sessa

int main() {
  const auto weights = sessa::RandomModel(sessa::Config(), 1, sessa::DType::kBF16);
  std::printf(
      "| load | pages | of the cache | tokens/s | of uncontended | preemptions | most of one request | "
      "computed "
      "twice |\n|---|---|---|---|---|---|---|---|\n");
  for (const sessa::Load& load : sessa::kLoads) sessa::Bench(load, *weights);
}
