// The operations a Sessa layer is made of, on one device. Enqueued in order; Synchronize waits and reports
// device errors. Activations are float32; weights and cached state are bf16 or f32; every accumulation is
// float32. Matrix, Buffer and FeedbackPartials name device memory, which nothing outside the backend reads or
// writes: what the host has goes in by BeginStep and CopyIn, what it wants comes out by CopyOut. One thread
// (the rank's worker) calls a Backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/sample.h"
#include "kernels/tensor.h"

namespace sessa {

// Tokens of a softmax tile of the feedback read, and the unit in which feedback state is dealt out to ranks:
// tile i of a sequence belongs to rank i % num_ranks. Pages must divide it.
inline constexpr int kFeedbackTile = 64;
// Independent softmax chains of that read: tile i extends chain i % kFeedbackChains. A multiple of every rank
// count, so that the sum's order, hence every bit of the result, is the same for 1, 2, 4 and 8 ranks.
inline constexpr int kFeedbackChains = 8;

// Device memory, zeroed, freed with the object.
class Buffer {
 public:
  Buffer() = default;
  Buffer(void* data, size_t size, void (*release)(void*, size_t))
      : data_(data), size_(size), release_(release) {}
  Buffer(Buffer&& o) noexcept { *this = std::move(o); }
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(release_, o.release_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release_(data_, size_);
  }
  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
  void (*release_)(void*, size_t) = nullptr;
};

// y = x W^T + b in the device's own format.
struct LinearWeights {
  int n = 0, k = 0;  // outputs, inputs
  DType dtype = DType::kF32;
  Buffer weight;
  Buffer scale;  // int8 alone: of groups of weights
  Buffer bias;   // [n] f32, or empty
};

struct LinearCall {
  const LinearWeights* weights;
  Matrix y;  // [rows, n]
  Epilogue epilogue = Epilogue::kNone;
};

// (x - mean) / sqrt(variance + eps) * weight + bias, of each row; weight, bias [D] f32.
struct LayerNorm {
  const Buffer *weight, *bias;
  float eps;
};

// A rank's cached state of one layer, paged. Forward keys and values of this rank's heads for every page;
// feedback keys and states, full width, for the pages of this rank's class only.
struct LayerState {
  DType dtype = DType::kF32;
  int page_size = 0;
  int num_kv_heads = 0, head_dim = 0, hidden_size = 0;
  int first_feedback_page = 0, num_feedback_pages = 0;  // the page ids of this rank's class
  Buffer k_f, v_f;                                      // device format
  Buffer k_b, s;
};

// Rows of one sequence in a step: positions start, start + 1, ... at batch rows first_row, ...
struct RowSpan {
  int first_row = 0, num_rows = 0, start = 0;
  absl::Span<const int32_t> pages;  // page table, host memory: covers positions [0, start + num_rows)
};

// The rows of one step, in host memory. A block is some rows of one sequence; a wave is one block of each
// sequence, and the i-th wave holds the i-th blocks.
struct StepRows {
  std::vector<int32_t> token_ids, positions;  // [num_rows]
  std::vector<RowSpan> spans;                 // one for each sequence
  std::vector<std::vector<RowSpan>> waves;    // the spans cut into blocks; the last waves may be empty
  std::vector<int32_t> logit_rows;            // the rows of GatherLogitRows
  int head_dim = 0;                           // of the rope; 0: there is none
  float rope_theta = 0;
};

// Fills in the waves from the spans: blocks of at most max_block_rows rows, which are kFeedbackTile or a
// multiple; with kFeedbackTile no block crosses the border of a tile.
void CutIntoWaves(StepRows* rows, int max_block_rows);

// What the feedback read of a wave leaves behind, exchanged between ranks. For the wave's rows r:
//   max, sum [kFeedbackChains][rows], acc [kFeedbackChains][rows][width], p [rows][kFeedbackTile]
// p: of blocks within one tile, the unnormalised probabilities of the columns inside it, from the rank of
// that tile. Backends with longer blocks keep what they need of a block's own columns from FeedbackRead to
// FeedbackSolve.
struct FeedbackPartials {
  float *max, *sum, *acc, *p;
  int rows, width;
};

// What the step's rows add to a layer. q [rows, heads * head_dim], k and v [rows, KV heads * head_dim], of
// this rank's heads; k_b and u [rows, D].
struct LayerRows {
  Matrix q, k, v, k_b, u;
  const Buffer *gamma_ctx, *gamma_bias;  // [D], [1]
  float gamma_max;
  float* gamma;  // [rows], filled in
};

// Causal grouped-query attention of this rank's heads, of all rows. q_to_kv[h] names the rank's own KV head
// of query head h; the query heads of one KV head are neighbours.
struct AttendCall {
  Matrix q;
  absl::Span<const int> q_to_kv;
  Matrix out;
};

// The chains c with c % num_ranks == rank, over all tokens whose state is cached, of one wave's rows.
struct FeedbackReadCall {
  Matrix q_b, k_b;  // k_b: the step's own keys, which the pages hold too
  int wave, rank, num_ranks;
  FeedbackPartials partials;
};

// s = f + gamma r for the columns [begin, end) of the wave's rows, and gated = s g there (null: not wanted).
// append: s goes to its pages too; requires all columns, and every page to be of this rank's class. The
// partials are those of all ranks: p is [num_ranks][rows][kFeedbackTile].
struct FeedbackSolveCall {
  int wave, num_ranks;
  FeedbackPartials partials;
  Matrix f;
  const float* gamma;  // [rows]
  int begin, end;
  Matrix s, g, gated;
  bool append;
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
  // weight: row-major [n, k] of f32, f16 or bf16 (unaligned is fine); bias [n] of the same or null. `to`:
  // f32, bf16, or int8, weights alone, each group of 64 along k with a bf16 scale of its own (symmetric,
  // rounded to nearest); INVALID_ARGUMENT when a weight to quantise is not finite.
  virtual absl::StatusOr<LinearWeights> MakeLinear(const void* weight, const void* bias, DType from, int n,
                                                   int k, DType to) = 0;
  // `n` values of a table that is read by rows, as f32 or bf16.
  virtual absl::StatusOr<Buffer> MakeTable(const void* data, DType from, int64_t n, DType to) = 0;
  // Rows of the longest blocks that FeedbackRead and FeedbackSolve are made for: what CutIntoWaves is to be
  // told.
  virtual int MaxBlockRows(DType state_dtype) const = 0;
  virtual size_t StateBytesPerPage(const LayerState& shape, bool feedback) const = 0;
  virtual absl::Status AllocateState(int num_pages, LayerState* state) = 0;

  // Makes the step's rows known to the device; the operations below work on them. `rows` and its page tables
  // must stay as they are until the next BeginStep. The operations may be kept until the next CopyIn,
  // CopyOut, BeginStep or Synchronize, so that all of a step's are enqueued as one: the device memory that
  // they name stays until then.
  virtual void BeginStep(const StepRows& rows) = 0;

  virtual void Embed(const Buffer& table, DType dtype, Matrix x) = 0;  // of the step's tokens; table [V, D]
  virtual void Linear(Matrix x, absl::Span<const LinearCall> calls) = 0;  // calls share x
  // Of the layer norm of x.
  virtual void LayerNormLinear(Matrix x, const LayerNorm& norm, absl::Span<const LinearCall> calls) = 0;
  virtual void GatherLogitRows(Matrix x, Matrix y) = 0;  // y[i] = x[logit_rows[i]]
  // tokens[i]: drawn from row rows[i].row of the logits [.., V], after its edits: the top_k best; of these,
  // weighed by exp(score / temperature), the fewest best that reach top_p of the sum; of these, those that
  // weigh at least min_p of the best. At temperature 0 the best. Of equals the lowest id is best; NaN and
  // -infinity are never drawn, -1 when there is nothing else. rows, edits: host memory, read during the call;
  // tokens [rows.size()]: device memory.
  virtual void Sample(Matrix logits, absl::Span<const SampleRow> rows, absl::Span<const SampleEdit> edits,
                      int32_t* tokens) = 0;

  // Rotates even/odd pairs of every head of q and k in place by their positions' angles, taken in float32 as
  // the published layers do: angle = position * theta^(-2 i / head_dim) for pair i. Stores k, v and k_b in
  // the step's pages (k_b only in those of this rank's class). gamma[r] = gamma_max tanh(gamma_bias[0] +
  // gamma_ctx . u_r).
  virtual void AppendRows(const LayerRows& rows, LayerState* state) = 0;
  // States of one wave's rows. Rows whose page is not of this rank's class are skipped.
  virtual void AppendFeedbackStates(Matrix s, int wave, LayerState* state) = 0;

  virtual void Attend(const AttendCall& call, const LayerState& state) = 0;
  virtual void FeedbackRead(const FeedbackReadCall& call, const LayerState& state) = 0;
  // Both, neither of which needs the other. This implementation: one after the other.
  virtual void AttendAndFeedbackRead(const AttendCall& attend, const FeedbackReadCall& read,
                                     const LayerState& state);
  virtual void FeedbackSolve(const FeedbackSolveCall& call, LayerState* state) = 0;

  // Reads one layer's cached rows of a sequence back as float32, for tests and tools: k_f, v_f [n, kv heads *
  // head_dim], k_b, s [n, D], host memory (null: skipped). Synchronizes. Requires every page to be of this
  // rank's class.
  virtual void ReadState(const LayerState& state, const int32_t* pages, int n, float* k_f, float* v_f,
                         float* k_b, float* s) = 0;

  virtual absl::Status Synchronize() = 0;
};

// What multiplies matrices of bf16 weights: the vector unit, as everything else; Intel's AMX; or a model of
// AMX in plain C++, with its bits, for tests on other processors.
enum class MatrixUnit { kVector, kAmx, kAmxModel };

struct CpuOptions {
  int num_threads = 1;  // the caller's included
  // Linears with bf16 weights round their input to bf16, and so do reads of bf16 state their queries and
  // probabilities where the vector unit has a fast bf16 dot product: twice as fast where arithmetic sets the
  // pace. With other weights or state they stay float32. (The tile of 64 tokens that a row itself is in is
  // read in float32 always.) Requires CpuHasBf16Dot() or a matrix unit.
  bool bf16_activations = false;
  // kAmx requires CpuHasAmx(). Float32 activations go through it as sums of three bf16 (kernels/cpu/tiles.h).
  MatrixUnit matrix_unit = MatrixUnit::kVector;
};
std::unique_ptr<Backend> MakeCpuBackend(const CpuOptions& options);
bool CpuHasBf16Dot();
bool CpuHasAmx();

}  // namespace sessa
