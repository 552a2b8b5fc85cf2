#include "tests/bench/cuda/kernel_cases.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/round.h"

namespace sessa {
namespace {

constexpr double kBeyondCaches = 256e6;  // bytes: several times the L2 cache of an H100 or H200

int Copies(double bytes, int most) {
  return std::clamp(static_cast<int>(kBeyondCaches / std::max(1.0, bytes)) + 1, 1, most);
}

// A matrix [rows, cols] in device memory.
struct DeviceMatrix {
  Buffer memory;
  Matrix view;
};

// Collects the first error, so that setting up reads as a list.
class Setup {
 public:
  explicit Setup(BenchDevice* device) : device_(device) {}
  DeviceMatrix Random(int rows, int cols, float scale = 1) {
    DeviceMatrix m;
    m.memory = Take(device_->Random(static_cast<size_t>(rows) * cols, DType::kF32, scale));
    m.view = {m.memory.floats(), rows, cols, cols};
    return m;
  }
  template <class T>
  T Take(absl::StatusOr<T> value) {
    if (value.ok()) return *std::move(value);
    status.Update(value.status());
    return T();
  }
  absl::Status status;

 private:
  BenchDevice* const device_;
};

struct PagedLayer {
  PagedTensor keys, values, k_b, s;
};

// `batch` sequences with `context` cached tokens and `rows` new ones each, in `num_layers` layers; their
// pages lie anywhere, as they do in a server after a while.
struct PagedLayers {
  PagedLayers(BenchDevice* device, const ModelConfig& config, int batch, int rows, int context,
              double bytes_of_layer, DType dtype = DType::kBF16)
      : setup(device), layers(Copies(bytes_of_layer, rows == 1 ? 128 : config.num_layers)) {
    const int of_sequence = CeilDiv(context + rows, kPage), num_pages = of_sequence * batch;
    pages.resize(num_pages);
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
    const auto pages_of = [&](PagedShape::Use use, int heads, int dim) {
      PagedTensor t =
          setup.Take(device->backend()->AllocatePages({use, heads, dim, dtype}, kPage, 0, num_pages));
      device->FillRandom(t.data.data(), t.data.size(), dtype);
      return t;
    };
    for (PagedLayer& l : layers) {
      l.keys = pages_of(PagedShape::Use::kKey, config.num_kv_heads, config.head_dim());
      l.values = pages_of(PagedShape::Use::kValue, config.num_kv_heads, config.head_dim());
      l.k_b = pages_of(PagedShape::Use::kKey, 1, config.hidden_size);
      l.s = pages_of(PagedShape::Use::kValue, 1, config.hidden_size);
    }
    for (int h = 0; h < config.num_heads; ++h)
      q_to_kv.push_back(h / (config.num_heads / config.num_kv_heads));
    for (int b = 0; b < batch; ++b) {
      step.spans.push_back(
          {b * rows, rows, context, absl::MakeConstSpan(pages).subspan(b * of_sequence, of_sequence)});
      if (rows == 1) step.logit_rows.push_back(b);  // or it would not count as a decode step
      for (int r = 0; r < rows; ++r) {
        step.token_ids.push_back(r);
        step.positions.push_back(context + r);
      }
    }
    CutIntoWaves(&step, device->backend()->feedback()->MaxBlockRows(dtype));
    if (setup.status.ok()) device->backend()->BeginStep(step);
    setup.status.Update(device->backend()->Synchronize());  // what follows is not kept for a graph
    const int D = config.hidden_size, n = batch * rows;
    q = setup.Random(n, D), out = setup.Random(n, D);
    const int wave_rows = batch * step.waves[0][0].num_rows;
    acc = setup.Random(kFeedbackChains * wave_rows, D);
    p = setup.Random(wave_rows, kTileTokens);
    max = setup.Random(kFeedbackChains, wave_rows), sum = setup.Random(kFeedbackChains, wave_rows);
  }

  PagedLayer* Next() { return &layers[next++ % layers.size()]; }
  AttendCall Attend(const PagedLayer& l) const { return {q.view, q_to_kv, out.view, &l.keys, &l.values}; }
  FeedbackReadCall Read(const PagedLayer& l) const {  // of the first wave
    int rows = 0;
    for (const RowSpan& block : step.waves[0]) rows += block.num_rows;
    return {q.view, q.view, 0,
            0,      1,      {max.view.data, sum.view.data, acc.view.data, p.view.data, rows, acc.view.cols},
            &l.k_b, &l.s};
  }

  Setup setup;
  std::vector<PagedLayer> layers;
  size_t next = 0;
  std::vector<int32_t> pages;
  std::vector<int> q_to_kv;
  StepRows step;
  DeviceMatrix q, out, acc, p, max, sum;
};

absl::StatusOr<Measurement> Timed(BenchDevice* device, Measurement m, absl::FunctionRef<void()> body) {
  auto seconds = device->Time(body);
  if (!seconds.ok()) return seconds.status();
  m.seconds = *std::move(seconds);
  return m;
}

double StateBytes(const ModelConfig& c, Read read, double tokens, DType dtype = DType::kBF16) {
  const double of_value = dtype == DType::kI8 ? 1 + 1.0 / kStateGroup : 2;
  return of_value * 2 * tokens *
         ((read != Read::kForward) * c.hidden_size + (read != Read::kFeedback) * c.kv_size());
}
// The same work, and its name, with state of `dtype`.
void ReadState(const ModelConfig& c, Read read, double tokens, DType dtype, Measurement* m) {
  m->work.bytes += StateBytes(c, read, tokens, dtype) - StateBytes(c, read, tokens);
  if (dtype == DType::kI8) m->name += "/int8";
}

}  // namespace

absl::StatusOr<Measurement> MeasureLinear(BenchDevice* device, int rows, int D) {
  Setup setup(device);
  const auto host = RandomBf16(static_cast<size_t>(D) * D, 1 / std::sqrt(static_cast<float>(D)));
  const TensorView view{DType::kBF16, {D, D}, host.data()};
  std::vector<LinearWeights> weights(Copies(2.0 * D * D, 128));
  for (LinearWeights& w : weights) w = setup.Take(device->backend()->MakeLinear(view, nullptr, DType::kBF16));
  const DeviceMatrix x = setup.Random(rows, D), y = setup.Random(rows, D);
  if (!setup.status.ok()) return setup.status;
  Measurement m{absl::StrCat("Linear/m:", rows, "/D:", D), {}, LinearWork(rows, D, D), {}};
  if (rows >= 512) m.target = {Target::kShareOfGemm, 0.8};
  if (rows <= 8 && D >= 2048) m.target = {Target::kShareOfCopy, 0.75};
  size_t i = 0;
  return Timed(device, std::move(m), [&] {
    const LinearCall call{&weights[i++ % weights.size()], y.view};
    device->backend()->Linear(x.view, {}, {&call, 1});
  });
}

absl::StatusOr<Measurement> MeasureStateRead(BenchDevice* device, const ModelConfig& c, Read read, int batch,
                                             int context, DType dtype) {
  const double tokens = static_cast<double>(batch) * context, bytes = StateBytes(c, read, tokens, dtype);
  PagedLayers layers(device, c, batch, 1, context, bytes, dtype);
  if (!layers.setup.status.ok()) return layers.setup.status;
  const char* what = read == Read::kForward ? "forward" : read == Read::kFeedback ? "feedback" : "both";
  Measurement m{
      absl::StrCat("StateRead/", what, "/D:", c.hidden_size, "/batch:", batch, "/context:", context),
      {},
      {},
      {}};
  if (read != Read::kFeedback) m.work = m.work + AttendWork(c, batch, 1, context);
  if (read != Read::kForward) m.work = m.work + FeedbackReadWork(c, batch, 1, context);
  ReadState(c, read, tokens, dtype, &m);
  if (bytes >= 64e6) m.target = {Target::kShareOfCopy, 0.85};
  if (read == Read::kBoth && batch == 1 && context <= 2048 && c.hidden_size <= 1024)
    m.target = {Target::kMicroseconds, 8};
  return Timed(device, std::move(m), [&] {
    const PagedLayer& layer = *layers.Next();
    FeedbackOps* feedback = device->backend()->feedback();
    switch (read) {
      case Read::kForward: return device->backend()->Attend(layers.Attend(layer));
      case Read::kFeedback: return feedback->Read(layers.Read(layer));
      case Read::kBoth: return feedback->AttendAndRead(layers.Attend(layer), layers.Read(layer));
    }
  });
}

absl::StatusOr<Measurement> MeasureAttend(BenchDevice* device, const ModelConfig& c, int rows, int context,
                                          DType dtype) {
  PagedLayers layers(device, c, 1, rows, context, StateBytes(c, Read::kForward, context + rows, dtype),
                     dtype);
  if (!layers.setup.status.ok()) return layers.setup.status;
  Measurement m{absl::StrCat("Attend/D:", c.hidden_size, "/rows:", rows, "/context:", context),
                {},
                AttendWork(c, 1, rows, context),
                {}};
  ReadState(c, Read::kForward, context + rows, dtype, &m);
  if (c.head_dim() == 128) m.target = {Target::kTflops, 550};
  return Timed(device, std::move(m), [&] { device->backend()->Attend(layers.Attend(*layers.Next())); });
}

absl::StatusOr<Measurement> MeasureFeedbackRead(BenchDevice* device, const ModelConfig& c, int batch,
                                                int rows, int context, DType dtype) {
  const double tokens = static_cast<double>(batch) * context;
  PagedLayers layers(device, c, batch, rows, context, StateBytes(c, Read::kFeedback, tokens, dtype), dtype);
  if (!layers.setup.status.ok()) return layers.setup.status;
  Measurement m{
      absl::StrCat("FeedbackRead/D:", c.hidden_size, "/rows:", rows, "/batch:", batch, "/context:", context),
      {},
      FeedbackReadWork(c, batch, rows, context),
      {}};
  ReadState(c, Read::kFeedback, tokens, dtype, &m);
  if (rows >= 2048) m.target = {Target::kTflops, 600};
  return Timed(device, std::move(m),
               [&] { device->backend()->feedback()->Read(layers.Read(*layers.Next())); });
}

absl::StatusOr<Measurement> MeasureSolve(BenchDevice* device, const ModelConfig& c, int batch, int rows) {
  constexpr int kContext = 512;
  PagedLayers layers(device, c, batch, rows, kContext, kBeyondCaches);
  const int n = batch * rows, D = c.hidden_size;
  const DeviceMatrix f = layers.setup.Random(n, D), gamma = layers.setup.Random(1, n, 0.5f);
  if (!layers.setup.status.ok()) return layers.setup.status;
  PagedLayer* layer = layers.Next();
  device->backend()->feedback()->Read(layers.Read(*layer));
  Measurement m{absl::StrCat("Solve/D:", D, "/rows:", rows, "/batch:", batch), {}, {}, {}};
  for (int b = 0; b < batch; ++b) m.work = m.work + StrsmWork(rows, D);
  if (D >= 2048 && rows >= 2048) m.target = {Target::kTflops, 200};
  return Timed(device, std::move(m), [&] {
    device->backend()->feedback()->Solve({0,
                                          1,
                                          layers.Read(*layer).partials,
                                          f.view,
                                          gamma.view.data,
                                          0,
                                          D,
                                          layers.out.view,
                                          {},
                                          {},
                                          false,
                                          &layer->s});
  });
}

absl::StatusOr<Measurement> MeasureSample(BenchDevice* device, int rows, int V, Draw draw) {
  Setup setup(device);
  const double bytes = 4.0 * rows * V;
  std::vector<DeviceMatrix> logits(Copies(bytes, 128));
  for (DeviceMatrix& l : logits) l = setup.Random(rows, V, 3);
  const DeviceMatrix tokens = setup.Random(1, rows);
  if (!setup.status.ok()) return setup.status;
  std::vector<SampleRow> parameters(rows);
  for (int r = 0; r < rows; ++r) {
    parameters[r].row = r;
    parameters[r].temperature = draw == Draw::kGreedy ? 0.0f : 1.0f;
    parameters[r].top_p = draw == Draw::kTopP ? 0.9f : 1.0f;
    parameters[r].uniform = (r + 0.5) / rows;
  }
  // As in a step: many kernels in one graph, with nothing sent to the device between them.
  constexpr int kOfStep = 64;
  const int32_t page = 0;
  StepRows step;
  for (int r = 0; r < rows; ++r) {
    step.spans.push_back({r, 1, 0, {&page, 1}});
    step.token_ids.push_back(0), step.positions.push_back(0), step.logit_rows.push_back(r);
  }
  CutIntoWaves(&step, kTileTokens);
  const char* what = draw == Draw::kGreedy ? "greedy" : draw == Draw::kAll ? "all" : "top_p";
  size_t i = 0;
  int32_t token = 0;
  auto m = Timed(device, {absl::StrCat("Sample/", what, "/rows:", rows, "/V:", V), {}, {bytes, 0}, {}}, [&] {
    device->backend()->BeginStep(step);
    for (i = 0; i < kOfStep; ++i) {
      device->backend()->Sample(logits[i % logits.size()].view, parameters, {},
                                reinterpret_cast<int32_t*>(tokens.view.data));
    }
    device->backend()->CopyOut(tokens.view.data, sizeof token, &token);  // or the step might not have begun
  });
  if (!m.ok()) return m;
  for (double& seconds : m->seconds) seconds /= kOfStep;
  return m;
}

}  // namespace sessa
