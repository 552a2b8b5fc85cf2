// Mamba-2's convolution and scan (kernels/scan.h), in two launches whatever the number of rows.
//
// ScanKernel: a thread block has 32 dimensions of a head of a sequence and goes through its rows in order, 16
// at a time: the convolution of what they need (x of the dimensions, B and C of the head's group) comes into
// shared memory, then each row updates the state, which stays in registers. Four lanes share a dimension,
// each with a quarter of the state's columns, so that a step reads and writes every state once: 8 bytes for
// 6 operations, while a prompt's rows cost 3 instructions a state and row. B and C are convolved anew by each
// block: a twentieth of the work at 128 columns, for which no launch has to come before. Grid: parts of the
// heads x sequences.
//
// KeepKernel: the last rows of xbc go to the slots, once nobody reads what they held. Grid: channels x
// sequences.
//
// A sum over taps is one chain; over the state's columns four, joined in pairs. Neither depends on where a
// chunk begins, so a row has the same bits in every cut and batch.
#include "kernels/cuda/device.cuh"

namespace sessa::cuda {
namespace {

constexpr int kLanes = 4;  // that share a dimension
constexpr int kScanThreads = 128, kDims = kScanThreads / kLanes, kRows = 16;

// kColumns: of the state, rounded up; zero beyond.
template <int kColumns>
struct ScanShared {
  alignas(16) float b[kRows][kColumns], c[kRows][kColumns];
  float x[kRows][kDims], decay[kRows], dt[kRows];
};

// Row `row` of xbc, counted from the span's first: those before it are in the slot, and zero before a
// sequence.
__device__ float RowBefore(const ScanArgs& args, const SlotSpan& span, int row, int channel) {
  if (row >= 0) return args.xbc.row(span.first_row + row)[channel];
  if (span.start == 0) return 0;
  return args.conv.slot(
      span.state_from)[static_cast<int64_t>(row + args.conv_kernel - 1) * args.xbc.cols + channel];
}
__device__ float Convolved(const ScanArgs& args, const SlotSpan& span, int row, int channel) {
  float sum = 0;
  for (int k = 0; k < args.conv_kernel; ++k) {
    sum = fmaf(args.conv_weight[static_cast<int64_t>(k) * args.xbc.cols + channel],
               RowBefore(args, span, row - args.conv_kernel + 1 + k, channel), sum);
  }
  return Silu(args.conv_bias != nullptr ? sum + args.conv_bias[channel] : sum);
}

template <int kColumns>
__global__ void __launch_bounds__(kScanThreads) ScanKernel(const ScanArgs args) {
  BeginKernel();
  auto& shared = *static_cast<ScanShared<kColumns>*>(DynamicShared());
  const SlotSpan span = args.spans[blockIdx.y];
  if (span.num_rows == 0) return;  // padding
  const int thread = threadIdx.x, P = args.head_dim, N = args.state_size;
  const int parts = CeilDiv(P, kDims), head = blockIdx.x / parts, first_dim = blockIdx.x % parts * kDims;
  const int own = thread / kLanes, dim = first_dim + own, lane = thread % kLanes;
  const int x_channel = head * P + first_dim, b_channel = args.num_heads * P + args.head_group[head] * N,
            c_channel = b_channel + args.num_groups * N;
  // A lane has every fourth group of four columns: the lanes of a dimension read 64 bytes in a row.
  constexpr int kGroups = kColumns / (4 * kLanes);
  const auto column_of = [&](int i) { return (i * kLanes + lane) * 4; };
  float s[kGroups][4] = {};
  const auto each_state = [&](int slot, const auto& body) {  // body(state in registers, in its slot)
    if (dim >= P) return;
    float* memory = args.ssm.slot(slot) + (static_cast<int64_t>(head) * P + dim) * N;
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (column_of(i) + j < N) body(s[i][j], memory[column_of(i) + j]);
      }
    }
  };
  const auto save = [&](int slot) {
    each_state(slot, [](const float& state, float& memory) { memory = state; });
  };
  if (span.start > 0) each_state(span.state_from, [](float& state, const float& memory) { state = memory; });
  const float a = -expf(args.a_log[head]), dt_bias = args.dt_bias[head], d = args.d[head];
  int next_snapshot = 0;
  for (int first = 0; first < span.num_rows; first += kRows) {
    const int n = min(kRows, span.num_rows - first);
    __syncthreads();  // the rows before are done with
    for (int i = thread; i < n * kColumns; i += kScanThreads) {
      const int t = i / kColumns, column = i % kColumns;
      const bool exists = column < N;
      shared.b[t][column] = exists ? Convolved(args, span, first + t, b_channel + column) : 0.0f;
      shared.c[t][column] = exists ? Convolved(args, span, first + t, c_channel + column) : 0.0f;
    }
    for (int i = thread; i < n * kDims; i += kScanThreads) {
      const int t = i / kDims, p = i % kDims;
      shared.x[t][p] = first_dim + p < P ? Convolved(args, span, first + t, x_channel + p) : 0.0f;
    }
    if (thread < n) {
      const float x = args.dt.row(span.first_row + first + thread)[head] + dt_bias;
      const float dt = x > 20 ? x : log1pf(expf(x));  // beyond 20 the same in float32
      shared.dt[thread] = dt;
      shared.decay[thread] = expf(a * dt);
    }
    __syncthreads();
    for (int t = 0; t < n; ++t) {
      const float decay = shared.decay[t], x = shared.x[t][own], scaled = x * shared.dt[t];
      float y = 0;
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        const float4 b = Load4(&shared.b[t][column_of(i)]), c = Load4(&shared.c[t][column_of(i)]);
        s[i][0] = fmaf(b.x, scaled, s[i][0] * decay);
        s[i][1] = fmaf(b.y, scaled, s[i][1] * decay);
        s[i][2] = fmaf(b.z, scaled, s[i][2] * decay);
        s[i][3] = fmaf(b.w, scaled, s[i][3] * decay);
        y = fmaf(c.w, s[i][3], fmaf(c.z, s[i][2], fmaf(c.y, s[i][1], fmaf(c.x, s[i][0], y))));
      }
      y += __shfl_xor_sync(0xffffffffu, y, 1);
      y += __shfl_xor_sync(0xffffffffu, y, 2);
      if (lane == 0 && dim < P) {
        const int row = span.first_row + first + t, column = head * P + dim;
        args.out.row(row)[column] = fmaf(d, x, y) * Silu(args.z.row(row)[column]);
      }
      for (; next_snapshot < span.num_snapshots && span.snapshots[next_snapshot].row == first + t;
           ++next_snapshot) {
        save(span.snapshots[next_snapshot].slot);
      }
    }
  }
  save(span.slot);
}

__global__ void __launch_bounds__(kThreads) KeepKernel(const ScanArgs args) {
  BeginKernel();
  const SlotSpan span = args.spans[blockIdx.y];
  const int channel = static_cast<int>(blockIdx.x * kThreads + threadIdx.x), kept = args.conv_kernel - 1;
  if (span.num_rows == 0 || channel >= args.xbc.cols) return;
  // In place too: what is read lies behind what was written.
  const auto keep = [&](int last, int slot) {
    for (int k = 0; k < kept; ++k) {
      args.conv.slot(slot)[static_cast<int64_t>(k) * args.xbc.cols + channel] =
          RowBefore(args, span, last - kept + 1 + k, channel);
    }
  };
  for (int i = 0; i < span.num_snapshots; ++i) keep(span.snapshots[i].row, span.snapshots[i].slot);
  keep(span.num_rows - 1, span.slot);
}

template <int kColumns>
void LaunchScan(cudaStream_t stream, const ScanArgs& args) {
  const dim3 grid(args.num_heads * CeilDiv(args.head_dim, kDims), args.num_spans);
  Launch(stream, grid, kScanThreads, sizeof(ScanShared<kColumns>), ScanKernel<kColumns>, args);
}

}  // namespace

void ScanRows(cudaStream_t stream, const ScanArgs& args) {
  if (args.num_spans == 0) return;
  if (args.num_heads > 0) {  // a rank may have none
    const auto scan = args.state_size <= 32    ? LaunchScan<32>
                      : args.state_size <= 64  ? LaunchScan<64>
                      : args.state_size <= 128 ? LaunchScan<128>
                                               : LaunchScan<kMaxScanStates>;
    scan(stream, args);
  }
  if (args.conv_kernel > 1)
    Launch(stream, dim3(CeilDiv(args.xbc.cols, kThreads), args.num_spans), kThreads, 0, KeepKernel, args);
}

}  // namespace sessa::cuda
