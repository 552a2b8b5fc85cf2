// ./dev bench baselines: the seed paper's three models of one size, which share their block and differ in its
// mixer: Sessa, attention (gamma = 0) and Mamba-2. A Markdown table of what their state takes and how fast
// they decode and take in prompts by context, and on request a plot. Steps are made by hand and timed whole,
// as the engine runs them; weights are random, and the state is what earlier steps left: the work is the
// same.
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "engine/models/model.h"
#include "engine/monotonic.h"
#include "engine/worker.h"
#include "tests/bench/rate_plot.h"
#include "tests/reference/random_model.h"

ABSL_FLAG(int, hidden_size, 768, "D");
ABSL_FLAG(int, num_layers, 12, "L");
ABSL_FLAG(int, max_context, 32768, "the longest context that is measured");
ABSL_FLAG(double, seconds, 0.5, "each rate is measured for at least so long");
ABSL_FLAG(std::string, svg, "", "a file for the plot");

namespace sessa {
namespace {

constexpr int kPageSize = 64, kPrefillRows = 512;
using Mixer = SessaConfig::Mixer;

struct Baseline {
  const char* name;
  Mixer mixer;
};
constexpr Baseline kBaselines[] = {
    {"Sessa", Mixer::kFeedback}, {"attention", Mixer::kAttention}, {"Mamba-2", Mixer::kMamba2}};

int NumThreads() {
  cpu_set_t cpus;
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
}

// Mamba-2's mixer as its authors size it: twice the width, heads of 64, a state of 128.
ModelConfig ConfigOf(Mixer mixer) {
  ModelConfig config;
  config.vocab_size = 32000;
  config.hidden_size = absl::GetFlag(FLAGS_hidden_size);
  config.num_layers = absl::GetFlag(FLAGS_num_layers);
  config.max_position_embeddings = 1 << 20;
  SessaConfig sessa;
  sessa.mixer = mixer;
  if (mixer == Mixer::kMamba2) {
    sessa.mamba = {.num_heads = 2 * config.hidden_size / 64, .head_dim = 64, .state_size = 128};
  } else {
    config.num_heads = config.hidden_size / 64;
    config.num_kv_heads = config.num_heads % 4 == 0 ? config.num_heads / 4 : config.num_heads;
  }
  config.family = sessa;
  return config;
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "baselines: %s\n", std::string(status.message()).c_str());
  std::exit(1);
}

class Bench {
 public:
  explicit Bench(Mixer mixer) : config_(ConfigOf(mixer)) {
    Check(config_.Validate());
    EngineOptions options;
    options.num_threads = NumThreads();
    options.amx = CpuHasAmx();
    options.max_step_tokens = kPrefillRows;
    options.max_model_len = absl::GetFlag(FLAGS_max_context);
    options.page_size = kPageSize;
    options.state_cache_bytes = int64_t{1} << 40;
    const StateLimits limits{absl::GetFlag(FLAGS_max_context) / kPageSize + 1, /*max_slots=*/1};
    auto workers = Workers::Create(options, limits, config_, *RandomModel(config_, 1, DType::kBF16));
    Check(workers.status());
    workers_ = *std::move(workers);
    greedy_.temperature = 0;
  }

  // What a page and a slot of all layers takes, in the formats that Workers keep here.
  std::pair<int64_t, int64_t> BytesPerPageAndSlot() const {
    auto backend = MakeCpuBackend({.num_threads = 1});
    const auto communicator = std::move(MakeThreadCommunicators(1)[0]);
    auto model = Model::Create(config_, {.weight_dtype = DType::kBF16, .state_dtype = DType::kBF16},
                               backend.get(), communicator.get());
    Check(model.status());
    const std::vector<StateShape> shapes = (*model)->StateShapes();
    return {StateCache::BytesPerPage(shapes, kPageSize, 0, *backend), StateCache::BytesPerSlot(shapes)};
  }

  // Tokens a second of steps of `rows` rows whose last has `context` tokens to look at.
  double Rate(int rows, int context) {
    StepPlan plan = PlanOf(rows, context - rows);
    Execute(plan);
    const absl::Time begin = MonotonicNow();
    int64_t steps = 0;
    absl::Duration spent;
    do {
      Execute(plan);
      ++steps;
      spent = MonotonicNow() - begin;
    } while (spent < absl::Seconds(absl::GetFlag(FLAGS_seconds)));
    return static_cast<double>(steps * rows) / absl::ToDoubleSeconds(spent);
  }

 private:
  StepPlan PlanOf(int rows, int start) {
    StepPlan plan;
    tokens_.assign(start + rows, 1);
    PlanSequence& s = plan.sequences.emplace_back();
    s.num_rows = rows;
    s.start = start;
    for (int i = 0; i * kPageSize < start + rows; ++i) s.pages.push_back(i);
    if (workers_->state().num_slots > 0) s.slot = 0, s.state_from = start > 0 ? 0 : -1;
    s.sample = true;
    s.sampling = &greedy_;
    s.tokens = &tokens_;
    s.prompt_size = 1;
    for (int r = 0; r < rows; ++r) plan.token_ids.push_back(r % 1000), plan.positions.push_back(start + r);
    return plan;
  }
  void Execute(const StepPlan& plan) {
    workers_->Start(plan);
    Check(workers_->Finish(plan, &results_));
  }

  const ModelConfig config_;
  std::unique_ptr<Workers> workers_;
  SamplingParams greedy_;
  std::vector<int32_t> tokens_;
  std::vector<SequenceResult> results_;
};

std::string Bytes(double bytes) {
  return bytes >= 1 << 20 ? absl::StrFormat("%.1f MiB", bytes / (1 << 20))
                          : absl::StrFormat("%.1f KiB", bytes / 1024);
}

void Run() {
  std::vector<int> contexts;
  for (int c = 256; c <= absl::GetFlag(FLAGS_max_context); c *= c < 2048 ? 8 : 4) contexts.push_back(c);
  std::string head = "| mixer | a page of 64 tokens | a slot | a token | a sequence of 32768 |",
              rule = "|---|---|---|---|---|";
  for (const char* what : {"decode", "prefill"}) {
    for (int context : contexts) absl::StrAppend(&head, " ", what, " at ", context, " |"), rule += "---|";
  }
  std::printf(
      "D %d, L %d, bf16 weights and state, %d threads; tokens/s of one sequence, prompts in chunks of "
      "%d.\n\n%s\n%s\n",
      absl::GetFlag(FLAGS_hidden_size), absl::GetFlag(FLAGS_num_layers), NumThreads(), kPrefillRows,
      head.c_str(), rule.c_str());
  std::vector<RateCurve> decode, prefill;
  for (const Baseline& baseline : kBaselines) {
    Bench bench(baseline.mixer);
    const auto [page, slot] = bench.BytesPerPageAndSlot();
    std::string row = absl::StrCat("| ", baseline.name, " | ", page > 0 ? Bytes(page) : "", " | ",
                                   slot > 0 ? Bytes(slot) : "", " | ", page > 0 ? Bytes(page / 64.0) : "",
                                   " | ", Bytes(page * 512.0 + slot), " |");
    for (int rows : {1, kPrefillRows}) {
      RateCurve curve{baseline.name, {}};
      for (int context : contexts) {
        const double rate = bench.Rate(std::min(rows, context), context);
        curve.points.push_back({static_cast<double>(context), rate});
        absl::StrAppend(&row, absl::StrFormat(" %.0f |", rate));
      }
      (rows == 1 ? decode : prefill).push_back(curve);
    }
    std::printf("%s\n", row.c_str());
    std::fflush(stdout);
  }
  if (const std::string file = absl::GetFlag(FLAGS_svg); !file.empty())
    std::ofstream(file) << RatePlot({{"decode, tokens/s", decode}, {"prefill, tokens/s", prefill}});
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Sessa beside attention and Mamba-2 in the same block, as a Markdown table.");
  absl::ParseCommandLine(argc, argv);
  sessa::Run();
  return 0;
}
