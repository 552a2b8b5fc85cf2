// ./dev bench shared_prefix: decode steps of streams that begin with the same tokens, in the same pages, as a
// Markdown table: read together, and apart, where each page table is turned by a page, so that the same
// memory is read once for each stream. Steps are made by hand and timed whole but for sampling, the two kinds
// in turn; the limit is the bytes of weights, shared pages and own pages over the read bandwidth between
// them. Weights and state are random.
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "engine/models/model.h"
#include "engine/monotonic.h"
#include "tests/bench/limits.h"
#include "tests/reference/random_model.h"

ABSL_FLAG(std::vector<std::string>, models, std::vector<std::string>({"sessa", "llama"}),
          "sessa: D 1024, 24 layers; llama: SmolLM2-135M's shape");
ABSL_FLAG(int, num_layers, 0, "of each model; 0: its own");
ABSL_FLAG(std::vector<std::string>, cases,
          std::vector<std::string>({"1x8192", "2x8192", "4x8192", "16x8192", "16x2048", "16x512", "16x128",
                                    "16x64", "16x0"}),
          "streams x tokens of the prefix");
ABSL_FLAG(int, own_tokens, 64, "of each stream behind the prefix");
ABSL_FLAG(double, seconds, 1, "each kind of step is measured for at least so long");
ABSL_FLAG(bool, apart, true, "measure reads apart too");
ABSL_FLAG(bool, amx, true, "use AMX where the processor has it");
ABSL_FLAG(bool, bf16_activations, false, "--activation_dtype bf16");

namespace sessa {
namespace {

constexpr int kPageSize = 64;

int NumThreads() {
  cpu_set_t cpus;
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
}

template <class T>
T ValueOf(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "shared_prefix: %s\n", std::string(result.status().message()).c_str());
  std::exit(1);
}

ModelConfig ConfigOf(const std::string& name) {
  ModelConfig c;
  c.max_position_embeddings = 1 << 20;
  if (name == "llama") {
    c.vocab_size = 49152, c.hidden_size = 576, c.num_layers = 30, c.num_heads = 9, c.num_kv_heads = 3;
    c.tie_word_embeddings = true;
    LlamaConfig llama;
    llama.intermediate_size = 1536;
    c.family = llama;
  } else {
    c.vocab_size = 32000, c.hidden_size = 1024, c.num_layers = 24, c.num_heads = 16, c.num_kv_heads = 4;
    c.family = SessaConfig{};
  }
  if (const int layers = absl::GetFlag(FLAGS_num_layers); layers > 0) c.num_layers = layers;
  return c;
}

// Counts the matrices that are asked for, which are what a step reads, but for an embedding of its own.
class CountingSource final : public WeightSource {
 public:
  explicit CountingSource(std::unique_ptr<WeightSource> from) : from_(std::move(from)) {}
  absl::StatusOr<TensorView> Get(std::string_view name) const override {
    auto view = from_->Get(name);
    if (view.ok() && view->shape.size() == 2 && seen_.insert(std::string(name)).second)
      num_values_ += view->num_values();
    return view;
  }
  int64_t num_values() const { return num_values_; }

 private:
  const std::unique_ptr<WeightSource> from_;
  mutable std::set<std::string> seen_;
  mutable int64_t num_values_ = 0;
};

class Bench {
 public:
  Bench(const ModelConfig& config, int max_streams, int max_pages)
      : config_(config),
        backend_(
            MakeCpuBackend({.num_threads = NumThreads(),
                            .activation_dtype = absl::GetFlag(FLAGS_bf16_activations) ? DType::kBF16 : DType::kF32,
                            .matrix_unit = absl::GetFlag(FLAGS_amx) && CpuHasAmx() ? MatrixUnit::kAmx
                                                                                   : MatrixUnit::kVector})),
        communicator_(std::move(MakeThreadCommunicators(1)[0])) {
    const CountingSource weights(RandomModel(config, 1, DType::kBF16));
    const ModelOptions options{
        .weight_dtype = DType::kBF16, .state_dtype = DType::kBF16, .max_rows = max_streams};
    model_ = ValueOf(Model::Load(config, weights, options, backend_.get(), communicator_.get()));
    const int64_t embedding = int64_t{config.vocab_size} * config.hidden_size;
    weight_bytes_ = 2 * (weights.num_values() - (config.tie_word_embeddings ? 0 : embedding));
    const std::vector<StateShape> shapes = model_->StateShapes();
    cache_ = ValueOf(StateCache::Create(shapes, {kPageSize, max_pages, 1, 0}, 0, backend_.get()));
    token_bytes_ = StateCache::BytesPerPage(shapes, kPageSize, 0, *backend_) / kPageSize;
    uint32_t random = 1;
    for (int i = 0; i < cache_.num_layers(); ++i) {
      for (const PagedTensor& t : cache_.layer(i)->paged) {  // bf16 of some size near 1/4
        auto* values = static_cast<uint16_t*>(t.data.data());
        for (size_t v = 0; v < t.data.size() / 2; ++v)
          values[v] =
              static_cast<uint16_t>(0x3e00 + ((random = random * 1664525 + 1013904223) >> 16 & 0x807f));
      }
    }
  }

  // One token for each stream. Apart, no page table begins as another does: each is turned by a page more, or
  // has pages of its own where there are too few for that.
  static int PagesOfPrefix(int streams, int prefix) {
    return prefix / kPageSize >= streams ? prefix / kPageSize : streams * prefix / kPageSize;
  }
  StepPlan PlanOf(int streams, int prefix, bool together) const {
    const int own = absl::GetFlag(FLAGS_own_tokens), pages = prefix / kPageSize,
              shared_pages = PagesOfPrefix(streams, prefix), own_pages = CeilDiv(own + 1, kPageSize),
              turn = together           ? 0
                     : pages >= streams ? 1
                                        : pages;
    StepPlan plan;
    for (int i = 0; i < streams; ++i) {
      PlanSequence& s = plan.sequences.emplace_back();
      s.first_row = i, s.num_rows = 1, s.start = prefix + own;
      for (int p = 0; p < pages; ++p) s.pages.push_back((p + i * turn) % shared_pages);
      for (int p = 0; p < own_pages; ++p) s.pages.push_back(shared_pages + i * own_pages + p);
      plan.token_ids.push_back(1 + i), plan.positions.push_back(s.start);
    }
    return plan;
  }
  absl::Duration Time(const StepPlan& plan) {
    std::vector<int32_t> rows;
    for (int i = 0; i < plan.num_rows(); ++i) rows.push_back(i);
    const absl::Time begin = MonotonicNow();
    model_->Forward(plan, rows, &cache_);
    if (!backend_->Synchronize().ok()) std::exit(1);
    return MonotonicNow() - begin;
  }
  double Bytes(int streams, int prefix) const {
    return static_cast<double>(weight_bytes_) +
           static_cast<double>(token_bytes_) * (prefix + 1.0 * streams * absl::GetFlag(FLAGS_own_tokens));
  }

 private:
  const ModelConfig config_;
  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<Model> model_;
  StateCache cache_;
  int64_t weight_bytes_ = 0, token_bytes_ = 0;
};

double Median(std::vector<double> values) {
  if (values.empty()) return std::nan("");
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

struct Case {
  int streams, prefix;
};

void Run() {
  std::vector<Case> cases;
  int max_streams = 0, max_pages = 0;
  for (const std::string& name : absl::GetFlag(FLAGS_cases)) {
    const std::vector<std::string> parts = absl::StrSplit(name, 'x');
    Case c{};
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &c.streams) ||
        !absl::SimpleAtoi(parts[1], &c.prefix) || c.streams < 1 || c.prefix < 0 ||
        c.prefix % kPageSize != 0) {
      std::fprintf(stderr, "shared_prefix: a case is streams x tokens, whole pages of 64: %s\n",
                   name.c_str());
      std::exit(1);
    }
    cases.push_back(c);
    const int own_pages = CeilDiv(absl::GetFlag(FLAGS_own_tokens) + 1, kPageSize);
    max_streams = std::max(max_streams, c.streams);
    max_pages = std::max(max_pages, Bench::PagesOfPrefix(c.streams, c.prefix) + c.streams * own_pages);
  }
  LimitMeter meter(NumThreads());
  std::printf(
      "bf16 weights and state, %d threads, %d tokens of each stream's own; tokens/s of all streams.\n\n"
      "| model | streams | shared prefix | together | apart | | limit | of the limit |\n"
      "|---|---|---|---|---|---|---|---|\n",
      NumThreads(), absl::GetFlag(FLAGS_own_tokens));
  for (const std::string& name : absl::GetFlag(FLAGS_models)) {
    Bench bench(ConfigOf(name), max_streams, max_pages);
    for (const auto [streams, prefix] : cases) {
      const StepPlan plans[] = {bench.PlanOf(streams, prefix, true), bench.PlanOf(streams, prefix, false)};
      const int kinds = absl::GetFlag(FLAGS_apart) ? 2 : 1;
      const double bytes = bench.Bytes(streams, prefix), before = meter.Measure().read_bytes;
      std::vector<double> seconds[2];
      absl::Duration spent;
      bench.Time(plans[0]);  // the first one behind the meter is slower
      for (int round = 0; spent < kinds * absl::Seconds(absl::GetFlag(FLAGS_seconds)); ++round) {
        for (int i = 0; i < kinds; ++i) {
          const int kind = (i + round) % kinds;
          seconds[kind].push_back(absl::ToDoubleSeconds(bench.Time(plans[kind])));
          spent += absl::Seconds(seconds[kind].back());
        }
      }
      const double limit = 2 * bytes / (before + meter.Measure().read_bytes);
      const double together = Median(seconds[0]), apart = Median(seconds[1]);
      std::printf("| %s | %d | %d | %.1f | %.1f | %.2fx | %.1f | %.0f %% |\n", name.c_str(), streams, prefix,
                  streams / together, streams / apart, apart / together, streams / limit,
                  100 * limit / together);
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Streams with a common prefix, read together and apart, as a Markdown table.");
  absl::ParseCommandLine(argc, argv);
  sessa::Run();
  return 0;
}
