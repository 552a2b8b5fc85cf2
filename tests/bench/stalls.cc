// ./dev bench stalls: what a long prompt does to running streams. A real Engine with random weights decodes
// 16 streams; a long prompt arrives, and while it is computed prompts of 100 tokens, one after the other. A
// Markdown table with two rows for each case: our scheduler, with chunks by predicted time, and the same
// engine with chunks by tokens alone, which then lets the streams generate as many tokens.
// docs/performance.md says what the columns mean.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/monotonic.h"
#include "tests/reference/random_model.h"

ABSL_FLAG(int, prompt, 0, "run only the case with a long prompt of so many tokens; 0: all");
ABSL_FLAG(double, target_ms, 0, "target_step_time, where it should differ from the case's");
ABSL_FLAG(bool, explain, false,
          "say on stderr which steps took longest, and those of the slowest short prompt");
ABSL_FLAG(int, rounds, 1, "of each case; a row each, as rates of a shared machine drift");

namespace sessa {
namespace {

constexpr int kStreams = 16,
              kContext = 256;  // of the first stream; each has 13 tokens more than the one before
constexpr int kShortPrompt = 100, kWarmTokens = 10;

// The larger a prompt, the smaller the model that computes it within minutes: the work grows with its square.
struct Case {
  int prompt, hidden_size, num_layers;
  double target_ms;  // two to three times the streams' own step, and at least the default
};
constexpr Case kCases[] = {{8192, 1024, 24, 200}, {32768, 512, 2, 100}, {65536, 256, 2, 100}};

// What happened, noted on the engine thread; read by the main thread through the atomics, and whole once the
// engine is gone.
struct Log {
  struct Step {
    absl::Time end;
    absl::Duration duration, predicted;
    int rows;
  };
  std::vector<Step> steps;
  std::atomic<int> num_steps{0};
  std::atomic<int64_t> rows{0};
};

void NoteStep(void* context, const StepObservation& step) {
  auto* log = static_cast<Log*>(context);
  log->steps.push_back({MonotonicNow(), step.duration, step.predicted, step.num_tokens});
  log->rows.fetch_add(step.num_tokens);
  log->num_steps.fetch_add(1);
}

class TimingSink final : public TokenSink {
 public:
  explicit TimingSink(const Log* log) : log_(*log) {}
  void OnPrompt(const PromptInfo&) override {}
  bool OnToken(TokenUpdate) override {
    if (times.empty()) first_step = log_.num_steps.load();
    times.push_back(MonotonicNow());
    num_tokens.fetch_add(1);
    return true;
  }
  void OnEnd(const RequestEnd& end) override {
    status = end.status;
    ended.store(true);
  }
  std::vector<absl::Time> times;  // and the two below: once ended
  int first_step = 0;             // steps done when the first token came
  absl::Status status;
  std::atomic<int> num_tokens{0};
  std::atomic<bool> ended{false};

 private:
  const Log& log_;
};

// A sorted vector's value at a share of it.
double Quantile(std::vector<double> values, double share) {
  if (values.empty()) return NAN;
  const size_t i =
      std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + i, values.end());
  return values[i];
}

template <class Done>
void WaitUntil(const Done& done) {
  while (!done()) absl::SleepFor(absl::Milliseconds(1));
}

struct Outcome {
  double decode_ms = 0, worst_decode_ms = 0;    // steps of the streams alone, before the prompt
  double worst_ms = 0, p50_ms = 0, p99_ms = 0;  // gaps of all streams while the prompt is computed
  double prompt_s = 0;                          // its time to first token
  int short_steps = 0, num_shorts = 0;  // the most steps to a short prompt's first token; how many came
  double short_ms = 0;                  // the longest time to first token
  double rows_per_s = 0;                // of all, over the episode
  double error_p50 = 0, error_p95 = 0;  // |predicted - actual| / actual of its steps
  int tokens = 0;                       // of each stream in the episode
};

class Episode {
 public:
  Episode(const ModelConfig& config, const WeightSource& weights, int prompt, absl::Duration target)
      : prompt_(prompt) {
    EngineOptions o;
    const int64_t tokens = prompt + kStreams * 8192;  // nobody is preempted
    o.state_cache_bytes = tokens * 2 * (2 * config.hidden_size + 2 * config.kv_size()) * config.num_layers;
    o.max_model_len = prompt + 1024;
    o.enable_prefix_caching = false;
    o.target_step_time = target;
    auto engine = Engine::Create(o, config, weights, &NoteStep, &log_);
    if (!engine.ok()) {
      std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
      std::exit(1);
    }
    engine_ = *std::move(engine);
  }

  // tokens: of each stream from the long prompt's arrival on; 0: until the prompts are done.
  Outcome Run(int tokens) {
    for (int i = 0; i < kStreams; ++i)
      Submit(kContext + 13 * i, tokens > 0 ? kWarmTokens + tokens : 1 << 30, &streams_);
    WaitUntil([&] {
      return std::all_of(streams_.begin(), streams_.end(),
                         [](auto& s) { return s->num_tokens >= kWarmTokens; });
    });
    const int first_step = log_.num_steps, begin_tokens = streams_[0]->num_tokens;
    const int64_t begin_rows = log_.rows;
    const absl::Time begin = MonotonicNow();
    std::vector<std::shared_ptr<TimingSink>> prompt, shorts;
    Submit(prompt_, 1, &prompt);
    std::vector<absl::Time> arrivals;  // of the short prompts
    while (!prompt[0]->ended) {
      const int next = arrivals.empty() ? first_step + 2 : shorts.back()->first_step + 8;
      if ((arrivals.empty() || shorts.back()->ended) && log_.num_steps >= next) {
        arrivals.push_back(MonotonicNow());
        Submit(kShortPrompt, 1, &shorts);
      }
      absl::SleepFor(absl::Milliseconds(1));
    }
    WaitUntil(
        [&] { return std::all_of(shorts.begin(), shorts.end(), [](auto& s) { return s->ended.load(); }); });
    const int last_step = log_.num_steps;
    Outcome out;
    out.tokens = streams_[0]->num_tokens - begin_tokens;
    if (tokens > 0) {
      WaitUntil([&] {
        return std::all_of(streams_.begin(), streams_.end(), [](auto& s) { return s->ended.load(); });
      });
    }
    out.rows_per_s =
        static_cast<double>(log_.rows - begin_rows) / absl::ToDoubleSeconds(MonotonicNow() - begin);
    engine_.reset();

    std::vector<double> decodes, gaps, errors;
    for (int i = first_step - kWarmTokens + 3; i < first_step; ++i)
      decodes.push_back(absl::ToDoubleMilliseconds(log_.steps[i].duration));
    out.decode_ms = Quantile(decodes, 0.5);
    out.worst_decode_ms = Quantile(decodes, 1);
    const absl::Time until = log_.steps[last_step - 1].end;
    for (const auto& stream : streams_) {
      for (size_t i = 1; i < stream->times.size(); ++i) {
        if (stream->times[i] > begin && stream->times[i - 1] < until)
          gaps.push_back(absl::ToDoubleMilliseconds(stream->times[i] - stream->times[i - 1]));
      }
    }
    out.p50_ms = Quantile(gaps, 0.5);
    out.p99_ms = Quantile(gaps, 0.99);
    out.worst_ms = Quantile(gaps, 1);
    out.prompt_s = absl::ToDoubleSeconds(prompt[0]->times[0] - begin);
    out.num_shorts = static_cast<int>(shorts.size());
    int slowest = 0;  // short prompt: its first token's step
    for (size_t i = 0; i < shorts.size(); ++i) {
      int steps = 0;  // begun after its arrival, up to the one that gave its first token
      for (int k = shorts[i]->first_step - 1;
           k >= 0 && log_.steps[k].end - log_.steps[k].duration > arrivals[i]; --k)
        ++steps;
      if (steps > out.short_steps) slowest = shorts[i]->first_step;
      out.short_steps = std::max(out.short_steps, steps);
      out.short_ms = std::max(out.short_ms, absl::ToDoubleMilliseconds(shorts[i]->times[0] - arrivals[i]));
    }
    for (int i = first_step; i < last_step; ++i)
      errors.push_back(std::abs(absl::FDivDuration(log_.steps[i].predicted, log_.steps[i].duration) - 1));
    if (absl::GetFlag(FLAGS_explain)) Explain(first_step, last_step, slowest - out.short_steps, slowest);
    out.error_p50 = Quantile(errors, 0.5);
    out.error_p95 = Quantile(errors, 0.95);
    return out;
  }

 private:
  void Explain(int first_step, int last_step, int short_begin, int short_end) const {
    std::vector<int> order(last_step - first_step);
    std::iota(order.begin(), order.end(), first_step);
    const auto longer = [this](int a, int b) { return log_.steps[a].duration > log_.steps[b].duration; };
    std::sort(order.begin(), order.end(), longer);
    std::fprintf(stderr, "steps %d to %d, the longest:\n", first_step, last_step);
    for (size_t i = 0; i < std::min<size_t>(order.size(), 12); ++i) Explain(order[i]);
    std::fprintf(stderr, "the slowest short prompt's:\n");
    for (int i = short_begin; i < short_end; ++i) Explain(i);
  }
  void Explain(int i) const {
    const Log::Step& step = log_.steps[i];
    std::fprintf(stderr, "  step %d: %d rows, %.0f ms, predicted %.0f\n", i, step.rows,
                 absl::ToDoubleMilliseconds(step.duration), absl::ToDoubleMilliseconds(step.predicted));
  }

  void Submit(int prompt_size, int max_tokens, std::vector<std::shared_ptr<TimingSink>>* sinks) {
    Request request;
    const int seed = ++num_requests_;
    for (int i = 0; i < prompt_size; ++i) request.prompt.push_back((seed * 7919 + i * 31) % 1000);
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sink = sinks->emplace_back(std::make_shared<TimingSink>(&log_));
    const auto id = engine_->Submit(std::move(request));
    if (!id.ok()) {
      std::fprintf(stderr, "%s\n", id.status().ToString().c_str());
      std::exit(1);
    }
  }

  const int prompt_;
  Log log_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::shared_ptr<TimingSink>> streams_;
  int num_requests_ = 0;
};

// share: the bounded engine's tokens/s beside this one's; below 0: this is the bounded one.
void Print(const Case& c, const std::string& target, const Outcome& o, double share) {
  std::printf(
      "| %d | %d, %d | %s | %.0f (%.0f) | %.0f | %.0f | **%.0f** | %.1f | %d | **%d** | %.0f | %.0f | ",
      c.prompt, c.hidden_size, c.num_layers, target.c_str(), o.decode_ms, o.worst_decode_ms, o.p50_ms,
      o.p99_ms, o.worst_ms, o.prompt_s, o.num_shorts, o.short_steps, o.short_ms, o.rows_per_s);
  if (share >= 0) std::printf("**%.0f %%**", 100 * share);
  std::printf(" | %.0f %%, %.0f %% |\n", 100 * o.error_p50, 100 * o.error_p95);
  std::fflush(stdout);
}

void RunCase(const Case& c) {
  ModelConfig config;
  config.vocab_size = 32000;
  config.hidden_size = c.hidden_size;
  config.num_layers = c.num_layers;
  config.num_heads = config.hidden_size / 64;
  config.num_kv_heads = config.num_heads / 4;
  config.max_position_embeddings = 1 << 20;
  const auto weights = RandomModel(config, 1, DType::kBF16);
  const double target_ms = absl::GetFlag(FLAGS_target_ms) > 0 ? absl::GetFlag(FLAGS_target_ms) : c.target_ms;
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    const Outcome bounded = Episode(config, *weights, c.prompt, absl::Milliseconds(target_ms)).Run(0);
    Print(c, std::to_string(static_cast<int>(target_ms)) + " ms", bounded, -1);
    const Outcome unbounded =
        Episode(config, *weights, c.prompt, absl::InfiniteDuration()).Run(bounded.tokens);
    Print(c, "none", unbounded, bounded.rows_per_s / unbounded.rows_per_s);
  }
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("What a long prompt does to running streams.");
  absl::ParseCommandLine(argc, argv);
  std::printf(
      "| prompt | D, layers | target | decode alone, ms (worst) | gap p50, ms | p99 | worst | its TTFT, s | "
      "short "
      "prompts | steps to first token, at most | ms, at most | tokens/s | bounded beside this | error p50, "
      "p95 |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  std::fflush(stdout);
  const int only = absl::GetFlag(FLAGS_prompt);
  for (const sessa::Case& c : sessa::kCases) {
    if (only == 0 || only == c.prompt) sessa::RunCase(c);
  }
}
