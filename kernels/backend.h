// The operations that layers are made of, on one device. Enqueued in order; Synchronize waits and reports
// device errors. Activations are float32; weights and cached state are bf16 or f32; every accumulation is
// float32. Matrix, Buffer and FeedbackPartials name device memory, which nothing outside the backend reads or
// writes: what the host has goes in by BeginStep and CopyIn, what it wants comes out by CopyOut. One thread
// (the rank's) calls a Backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/buffer.h"
#include "kernels/feedback.h"
#include "kernels/sample.h"
#include "kernels/scan.h"
#include "kernels/state.h"
#include "kernels/step_rows.h"
#include "kernels/tensor.h"

namespace sessa {

// y = x W^T + b in the device's own format.
struct LinearWeights {
  int n = 0, k = 0;  // outputs, inputs
  DType dtype = DType::kF32;
  Buffer weight;
  Buffer scale;  // int8 alone: of groups of weights, or of outputs
  Buffer bias;   // [n] f32, or empty
};

struct LinearCall {
  const LinearWeights* weights;
  Matrix y;  // [rows, n]
  Epilogue epilogue = Epilogue::kNone;
  const LinearWeights* up = nullptr;  // kSiluGate: the second product, of the same n, k and dtype
};

// What the rows of a linear's input become first. kLayer: (x - mean) / sqrt(variance + eps) * weight + bias.
// kRms: x / sqrt(mean x^2 + eps) * weight, the mean being taken over each of `groups` equal parts of a row.
struct Norm {
  enum class Kind { kNone, kLayer, kRms };
  Kind kind = Kind::kNone;
  const Buffer* weight = nullptr;  // [D] f32
  const Buffer* bias = nullptr;    // [D] f32, kLayer
  float eps = 0;
  int groups = 1;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // RESOURCE_EXHAUSTED, with the number of bytes.
  virtual absl::StatusOr<Buffer> Allocate(size_t bytes) = 0;
  // What Allocate could still give, about.
  virtual int64_t FreeBytes() const = 0;
  // In order with the operations. `host` must stay as it is until Synchronize, and holds the bytes of CopyOut
  // only then.
  virtual void CopyIn(const void* host, size_t bytes, void* device) = 0;
  virtual void CopyOut(const void* device, size_t bytes, void* host) = 0;
  // weight [n, k] of f32, f16 or bf16 (unaligned is fine); bias [n] of any of these, or null. `to`: f32,
  // bf16, or int8, weights alone, each group of 64 along k with a bf16 scale of its own (symmetric, rounded
  // to nearest), or as the device's own kernels want them (kernels/cpu/int8_tiles.h); INVALID_ARGUMENT when a
  // weight to quantise is not finite.
  virtual absl::StatusOr<LinearWeights> MakeLinear(const TensorView& weight, const TensorView* bias,
                                                   DType to) = 0;
  // The values of a table that is read by rows, as f32 or bf16.
  virtual absl::StatusOr<Buffer> MakeTable(const TensorView& values, DType to) = 0;

  virtual size_t BytesPerPage(const PagedShape& shape, int page_size) const = 0;
  // Zeroed pages. INVALID_ARGUMENT when the device has no kernels for the shape.
  virtual absl::StatusOr<PagedTensor> AllocatePages(const PagedShape& shape, int page_size, int first_page,
                                                    int num_pages) = 0;

  // Makes the step's rows known to the device; the operations below work on them. `rows` and its page tables
  // must stay as they are until the next BeginStep. The operations may be kept until the next CopyIn,
  // CopyOut, BeginStep, EndStep or Synchronize, so that all of a step's are enqueued as one: the device
  // memory that they name stays until then. Waits for the step before, unless EndStep closed it, and for the
  // one before that.
  virtual void BeginStep(const StepRows& rows) = 0;

  // Of the step's tokens; table [V, D]. A token id below 0, -1 - i, is the i-th token that the last Sample
  // has drawn, which the host need not know yet; where that drew none, it is any token.
  virtual void Embed(const Buffer& table, DType dtype, Matrix x) = 0;
  virtual void Linear(Matrix x, const Norm& norm, absl::Span<const LinearCall> calls) = 0;  // calls share x
  // Linear of `first` and then of `second`, which reads first.y, as nobody else does: what is in it after is
  // not defined, so that a device may keep it in a form of its own.
  virtual void LinearPair(Matrix x, const Norm& norm, const LinearCall& first, const LinearCall& second) {
    Linear(x, norm, {&first, 1});
    Linear(first.y, {}, {&second, 1});
  }
  virtual void GatherLogitRows(Matrix x, Matrix y) = 0;  // y[i] = x[logit_rows[i]]
  // tokens[i]: drawn from row rows[i].row of the logits [.., V], after its edits: the top_k best; of these,
  // weighed by exp(score / temperature), the fewest best that reach top_p of the sum; of these, those that
  // weigh at least min_p of the best. At temperature 0 the best. Of equals the lowest id is best; NaN and
  // -infinity are never drawn, -1 when there is nothing else. rows, edits: host memory, read during the call;
  // tokens [rows.size()]: device memory, which stays.
  virtual void Sample(Matrix logits, absl::Span<const SampleRow> rows, absl::Span<const SampleEdit> edits,
                      int32_t* tokens) = 0;

  virtual void Append(const AppendCall& call) = 0;
  virtual void Attend(const AttendCall& call) = 0;

  // What one family of models alone needs; null: this device has no kernels for it.
  virtual FeedbackOps* feedback() = 0;
  virtual ScanOps* scan() = 0;

  // The first n tokens of a sequence back as float32 [n, heads * dim] in host memory, for tests and tools.
  // Synchronizes. Requires every page to be here.
  virtual void ReadState(const PagedTensor& state, const int32_t* pages, int n, float* out) = 0;

  virtual absl::Status Synchronize() = 0;

  // Closes a step, so that the host may prepare the next one while the device computes it.
  virtual void EndStep() {}
  // Waits for the oldest step that EndStep closed and nobody has waited for: its CopyOuts are there. Errors
  // as Synchronize's.
  virtual absl::Status WaitForStep() { return Synchronize(); }
  // Whether operations are computed beside the host. Else they are when their calls return.
  virtual bool is_asynchronous() const { return false; }
};

// What multiplies by bf16 weights and state: the vector unit, as everything else; Intel's AMX; or a model of
// AMX in plain C++, with its bits, for tests on other processors.
enum class MatrixUnit { kVector, kAmx, kAmxModel };

struct CpuOptions {
  int num_threads = 1;  // the caller's included
  // kBF16: linears with bf16 weights round their input to bf16, and so do reads of bf16 state their queries
  // and probabilities: twice as fast and more where arithmetic sets the pace. With other weights or state
  // they stay float32. (The tile of 64 tokens that a row itself is in is read in float32 by dot products of
  // the vector unit, and its feedback states are on every unit.) Requires CpuHasBf16Dot() or a matrix unit.
  // kI8: the same, and linears with int8 weights round their input to 8 bits rather than 16. Requires a
  // matrix unit or CpuHasInt8Dot().
  DType activation_dtype = DType::kF32;
  // kAmx requires CpuHasAmx(). Float32 activations go through it as sums of three bf16 (kernels/cpu/tiles.h).
  MatrixUnit matrix_unit = MatrixUnit::kVector;
};
std::unique_ptr<Backend> MakeCpuBackend(const CpuOptions& options);
bool CpuHasBf16Dot();
bool CpuHasInt8Dot();
bool CpuHasAmx();

}  // namespace sessa
