#include "kernels/cpu/linear.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/convert.h"
#include "kernels/cpu/int8_linear.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tiles.h"

namespace sessa {
namespace {

using cpu::kPanel;

constexpr int kItem = 8;  // panels of a work item: small enough to share out, large enough to stream

int Panels(int n) { return CeilDiv(n, kPanel); }
int Items(int n) { return CeilDiv(Panels(n), kItem); }

// From a panel on.
const float* BiasOf(const LinearWeights& w, int panel) {
  return w.bias.floats() == nullptr ? nullptr : w.bias.floats() + panel * kPanel;
}
cpu::Int8Panels Int8PanelsOf(const LinearWeights& w, int panel, int columns) {
  return {static_cast<const int8_t*>(w.weight.data()) + panel * cpu::Int8PanelSize(w.k),
          static_cast<const uint16_t*>(w.scale.data()) + panel * cpu::Int8PanelScales(w.k), columns, w.k};
}
cpu::Int8TilePanels Int8TilePanelsOf(const LinearWeights& w, int panel, int columns) {
  return {static_cast<const int8_t*>(w.weight.data()) + panel * cpu::Int8TilePanelSize(w.k),
          w.scale.floats() + panel * kPanel, columns, w.k};
}

}  // namespace

LinearLayers::LinearLayers(ThreadPool* pool, const CpuOptions& options)
    : pool_(pool),
      unit_(options.matrix_unit),
      activation_dtype_(options.activation_dtype),
      scratch_(pool->num_threads()),
      products_(pool->num_threads()) {}

LinearLayers::Format LinearLayers::FormatOf(DType dtype) const {
  if (dtype == DType::kF32) return Format::kFloat;
  const bool on_unit = unit_ != MatrixUnit::kVector;
  if (dtype == DType::kI8) return on_unit || cpu::HasInt8Dot() ? Format::kInt8Tiles : Format::kInt8;
  if (on_unit) return Format::kTiles;
  return bf16_activations() ? Format::kPairs : Format::kFloat;
}

const char* LinearLayers::PanelOf(Format format, const LinearWeights& w, int panel) {
  return static_cast<const char*>(w.weight.data()) + panel * PanelBytes(format, w);
}

int64_t LinearLayers::PanelBytes(Format format, const LinearWeights& w) {
  if (format == Format::kInt8Tiles) return cpu::Int8TilePanelSize(w.k);
  if (format == Format::kInt8) return cpu::Int8PanelSize(w.k);
  return SizeOf(w.dtype) * kPanel *
         (format == Format::kTiles ? cpu::TilePanelRows(w.k) : cpu::PanelRows(w.k));
}

absl::StatusOr<LinearWeights> LinearLayers::Make(const TensorView& weight, const TensorView* bias, DType to) {
  const int n = static_cast<int>(weight.shape[0]), k = static_cast<int>(weight.shape[1]);
  LinearWeights w;
  w.n = n, w.k = k, w.dtype = to;
  const Format format = FormatOf(to);
  const int64_t panel_bytes = PanelBytes(format, w);
  if (format == Format::kInt8Tiles && k > cpu::kMostInt8Depth) {
    return absl::InvalidArgumentError(
        absl::StrCat("int8 weights of ", k, " inputs: at most ", cpu::kMostInt8Depth, " on this CPU"));
  }
  auto memory = AllocateMemory(Panels(n) * panel_bytes);
  if (!memory.ok()) return memory.status();
  w.weight = *std::move(memory);
  if (to == DType::kI8) {
    memory = AllocateMemory(Panels(n) * (format == Format::kInt8Tiles
                                             ? kPanel * sizeof(float)
                                             : cpu::Int8PanelScales(k) * SizeOf(DType::kBF16)));
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
    ToFloats(weight.data, first, std::ssize(rows), weight.dtype, rows.data());
    if (to == DType::kI8) {
      if (!std::all_of(rows.begin(), rows.end(), [](float x) { return std::isfinite(x); })) finite = false;
      if (!finite) return;
      auto* data = reinterpret_cast<int8_t*>(panel);
      if (format == Format::kInt8Tiles) {
        std::vector<float> rotated(cpu::Int8Rotated(k));
        cpu::PackInt8Panel(rows.data(), k, num_rows, k, rotated.data(), data, w.scale.floats() + p * kPanel);
        return;
      }
      cpu::QuantizePanel(rows.data(), k, num_rows, k, data,
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
    ToFloats(bias->data, 0, n, bias->dtype, w.bias.floats());
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
    case Format::kInt8Tiles: {
      int8_t* packed = GrownLines(&int8_tiles_, cpu::Int8TiledSize(x.rows, x.cols, Int8Terms()));
      float* scales = Grown(&row_scales_, x.rows);
      pool_->ParallelFor(cpu::TilesOf(x.rows), [&](int t, int thread) {
        cpu::PackInt8Tiles(x.data, x.stride, x.rows, x.cols, Int8Terms(), t,
                           Grown(&scratch_[thread], cpu::Int8Rotated(x.cols)), packed, scales);
      });
      return packed;
    }
    case Format::kInt8: {
      uint32_t* words = Grown(&words_, cpu::QuantizedSize(x.rows, x.cols));
      pool_->ParallelFor(tiles,
                         [&](int t, int) { cpu::QuantizeRows(x.data, x.stride, x.rows, x.cols, t, words); });
      return words;
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
  if (x.rows <= cpu::kTileRows || first.epilogue != Epilogue::kSiluGate || format != Format::kTiles ||
      Terms() != 1 || n % cpu::kTileDepth != 0) {
    Run(x, {&first, 1});
    return Run(first.y, {&second, 1});
  }
  uint16_t* between = GrownLines(&between_, cpu::TiledSize(x.rows, n, 1));
  RunItems(x, format, Prepare(x, format), {&first, 1}, between);
  RunItems(first.y, format, between, {&second, 1}, nullptr);
}

void LinearLayers::RunItems(Matrix x, Format format, const void* left, absl::Span<const LinearCall> calls,
                            uint16_t* between) {
  const int block = RowsAtOnce(x, format);
  int total = 0;  // of a block of rows
  for (const LinearCall& c : calls) total += Items(c.weights->n);
  const bool is_on_unit = unit_ != MatrixUnit::kVector && IsOfTiles(format);
  pool_->ParallelFor(total * CeilDiv(x.rows, block), [&](int item, int thread) {
    const int begin = item / total * block, end = std::min(x.rows, begin + block);
    item %= total;
    const LinearCall* call = calls.data();
    for (int n; item >= (n = Items(call->weights->n)); ++call) item -= n;
    const LinearWeights& w = *call->weights;
    const int first = item * kItem, last = std::min(Panels(w.n), first + kItem);
    Matrix y = call->y.Columns(first * kPanel, std::min(w.n, last * kPanel));
    y.data = y.row(begin), y.rows = end - begin;
    if (call->epilogue == Epilogue::kSiluGate && is_on_unit && x.rows > cpu::kTileRows)
      return RunGated(x, begin, format, left, *call, first, y, between);
    if (call->epilogue == Epilogue::kSiluGate)
      RunPanels(x, begin, format, left, *call->up, first, last, Epilogue::kNone, thread, y);
    RunPanels(x, begin, format, left, w, first, last, call->epilogue, thread, y);
  });
}

int LinearLayers::RowsAtOnce(Matrix x, Format format) const {
  if (!IsOfTiles(format)) return x.rows;
  // From so many rows on each thread has some of its own: what it wrote before is in its cache, and the
  // weights, which all then read, are far from what memory can give.
  constexpr int kOwnRows = 128;
  const int at_once = format == Format::kTiles ? cpu::TileRowsAtOnce(x.cols, Terms() * sizeof(uint16_t))
                                               : cpu::TileRowsAtOnce(x.cols, Int8Terms());
  const int blocks = std::max(CeilDiv(x.rows, at_once), std::min(pool_->num_threads(), x.rows / kOwnRows));
  return RoundUp(CeilDiv(x.rows, std::max(1, blocks)), 2 * cpu::kTileRows);
}

cpu::Int8Left LinearLayers::Int8LeftFrom(Matrix x, const void* left, int row) const {
  return {static_cast<const int8_t*>(left) + cpu::Int8TiledSize(row, x.cols, Int8Terms()),
          row_scales_.data() + row, Int8Terms(), cpu::Int8TileStride(x.rows)};
}

void LinearLayers::RunGated(Matrix x, int begin, Format format, const void* left, const LinearCall& call,
                            int first, Matrix y, uint16_t* between) {
  static_assert(kItem * kPanel % cpu::kTileDepth == 0);
  const LinearWeights &gate = *call.weights, &up = *call.up;
  if (format == Format::kInt8Tiles) {
    return cpu::Int8TileGated(unit_, Int8LeftFrom(x, left, begin), y.rows,
                              Int8TilePanelsOf(gate, first, y.cols), Int8TilePanelsOf(up, first, y.cols),
                              BiasOf(gate, first), BiasOf(up, first), y.data, y.stride);
  }
  const int n = gate.n;
  if (between != nullptr)
    between += cpu::TiledSize(begin, n, 1) + first * kPanel / cpu::kTileDepth * cpu::kTileValues;
  const cpu::TileOutput out{y.data, y.stride, between, cpu::TileSteps(n)};
  const auto* a = static_cast<const uint16_t*>(left) + cpu::TiledSize(begin, x.cols, Terms());
  const auto panels = [&](const LinearWeights& w) -> cpu::Panels {
    return {PanelOf(format, w, first), w.dtype, y.cols, w.k};
  };
  cpu::TileGated(unit_, a, y.rows, Terms(), panels(gate), panels(up), BiasOf(gate, first), BiasOf(up, first),
                 out);
}

void LinearLayers::RunPanels(Matrix x, int begin, Format format, const void* left, const LinearWeights& w,
                             int first, int last, Epilogue epilogue, int thread, Matrix y) {
  const char* data = PanelOf(format, w, first);
  const float* bias = BiasOf(w, first);
  const int panels = last - first;
  if (format == Format::kTiles) {
    const auto* a = static_cast<const uint16_t*>(left) + cpu::TiledSize(begin, x.cols, Terms());
    return cpu::TileLinear(unit_, a, cpu::TileStride(x.rows), y.rows, Terms(), {data, w.dtype, y.cols, w.k},
                           bias, epilogue, y.data, y.stride);
  }
  if (format == Format::kInt8Tiles) {
    return cpu::Int8TileLinear(unit_, Int8LeftFrom(x, left, begin), y.rows,
                               Int8TilePanelsOf(w, first, y.cols), bias, epilogue, y.data, y.stride);
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
      cpu::Int8LinearPanels(static_cast<const uint32_t*>(left), x.rows, Int8PanelsOf(w, first, y.cols), bias,
                            0, panels, products.data, products.stride,
                            Grown(&scratch_[thread], cpu::Int8Scratch()));
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
