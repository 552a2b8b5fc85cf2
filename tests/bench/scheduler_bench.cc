// ./dev bench scheduler: the engine thread's own time a step, with all sequences decoding. Two Markdown
// tables: the Scheduler alone, by call, and the share of a step that is not the model's in a real Engine with
// a tiny model (the demo model's shape). Target: at most 5 % with 256 sequences.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/monotonic.h"
#include "engine/scheduler.h"
#include "tests/reference/random_model.h"

namespace sessa {
namespace {

class CountingSink final : public TokenSink {
 public:
  void OnPrompt(const PromptInfo&) override {}
  bool OnToken(TokenUpdate) override {
    num_tokens_.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  void OnEnd(const RequestEnd&) override {}
  int64_t num_tokens() const { return num_tokens_.load(); }

 private:
  std::atomic<int64_t> num_tokens_{0};
};

Request MakeRequest(int index, int prompt_size, int max_tokens, std::shared_ptr<TokenSink> sink) {
  Request request;
  for (int i = 0; i < prompt_size; ++i) request.prompt.push_back((index * 61 + i * 7) % 1000);
  request.sampling.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  request.sampling.ignore_eos = true;
  request.sink = std::move(sink);
  return request;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Microseconds of each call in one step with `num_sequences` decoding, at contexts from `context` on; medians
// over steps.
void BenchScheduler(int num_sequences, int context) {
  constexpr int kSteps = 1000;
  SchedulerOptions options;
  options.max_model_len = context + 2 * kSteps;
  options.max_num_seqs = num_sequences;
  options.target_step_time = absl::InfiniteDuration();
  options.max_step_tokens = 4096;
  StateSize state;
  state.num_pages = num_sequences * (options.max_model_len / state.page_size + 1);
  Scheduler scheduler(options, state, {});
  const auto sink = std::make_shared<CountingSink>();
  for (int i = 0; i < num_sequences; ++i) {
    if (!scheduler.Add(i + 1, MakeRequest(i, context, 2 * kSteps, sink), MonotonicNow()).ok()) std::abort();
  }
  std::vector<SequenceResult> results;
  std::vector<SchedulerEvent> events;
  std::vector<double> schedule, observe, commit, deliver, all;
  while (static_cast<int>(all.size()) < kSteps) {
    const absl::Time t0 = MonotonicNow();
    const StepPlan& plan = scheduler.Schedule(t0);
    const absl::Time t1 = MonotonicNow();
    const bool decodes = plan.num_rows() == num_sequences;
    results.resize(plan.sequences.size());
    for (size_t i = 0; i < results.size(); ++i) {
      results[i].tokens.clear();
      if (plan.sequences[i].sample) results[i].tokens.push_back({7, {}});
    }
    const absl::Time t2 = MonotonicNow();
    scheduler.ObserveStep(plan, absl::Milliseconds(5));
    const absl::Time t3 = MonotonicNow();
    scheduler.Commit(plan, results, t3, &events);
    const absl::Time t4 = MonotonicNow();
    for (SchedulerEvent& event : events) {
      if (auto* token = std::get_if<TokenUpdate>(&event.what)) event.sink->OnToken(std::move(*token));
    }
    events.clear();
    const absl::Time t5 = MonotonicNow();
    if (!decodes) continue;  // prompts
    const auto note = [](absl::Duration d, std::vector<double>* to) {
      to->push_back(absl::ToDoubleMicroseconds(d));
    };
    note(t1 - t0, &schedule), note(t3 - t2, &observe), note(t4 - t3, &commit), note(t5 - t4, &deliver);
    note((t1 - t0) + (t5 - t2), &all);
  }
  std::printf("| %d | %d | %.1f | %.1f | %.1f | %.1f | %.1f | %.2f |\n", num_sequences, context,
              Median(schedule), Median(observe), Median(commit), Median(deliver), Median(all),
              Median(all) / num_sequences);
  std::fflush(stdout);
}

// What the engine thread noted; read once the engine is gone.
struct StepLog {
  absl::Time last = absl::InfinitePast();
  std::vector<double> in_model, own;  // microseconds of each step
};

void NoteStep(void* context, const StepObservation& step) {
  auto* log = static_cast<StepLog*>(context);
  const absl::Time now = MonotonicNow();
  log->in_model.push_back(absl::ToDoubleMicroseconds(step.duration));
  log->own.push_back(
      absl::ToDoubleMicroseconds(now - log->last - step.duration));  // from the end of the step before
  log->last = now;
}

// A real Engine with a tiny model: time between two steps against time in the model.
void BenchEngine(int num_sequences) {
  ModelConfig config;  // models/demo's
  config.vocab_size = 1024;
  config.hidden_size = 192;
  config.num_layers = 4;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.max_position_embeddings = 4096;
  EngineOptions options;
  options.state_cache_bytes = int64_t{2} << 30;
  options.max_num_seqs = num_sequences;
  StepLog log;
  auto engine = Engine::Create(options, config, *RandomModel(config, 1, DType::kBF16), &NoteStep, &log);
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
    std::exit(1);
  }
  const auto sink = std::make_shared<CountingSink>();
  for (int i = 0; i < num_sequences; ++i) {
    if (!(*engine)->Submit(MakeRequest(i, 16, 4000, sink)).ok()) std::abort();
  }
  constexpr int kWarm = 40, kSteps = 200;
  while (sink->num_tokens() < (kWarm + kSteps) * num_sequences) absl::SleepFor(absl::Milliseconds(10));
  engine->reset();
  const std::vector<double> in_model(log.in_model.end() - kSteps, log.in_model.end()),
      own(log.own.end() - kSteps, log.own.end());
  const double step = Median(in_model) + Median(own);
  std::printf("| %d | %.0f | %.0f | %.1f | %.2f %% | %.0f |\n", num_sequences, step, Median(in_model),
              Median(own), 100 * Median(own) / step, 1e6 * num_sequences / step);
  std::fflush(stdout);
}

}  // namespace
}  // namespace sessa

int main() {
  std::printf(
      "Scheduler alone, µs a step, median of 1000 steps:\n\n"
      "| sequences | context | Schedule | ObserveStep | Commit | deliver | together | for each sequence "
      "|\n|---|---|---|---|---|---|---|---|\n");
  for (int context : {256, 4096}) {
    for (int sequences : {64, 256}) sessa::BenchScheduler(sequences, context);
  }
  std::printf(
      "\nA real engine with a tiny model (D 192, 4 layers, V 1024), µs a step, median of 200 steps:\n\n"
      "| sequences | step to step | in the model | engine thread's own | share | tokens/s "
      "|\n|---|---|---|---|---|---|\n");
  for (int sequences : {64, 256}) sessa::BenchEngine(sequences);
}
