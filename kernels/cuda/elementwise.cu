// Operations of rows and elements. Each reads and writes its operands once; one thread takes an element or,
// where a row has to be summed, a block takes a row. Grid: rows x columns, or rows (only the first dimension
// goes beyond 65535).
#include "kernels/cuda/device.cuh"

namespace sessa::cuda {
namespace {

// The element that a thread of an elementwise kernel works on, of `columns` in each live row.
struct Element {
  __device__ Element(const int32_t* live, int columns)
      : row(static_cast<int>(blockIdx.x)),
        column(static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x)),
        exists(row < LiveRows(live, gridDim.x) && column < columns) {}
  int row, column;
  bool exists;
};

template <class... P, class... A>
void LaunchElements(RowLaunch on, int rows, int columns, void (*kernel)(P...), const A&... args) {
  if (rows == 0 || columns == 0) return;
  Launch(on.stream, dim3(rows, CeilDiv(columns, kThreads)), kThreads, 0, kernel, on.live, args...);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    EmbedKernel(const int32_t* live, const int32_t* ids, const int32_t* sampled, const T* table, Matrix x) {
  BeginKernel();
  const Element e(live, x.cols);
  if (!e.exists) return;
  int64_t id = ids[e.row];
  if (id < 0) id = max(0, sampled[-1 - id]);
  x.row(e.row)[e.column] = ToFloat(table[id * x.cols + e.column]);
}

__global__ void __launch_bounds__(kThreads)
    FinishRowsKernel(const int32_t* live, Matrix x, Epilogue epilogue, Matrix y) {
  BeginKernel();
  const Element e(live, x.cols);
  if (e.exists) Finish(epilogue, x.row(e.row)[e.column], y.row(e.row) + e.column);
}

__global__ void __launch_bounds__(kThreads)
    GateRowsKernel(const int32_t* live, Matrix gate, Matrix up, Matrix y) {
  BeginKernel();
  const Element e(live, y.cols);
  if (e.exists) y.row(e.row)[e.column] = Silu(gate.row(e.row)[e.column]) * up.row(e.row)[e.column];
}

// y[i] = x[rows[i]].
__global__ void __launch_bounds__(kThreads)
    GatherRowsKernel(const int32_t* live, Matrix x, const int32_t* rows, Matrix y) {
  BeginKernel();
  const Element e(live, y.cols);
  if (e.exists) y.row(e.row)[e.column] = x.row(rows[e.row])[e.column];
}

__global__ void __launch_bounds__(kThreads)
    RopeAnglesKernel(const int32_t* live, const int32_t* positions, const float* inv_freq, float scale,
                     int half, float* cos_out, float* sin_out) {
  BeginKernel();
  const Element e(live, half);
  if (!e.exists) return;
  // The angle is rounded to float32, as published; its cosine is then taken exactly.
  const double angle = static_cast<float>(positions[e.row]) * inv_freq[e.column];
  cos_out[static_cast<int64_t>(e.row) * half + e.column] = static_cast<float>(cos(angle)) * scale;
  sin_out[static_cast<int64_t>(e.row) * half + e.column] = static_cast<float>(sin(angle)) * scale;
}

template <class T>
__global__ void __launch_bounds__(kThreads) PackRowsKernel(const int32_t* live, Matrix x, T* y, int stride) {
  BeginKernel();
  const Element e(live, x.cols);
  if (e.column < stride)
    Store(e.exists ? x.row(e.row)[e.column] : 0.0f, y + static_cast<int64_t>(e.row) * stride + e.column);
}

// A block a row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    NormKernel(const int32_t* live, Matrix x, RowNorm norm, T* y, int stride) {
  BeginKernel();
  const int row = blockIdx.x;
  T* out = y + static_cast<int64_t>(row) * stride;
  const bool is_live = row < LiveRows(live, gridDim.x);
  for (int i = threadIdx.x + (is_live ? x.cols : 0); i < stride; i += kThreads) Store(0.0f, out + i);
  if (!is_live) return;
  const int size = x.cols / norm.groups;
  for (int first = 0; first < x.cols; first += size) {
    const float* in = x.row(row) + first;
    float mean = 0, squares = 0;
    if (norm.bias != nullptr) {
      float sum = 0;
      for (int i = threadIdx.x; i < size; i += kThreads) sum += in[i];
      mean = BlockSum(sum) / size;
    }
    for (int i = threadIdx.x; i < size; i += kThreads) squares = fmaf(in[i] - mean, in[i] - mean, squares);
    const float scale = 1.0f / sqrtf(BlockSum(squares) / size + norm.eps);
    for (int i = threadIdx.x; i < size; i += kThreads) {
      const float bias = norm.bias != nullptr ? norm.bias[first + i] : 0.0f;
      Store(fmaf((in[i] - mean) * scale, norm.weight[first + i], bias), out + first + i);
    }
  }
}

// run<float>() or run<Bf16>().
template <class Run>
void ByType(DType dtype, const Run& run) {
  dtype == DType::kF32 ? run.template operator()<float>() : run.template operator()<Bf16>();
}

}  // namespace

void Embed(RowLaunch on, const int32_t* ids, const int32_t* sampled, const void* table, DType dtype,
           Matrix x) {
  ByType(dtype, [&]<class T>() {
    LaunchElements(on, x.rows, x.cols, EmbedKernel<T>, ids, sampled, static_cast<const T*>(table), x);
  });
}
void GatherRows(RowLaunch on, Matrix x, const int32_t* rows, Matrix y) {
  LaunchElements(on, y.rows, y.cols, GatherRowsKernel, x, rows, y);
}
void RopeAngles(RowLaunch on, const int32_t* positions, const float* inv_freq, float scale, int num_rows,
                int half, float* cos, float* sin) {
  LaunchElements(on, num_rows, half, RopeAnglesKernel, positions, inv_freq, scale, half, cos, sin);
}
void FinishRows(RowLaunch on, Matrix x, Epilogue epilogue, Matrix y) {
  LaunchElements(on, x.rows, x.cols, FinishRowsKernel, x, epilogue, y);
}
void GateRows(RowLaunch on, Matrix gate, Matrix up, Matrix y) {
  LaunchElements(on, y.rows, y.cols, GateRowsKernel, gate, up, y);
}
void PackRows(RowLaunch on, Matrix x, DType dtype, void* y, int stride) {
  ByType(dtype, [&]<class T>() {
    LaunchElements(on, x.rows, stride, PackRowsKernel<T>, x, static_cast<T*>(y), stride);
  });
}
void NormRows(RowLaunch on, Matrix x, RowNorm norm, DType dtype, void* y, int stride) {
  if (x.rows == 0) return;
  ByType(dtype, [&]<class T>() {
    Launch(on.stream, dim3(x.rows), kThreads, 0, NormKernel<T>, on.live, x, norm, static_cast<T*>(y), stride);
  });
}

}  // namespace sessa::cuda
