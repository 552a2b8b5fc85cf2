// ./dev bench: the CPU kernels and whole steps, each as a rate and as a fraction of what this machine can do, measured in
// the same run. Shapes A and B of the performance page: D 1024 and 2048, 24 layers, K = H / 4.
//   bytes/s benchmarks print `of_read`: achieved over the read bandwidth; FLOP/s ones `of_fma`: over the FMA peak.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/sampler.h"
#include "engine/worker.h"
#include "kernels/backend.h"
#include "tests/bench/limits.h"
#include "tests/reference/random_model.h"

namespace sessa {
namespace {

MachineLimits limits;
int num_threads = 1;

void Report(benchmark::State& state, double bytes, double flops) {
  using benchmark::Counter;
  const auto rate = [](double x) { return Counter(x, Counter::kIsIterationInvariantRate); };
  if (bytes > 0) {
    state.counters["GB"] = rate(bytes * 1e-9);
    state.counters["of_read"] = rate(bytes / limits.read_bytes);
  }
  if (flops > 0) {
    state.counters["GFLOP"] = rate(flops * 1e-9);
    state.counters["of_fma"] = rate(flops / limits.fma_flops);
  }
}

std::vector<float> Values(size_t n, float scale = 1) {
  std::vector<float> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = scale * static_cast<float>(static_cast<int>(i * 2654435761u >> 20 & 1023) - 512) / 512;
  return v;
}

// x [m, D] times a stack of weights [D, D] that is larger than the caches, so that each call streams its weights.
void BM_Linear(benchmark::State& state) {
  const int m = static_cast<int>(state.range(0)), D = static_cast<int>(state.range(1));
  auto backend = MakeCpuBackend(num_threads);
  const int count = std::max<int>(2, static_cast<int>((int64_t{256} << 20) / (2LL * D * D)));
  const auto w = Values(static_cast<size_t>(D) * D, 0.03f), x = Values(static_cast<size_t>(m) * D);
  std::vector<LinearWeights> weights;
  for (int i = 0; i < count; ++i) weights.push_back(*backend->MakeLinear(w.data(), nullptr, DType::kF32, D, D, DType::kBF16));
  std::vector<float> y(static_cast<size_t>(m) * D);
  int i = 0;
  for (auto _ : state) {
    const LinearCall call{&weights[i++ % count], {y.data(), m, D, D}};
    backend->Linear({const_cast<float*>(x.data()), m, D, D}, {&call, 1});
  }
  Report(state, m <= 4 ? 2.0 * D * D : 0, 2.0 * m * D * D);
}

// One layer's pages with t tokens of one sequence.
struct PagedLayer {
  PagedLayer(Backend* backend, int D, int t) {
    state.dtype = DType::kBF16;
    state.page_size = 64;
    state.head_dim = 64;
    state.num_kv_heads = D / 64 / 4;
    state.hidden_size = D;
    const int num_pages = t / 64 + 1;
    state.num_feedback_pages = num_pages;
    if (!backend->AllocateState(num_pages, &state).ok()) std::abort();
    for (int i = 0; i < num_pages; ++i) pages.push_back(i);
    const int kv = state.num_kv_heads * state.head_dim;
    auto rows = Values(static_cast<size_t>(64) * D, 0.1f);
    for (int start = 0; start < t; start += 64) {
      const int n = std::min(64, t - start);
      const Matrix narrow{rows.data(), n, kv, kv}, wide{rows.data(), n, D, D};
      Begin(backend, n, start);
      backend->AppendForward(narrow, narrow, &state);
      backend->AppendFeedbackKeys(wide, &state);
      backend->AppendFeedbackStates(wide, 0, &state);
    }
  }
  // A step of `rows` rows, one block, at position `start`.
  void Begin(Backend* backend, int rows, int start) {
    step.spans = {{0, rows, start, pages}};
    step.waves = {step.spans};
    backend->BeginStep(step);
  }
  StepRows step;
  LayerState state;
  std::vector<int32_t> pages;
};

struct Partials {
  Partials(int rows, int width)
      : max(8 * rows), sum(8 * rows), acc(static_cast<size_t>(8) * rows * width), p(static_cast<size_t>(rows) * 64),
        view{max.data(), sum.data(), acc.data(), p.data(), rows, width} {}
  std::vector<float> max, sum, acc, p;
  FeedbackPartials view;
};

// The feedback read of `rows` rows (one block) at position t.
void BM_FeedbackRead(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0)), D = static_cast<int>(state.range(1)), t = static_cast<int>(state.range(2));
  auto backend = MakeCpuBackend(num_threads);
  PagedLayer layer(backend.get(), D, t + rows);
  auto q = Values(static_cast<size_t>(rows) * D, 0.1f);
  Partials partials(rows, D);
  layer.Begin(backend.get(), rows, t);
  for (auto _ : state) backend->FeedbackRead({q.data(), rows, D, D}, 0, layer.state, 0, 1, partials.view);
  Report(state, rows == 1 ? 4.0 * D * t : 0, 4.0 * rows * D * t);
}

void BM_FeedbackSolve(benchmark::State& state) {
  const int rows = 64, D = static_cast<int>(state.range(0));
  auto backend = MakeCpuBackend(num_threads);
  PagedLayer layer(backend.get(), D, 128);
  auto q = Values(static_cast<size_t>(rows) * D, 0.1f), f = q, s = q;
  const std::vector<float> gamma(rows, 0.5f);
  Partials partials(rows, D);
  layer.Begin(backend.get(), rows, 64);
  backend->FeedbackRead({q.data(), rows, D, D}, 0, layer.state, 0, 1, partials.view);
  for (auto _ : state) {
    backend->FeedbackSolve(0, partials.view, {f.data(), rows, D, D}, gamma.data(), DType::kBF16, 0, D, {s.data(), rows, D, D});
  }
  Report(state, 0, 1.0 * rows * rows * D);
}

// Forward attention of `rows` rows at position t.
void BM_Attend(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0)), D = static_cast<int>(state.range(1)), t = static_cast<int>(state.range(2));
  auto backend = MakeCpuBackend(num_threads);
  PagedLayer layer(backend.get(), D, t + rows);
  auto q = Values(static_cast<size_t>(rows) * D, 0.1f);
  std::vector<float> out(q.size());
  std::vector<int> q_to_kv;
  for (int h = 0; h < D / 64; ++h) q_to_kv.push_back(h / 4);
  layer.Begin(backend.get(), rows, t);
  for (auto _ : state) backend->Attend({q.data(), rows, D, D}, q_to_kv, layer.state, {out.data(), rows, D, D});
  Report(state, rows == 1 ? 4.0 * (D / 4) * (t + 1) : 0, 4.0 * rows * D * (t + rows / 2.0));
}

void BM_Sample(benchmark::State& state) {
  const int V = static_cast<int>(state.range(0));
  Sampler sampler(V, {});
  const auto logits = Values(V, 8);
  SamplingParams params;
  params.temperature = state.range(1) == 0 ? 0.0f : 1.0f;
  params.top_p = state.range(1) == 2 ? 0.9f : 1.0f;
  const std::vector<int32_t> tokens = {1, 2, 3};
  uint64_t seed = 0;
  for (auto _ : state) benchmark::DoNotOptimize(sampler.Sample(logits, params, tokens, 3, seed++));
  Report(state, 4.0 * V, 0);
}

// A whole model of 24 layers behind Workers, and plans made by hand: `batch` sequences with `context` tokens each.
class ModelBench {
 public:
  ModelBench(int D, int max_tokens) {
    config_.vocab_size = 32000;
    config_.hidden_size = D;
    config_.num_layers = 24;
    config_.num_heads = D / 64;
    config_.num_kv_heads = D / 256;
    config_.max_position_embeddings = 1 << 20;
    WorkerOptions w;
    w.num_threads = num_threads;
    w.max_rows = 512;
    w.max_pages = max_tokens / 64 + 64;
    w.state_cache_bytes = int64_t{1} << 40;
    workers_ = *Workers::Create(w, config_, *RandomModel(config_, 1, DType::kBF16));
    greedy_.temperature = 0;
  }
  // One step of `rows` rows for each of `batch` sequences at position `context`. The pages hold zeros or what earlier steps
  // left there: the work is the same.
  void Step(int batch, int rows, int context) {
    StepPlan plan;
    const int pages = (context + rows + 63) / 64;
    tokens_.assign(context + rows, 1);
    for (int b = 0; b < batch; ++b) {
      PlanSequence& s = plan.sequences.emplace_back();
      s.first_row = plan.num_rows();
      s.num_rows = rows;
      s.start = context;
      for (int i = 0; i < pages; ++i) s.pages.push_back((b * pages + i) % workers_->num_pages());
      s.sample = true;
      s.sampling = &greedy_;
      s.tokens = &tokens_;
      s.prompt_size = 1;
      for (int r = 0; r < rows; ++r) plan.token_ids.push_back((b + r) % 1000), plan.positions.push_back(context + r);
    }
    if (!workers_->Execute(plan, &results_).ok()) std::abort();
  }
  double WeightBytes() const {  // of the linears and the output head, bf16
    const double D = config_.hidden_size, kv = config_.kv_size();
    return 2 * (config_.num_layers * (7 * D * D + 2 * kv * D) + config_.vocab_size * D);
  }
  double StateBytes(int context) const { return 2.0 * config_.num_layers * context * (2 * config_.hidden_size + 2 * config_.kv_size()); }
  double PrefillFlops(int rows, int context) const {
    const double D = config_.hidden_size, t = context + rows / 2.0;
    return rows * (WeightBytes() - 2.0 * config_.vocab_size * D) + config_.num_layers * rows * t * 8 * D;
  }

 private:
  ModelConfig config_;
  std::unique_ptr<Workers> workers_;
  SamplingParams greedy_;
  std::vector<int32_t> tokens_;
  std::vector<SequenceResult> results_;
};

// The one model in memory: shape A is followed by shape B.
ModelBench* Model(int D, int max_tokens) {
  static int width = 0;
  static std::unique_ptr<ModelBench> model;
  if (width != D) {
    model.reset();
    model = std::make_unique<ModelBench>(D, max_tokens);
    width = D;
  }
  return model.get();
}

constexpr int kModelTokens = 40960;

void BM_DecodeStep(benchmark::State& state) {
  const int D = static_cast<int>(state.range(0)), batch = static_cast<int>(state.range(1)), context = static_cast<int>(state.range(2));
  ModelBench* model = Model(D, kModelTokens);
  model->Step(batch, 1, context);
  for (auto _ : state) model->Step(batch, 1, context);
  Report(state, model->WeightBytes() + batch * model->StateBytes(context), 0);
  state.counters["tokens"] = benchmark::Counter(batch, benchmark::Counter::kIsIterationInvariantRate);
}

void BM_PrefillStep(benchmark::State& state) {
  const int D = static_cast<int>(state.range(0)), rows = static_cast<int>(state.range(1)), context = static_cast<int>(state.range(2));
  ModelBench* model = Model(D, kModelTokens);
  model->Step(1, rows, context);
  for (auto _ : state) model->Step(1, rows, context);
  Report(state, 0, model->PrefillFlops(rows, context));
  state.counters["tokens"] = benchmark::Counter(rows, benchmark::Counter::kIsIterationInvariantRate);
}

void Register() {
  const auto wall = [](benchmark::internal::Benchmark* b) { b->UseRealTime()->Unit(benchmark::kMicrosecond); };
  wall(benchmark::RegisterBenchmark("Linear/m/D", BM_Linear)->ArgsProduct({{1, 4, 16, 64, 512}, {1024, 2048}}));
  wall(benchmark::RegisterBenchmark("FeedbackRead/rows/D/context", BM_FeedbackRead)->ArgsProduct({{1, 64}, {1024, 2048}, {2048, 32768}}));
  wall(benchmark::RegisterBenchmark("FeedbackSolve/D", BM_FeedbackSolve)->Arg(1024)->Arg(2048));
  wall(benchmark::RegisterBenchmark("Attend/rows/D/context", BM_Attend)->ArgsProduct({{1, 64}, {1024, 2048}, {2048, 32768}}));
  wall(benchmark::RegisterBenchmark("Sample/V/greedy,drawn,top_p", BM_Sample)->ArgsProduct({{32000, 150000}, {0, 1, 2}}));
  for (int D : {1024, 2048}) {
    wall(benchmark::RegisterBenchmark("DecodeStep/D/batch/context", BM_DecodeStep)->ArgsProduct({{D}, {1, 16}, {256, 2048}}));
    wall(benchmark::RegisterBenchmark("DecodeStep/D/batch/context", BM_DecodeStep)->Args({D, 1, 32768}));
    wall(benchmark::RegisterBenchmark("PrefillStep/D/rows/context", BM_PrefillStep)->ArgsProduct({{D}, {64, 512}, {0, 2048}}));
  }
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  sessa::num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  sessa::limits = sessa::MeasureLimits(sessa::num_threads);
  std::printf("limits of this run, %d threads: read %.1f GB/s, float32 FMA %.0f GFLOP/s\n", sessa::num_threads,
              sessa::limits.read_bytes * 1e-9, sessa::limits.fma_flops * 1e-9);
  sessa::Register();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
