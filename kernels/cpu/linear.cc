#include "kernels/cpu/linear.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels/convert.h"
#include "kernels/cpu/int8_linear.h"
#include "kernels/cpu/int8_tiles.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tiles.h"

namespace sessa {
namespace {

using cpu::kPanel;

constexpr int kItem = 8;  // panels of a work item: small enough to share out, large enough to stream

int Panels(int n) { return CeilDiv(n, kPanel); }
int Items(int n) { return CeilDiv(Panels(n), kItem); }

}  // namespace

LinearLayers::LinearLayers(ThreadPool* pool, const CpuOptions& options)
    : pool_(pool),
      unit_(options.matrix_unit),
      bf16_activations_(options.bf16_activations),
      scratch_(pool->num_threads()),
      products_(pool->num_threads()) {}

LinearLayers::Format LinearLayers::FormatOf(DType dtype) const {
  if (dtype == DType::kI8) return unit_ == MatrixUnit::kVector ? Format::kInt8 : Format::kInt8Tiles;
  if (dtype != DType::kBF16) return Format::kFloat;
  if (unit_ != MatrixUnit::kVector) return Format::kTiles;
  return bf16_activations_ ? Format::kPairs : Format::kFloat;
}

int64_t LinearLayers::PanelBytes(Format format, const LinearWeights& w) {
  if (w.dtype == DType::kI8) return cpu::Int8PanelSize(w.k);
  return SizeOf(w.dtype) * kPanel *
         (format == Format::kTiles ? cpu::TilePanelRows(w.k) : cpu::PanelRows(w.k));
}

absl::StatusOr<LinearWeights> LinearLayers::Make(const TensorView& weight, const TensorView* bias, DType to) {
  const int n = static_cast<int>(weight.shape[0]), k = static_cast<int>(weight.shape[1]);
  LinearWeights w;
  w.n = n, w.k = k, w.dtype = to;
  const Format format = FormatOf(to);
  const int64_t panel_bytes = PanelBytes(format, w);
  auto memory = AllocateMemory(Panels(n) * panel_bytes);
  if (!memory.ok()) return memory.status();
  w.weight = *std::move(memory);
  if (to == DType::kI8) {
    memory = AllocateMemory(Panels(n) * cpu::Int8PanelScales(k) * SizeOf(DType::kBF16));
    if (!memory.ok()) return memory.status();
    w.scale = *std::move(memory);
  }
  std::atomic<bool> finite{true};
  pool_->ParallelFor(Panels(n), [&](int p, int) {
    const int num_rows = std::min(kPanel, n - p * kPanel);
    const int64_t first = static_cast<int64_t>(p) * kPanel * k;
    char* panel = static_cast<char*>(w.weight.data()) + p * panel_bytes;
    if (weight.dtype == DType::kBF16 && to == DType::kBF16) {  // as they are: what most checkpoints are
      cpu::StorePanel(static_cast<const char*>(weight.data) + first * SizeOf(to), num_rows, k, panel);
      return;
    }
    std::vector<float> rows(static_cast<size_t>(num_rows) * k);
    for (int64_t i = 0; i < std::ssize(rows); ++i) rows[i] = ToFloat(weight.data, first + i, weight.dtype);
    if (to == DType::kI8) {
      if (!std::all_of(rows.begin(), rows.end(), [](float x) { return std::isfinite(x); })) finite = false;
      if (!finite) return;
      cpu::QuantizePanel(rows.data(), k, num_rows, k,
                         format == Format::kInt8Tiles ? cpu::kTileQuad : cpu::kPair,
                         reinterpret_cast<int8_t*>(panel),
                         static_cast<uint16_t*>(w.scale.data()) + p * cpu::Int8PanelScales(k));
      return;
    }
    for (int j = 0; j < num_rows; ++j)
      cpu::StoreColumn(rows.data() + static_cast<int64_t>(j) * k, k, to, panel, j);
  });
  if (!finite) return absl::InvalidArgumentError("a weight that is not finite cannot be quantised");
  if (bias != nullptr) {
    memory = AllocateMemory(n * sizeof(float));
    if (!memory.ok()) return memory.status();
    w.bias = *std::move(memory);
    for (int j = 0; j < n; ++j) w.bias.floats()[j] = ToFloat(bias->data, j, bias->dtype);
  }
  return w;
}

const void* LinearLayers::Prepare(Matrix x, Format format) {
  const int tiles = cpu::NumRowTiles(x.rows);
  switch (format) {
    case Format::kPairs: {
      cpu::Bf16Pair* pairs = Grown(&pairs_, cpu::PackedPairs(x.rows, x.cols));
      pool_->ParallelFor(
          tiles, [&](int t, int) { cpu::PackPairs(x.data, x.stride, x.rows, x.cols, t, t + 1, pairs); });
      return pairs;
    }
    case Format::kTiles: {
      uint16_t* packed = GrownLines(&tiles_, cpu::TiledSize(x.rows, x.cols, Terms()));
      pool_->ParallelFor(cpu::TilesOf(x.rows), [&](int t, int) {
        cpu::PackTiles(x.data, x.stride, x.rows, x.cols, Terms(), t, packed);
      });
      return packed;
    }
    case Format::kInt8: {
      uint32_t* words = Grown(&words_, cpu::QuantizedSize(x.rows, x.cols));
      pool_->ParallelFor(tiles,
                         [&](int t, int) { cpu::QuantizeRows(x.data, x.stride, x.rows, x.cols, t, words); });
      return words;
    }
    case Format::kInt8Tiles: {
      uint8_t* packed = GrownLines(&int8_tiles_, cpu::Int8TiledSize(x.rows, x.cols));
      pool_->ParallelFor(cpu::TilesOf(x.rows), [&](int t, int) {
        cpu::QuantizeTiles(unit_, x.data, x.stride, x.rows, x.cols, t, packed);
      });
      return packed;
    }
    case Format::kFloat: break;
  }
  if (x.rows <= cpu::kFewRows) return x.data;
  float* packed = Grown(&packed_, cpu::PackedSize(x.rows, x.cols));
  pool_->ParallelFor(tiles,
                     [&](int t, int) { cpu::PackRows(x.data, x.stride, x.rows, x.cols, t, t + 1, packed); });
  return packed;
}

void LinearLayers::Run(Matrix x, absl::Span<const LinearCall> calls) {
  if (x.rows == 0 || calls.empty()) return;
  const Format format = FormatOf(calls[0].weights->dtype);  // all calls of a model have one dtype
  RunItems(x, format, Prepare(x, format), calls, nullptr);
}

void LinearLayers::RunPair(Matrix x, const LinearCall& first, const LinearCall& second) {
  const Format format = FormatOf(first.weights->dtype);
  const int n = first.weights->n;
  // Three terms are larger than floats are.
  const bool bf16 = format == Format::kTiles && Terms() == 1 && n % cpu::kTileDepth == 0,
             int8 = format == Format::kInt8Tiles && n % kScaleGroup == 0;
  if (x.rows <= cpu::kTileRows || first.epilogue != Epilogue::kSiluGate || !(bf16 || int8)) {
    Run(x, {&first, 1});
    return Run(first.y, {&second, 1});
  }
  uint8_t* between = GrownLines(
      &between_, bf16 ? cpu::TiledSize(x.rows, n, 1) * sizeof(uint16_t) : cpu::Int8TiledSize(x.rows, n));
  RunItems(x, format, Prepare(x, format), {&first, 1}, between);
  RunItems(first.y, format, between, {&second, 1}, nullptr);
}

void LinearLayers::RunItems(Matrix x, Format format, const void* left, absl::Span<const LinearCall> calls,
                            uint8_t* between) {
  const int block = RowsAtOnce(x, format);
  int total = 0;  // of a block of rows
  for (const LinearCall& c : calls) total += Items(c.weights->n);
  pool_->ParallelFor(total * CeilDiv(x.rows, block), [&](int item, int thread) {
    const int begin = item / total * block, end = std::min(x.rows, begin + block);
    item %= total;
    const LinearCall* call = calls.data();
    for (int n; item >= (n = Items(call->weights->n)); ++call) item -= n;
    const LinearWeights& w = *call->weights;
    const int first = item * kItem, last = std::min(Panels(w.n), first + kItem);
    Matrix y = call->y.Columns(first * kPanel, std::min(w.n, last * kPanel));
    y.data = y.row(begin), y.rows = end - begin;
    const bool tiles = format == Format::kTiles || format == Format::kInt8Tiles;
    if (call->epilogue == Epilogue::kSiluGate && tiles && x.rows > cpu::kTileRows) {
      return format == Format::kTiles ? RunGated(x, begin, left, *call, first, y, between)
                                      : RunInt8Gated(x, begin, left, *call, first, thread, y, between);
    }
    if (call->epilogue == Epilogue::kSiluGate)
      RunPanels(x, begin, format, left, *call->up, first, last, Epilogue::kNone, thread, y);
    RunPanels(x, begin, format, left, w, first, last, call->epilogue, thread, y);
  });
}

int LinearLayers::RowsAtOnce(Matrix x, Format format) const {
  if (format != Format::kTiles && format != Format::kInt8Tiles) return x.rows;
  // From so many rows on each thread has some of its own: what it wrote before is in its cache, and the
  // weights, which all then read, are far from what memory can give.
  constexpr int kOwnRows = 128;
  const int blocks =
      std::max(CeilDiv(x.rows, cpu::TileRowsAtOnce(x.cols, format == Format::kTiles ? Terms() : 1)),
               std::min(pool_->num_threads(), x.rows / kOwnRows));
  return RoundUp(CeilDiv(x.rows, std::max(1, blocks)), 2 * cpu::kTileRows);
}

void LinearLayers::RunGated(Matrix x, int begin, const void* left, const LinearCall& call, int first,
                            Matrix y, uint8_t* between) {
  const auto panels = [&](const LinearWeights& w) -> cpu::Panels {
    return {static_cast<const char*>(w.weight.data()) + first * PanelBytes(Format::kTiles, w), w.dtype,
            y.cols, w.k};
  };
  const auto bias = [&](const LinearWeights& w) {
    return w.bias.floats() == nullptr ? nullptr : w.bias.floats() + first * kPanel;
  };
  static_assert(kItem * kPanel % cpu::kTileDepth == 0);
  const int n = call.weights->n;
  auto* tiles = reinterpret_cast<uint16_t*>(between);
  if (tiles != nullptr)
    tiles += cpu::TiledSize(begin, n, 1) + first * kPanel / cpu::kTileDepth * cpu::kTileValues;
  cpu::TileGated(unit_, static_cast<const uint16_t*>(left) + cpu::TiledSize(begin, x.cols, Terms()), y.rows,
                 Terms(), panels(*call.weights), panels(*call.up), bias(*call.weights), bias(*call.up),
                 {y.data, y.stride, tiles, cpu::TileSteps(n)});
}

void LinearLayers::RunInt8Gated(Matrix x, int begin, const void* left, const LinearCall& call, int first,
                                int thread, Matrix y, uint8_t* between) {
  const auto panels = [&](const LinearWeights& w) -> cpu::Int8Panels {
    return {static_cast<const int8_t*>(w.weight.data()) + first * cpu::Int8PanelSize(w.k),
            static_cast<const uint16_t*>(w.scale.data()) + first * cpu::Int8PanelScales(w.k), y.cols, w.k};
  };
  const auto bias = [&](const LinearWeights& w) {
    return w.bias.floats() == nullptr ? nullptr : w.bias.floats() + first * kPanel;
  };
  static_assert(kItem * kPanel % kScaleGroup == 0);
  constexpr int kStride = kItem * kPanel;
  // An item's products stay in the second-level cache until they are integers.
  if (between != nullptr)
    y = {GrownLines(&products_[thread], int64_t{y.rows} * kStride), y.rows, y.cols, kStride};
  cpu::Int8TileGated(unit_, static_cast<const uint8_t*>(left) + cpu::Int8TiledSize(begin, x.cols), y.rows,
                     panels(*call.weights), panels(*call.up), bias(*call.weights), bias(*call.up), y.data,
                     y.stride);
  for (int r = 0; r < y.rows && between != nullptr; r += cpu::kTileRows) {
    uint8_t* to = between + cpu::Int8TiledSize(begin + r, call.weights->n) +
                  int64_t{first} * kPanel / kScaleGroup * cpu::kInt8TileBytes;
    cpu::QuantizeTiles(MatrixUnit::kAmxModel, y.row(r), y.stride, y.rows - r, y.cols, 0, to);
  }
}

void LinearLayers::RunPanels(Matrix x, int begin, Format format, const void* left, const LinearWeights& w,
                             int first, int last, Epilogue epilogue, int thread, Matrix y) {
  const char* data = static_cast<const char*>(w.weight.data()) + first * PanelBytes(format, w);
  const float* bias = w.bias.floats() == nullptr ? nullptr : w.bias.floats() + first * kPanel;
  const int panels = last - first;
  if (format == Format::kInt8Tiles) {
    return cpu::Int8TileLinear(
        unit_, static_cast<const uint8_t*>(left) + cpu::Int8TiledSize(begin, x.cols), x.rows, y.rows,
        {reinterpret_cast<const int8_t*>(data),
         static_cast<const uint16_t*>(w.scale.data()) + first * cpu::Int8PanelScales(w.k), y.cols, w.k},
        bias, epilogue, y.data, y.stride);
  }
  if (format == Format::kTiles) {
    return cpu::TileLinear(unit_, static_cast<const uint16_t*>(left) + cpu::TiledSize(begin, x.cols, Terms()),
                           cpu::TileStride(x.rows), y.rows, Terms(), {data, w.dtype, y.cols, w.k}, bias,
                           epilogue, y.data, y.stride);
  }
  Matrix products = y;
  if (epilogue != Epilogue::kNone && epilogue != Epilogue::kGelu) {
    constexpr int kStride = kItem * kPanel;
    products = {Grown(&products_[thread], static_cast<size_t>(y.rows) * kStride), y.rows, y.cols, kStride};
  }
  switch (format) {
    case Format::kTiles:
    case Format::kInt8Tiles: break;
    case Format::kPairs:
      cpu::LinearPanels(static_cast<const cpu::Bf16Pair*>(left), x.rows, {data, w.dtype, y.cols, w.k}, bias,
                        0, panels, products.data, products.stride,
                        Grown(&scratch_[thread], cpu::LinearScratch(x.rows, x.cols)));
      break;
    case Format::kInt8:
      cpu::Int8LinearPanels(
          static_cast<const uint32_t*>(left), x.rows,
          {reinterpret_cast<const int8_t*>(data),
           static_cast<const uint16_t*>(w.scale.data()) + first * cpu::Int8PanelScales(w.k), y.cols, w.k},
          bias, 0, panels, products.data, products.stride, Grown(&scratch_[thread], cpu::Int8Scratch()));
      break;
    case Format::kFloat:
      cpu::LinearPanels(static_cast<const float*>(left), x.stride, x.rows, {data, w.dtype, y.cols, w.k}, bias,
                        0, panels, products.data, products.stride,
                        Grown(&scratch_[thread], cpu::LinearScratch(x.rows, x.cols)));
      break;
  }
  if (epilogue != Epilogue::kNone)
    cpu::ApplyEpilogue(epilogue, products.data, products.stride, y.rows, y.cols, y.data, y.stride);
}

}  // namespace sessa
