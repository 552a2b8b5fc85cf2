// Rows into pages and, for tests, back. Grid of the way back: a block for each token.
#include "kernels/cuda/device.cuh"

namespace sessa::cuda {
namespace {

// The element offset of token `slot` of head `head` in page `page` (counted from the first page that is
// here).
__device__ int64_t Offset(const PagedVectors& v, int64_t page, int head, int slot) {
  return ((page * v.num_heads + head) * v.page_size + slot) * Padded(v.dim);
}

// Where the vectors of a batch row go: the page, from the first that is here, and its slot.
struct Place {
  __device__ Place(const PagedVectors& to, const Span* spans, const int32_t* row_span, int row) {
    const Span span = spans[row_span[row]];
    const int position = span.start + row - span.first_row;
    page = span.pages[position / to.page_size];
    slot = position % to.page_size;
  }
  int page, slot;
};

__device__ void StoreAt(const PagedVectors& to, const Place& place, int column, float x) {
  const int page = place.page - to.first_page;
  if (page < 0 || page >= to.num_pages) return;
  const int64_t at = Offset(to, page, column / to.dim, place.slot) + column % to.dim;
  if (to.dtype == DType::kF32) {
    static_cast<float*>(to.data)[at] = x;
  } else {
    static_cast<Bf16*>(to.data)[at] = RoundToBf16(x);
  }
}

// A pair of neighbours, turned by the row's angle of that pair.
__device__ float2 Rotated(const AppendArgs& args, int row, int pair, float a, float b) {
  const int64_t i = static_cast<int64_t>(row) * args.half + pair % args.half;
  const float c = args.cos[i], s = args.sin[i];
  return {fmaf(a, c, -(b * s)), fmaf(a, s, b * c)};
}

// Grid: rows x (gamma, then the row's pairs of columns: of q, k, v and k_b one after another).
__global__ void __launch_bounds__(kThreads) AppendRowsKernel(const int32_t* live, const AppendArgs args) {
  BeginKernel();
  const int row = blockIdx.x;
  if (row >= LiveRows(live, gridDim.x)) return;
  if (blockIdx.y == 0) {
    if (args.u.cols == 0) return;
    const float* u = args.u.row(row);
    float dot = 0;
    for (int i = threadIdx.x; i < args.u.cols; i += kThreads) dot = fmaf(u[i], args.gamma_ctx[i], dot);
    dot = BlockSum(dot);
    if (threadIdx.x == 0) args.gamma[row] = args.gamma_max * tanhf(*args.gamma_bias + dot);
    return;
  }
  int column = 2 * static_cast<int>((blockIdx.y - 1) * kThreads + threadIdx.x);
  // What x holds in the thread's columns, rotated in place if it has angles.
  const auto pair = [&](const Matrix& x, bool rotates) -> float2 {
    float* p = x.row(row) + column;
    const float a = p[0], b = column + 1 < x.cols ? p[1] : 0.0f;
    if (!rotates || args.half == 0) return {a, b};
    const float2 y = Rotated(args, row, column / 2, a, b);
    p[0] = y.x, p[1] = y.y;
    return y;
  };
  const auto store = [&](const Matrix& x, bool rotates, const PagedVectors& to) {
    const Place place(to, args.spans, args.row_span, row);
    const float2 y = pair(x, rotates);
    StoreAt(to, place, column, y.x);
    if (column + 1 < x.cols) StoreAt(to, place, column + 1, y.y);
  };
  // Whether the columns are of x; else goes on to those of the next matrix.
  const auto is_of = [&](const Matrix& x) {
    if (column < x.cols) return true;
    column -= RoundUp(x.cols, 2);
    return false;
  };
  if (is_of(args.q)) {
    pair(args.q, true);
  } else if (is_of(args.k)) {
    store(args.k, true, args.keys);
  } else if (is_of(args.v)) {
    store(args.v, false, args.values);
  } else if (is_of(args.k_b)) {
    store(args.k_b, false, args.feedback_keys);
  }
}

// q, k and v where q and k have norms: a warp a head. Grid: rows x parts of the heads of q, k and v.
__global__ void __launch_bounds__(kThreads) AppendHeadsKernel(const int32_t* live, const AppendArgs args) {
  BeginKernel();
  const int row = blockIdx.x, lane = threadIdx.x % kWarpLanes, dim = args.keys.dim;
  int head = static_cast<int>(blockIdx.y * (kThreads / kWarpLanes) + threadIdx.x / kWarpLanes);
  if (row >= LiveRows(live, gridDim.x)) return;
  const int num_q = args.q.cols / dim, num_kv = args.k.cols / dim;
  if (head >= num_q + num_kv) {
    head -= num_q + num_kv;
    if (head >= num_kv) return;
    const Place place(args.values, args.spans, args.row_span, row);
    for (int i = lane; i < dim; i += kWarpLanes)
      StoreAt(args.values, place, head * dim + i, args.v.row(row)[head * dim + i]);
    return;
  }
  const bool is_q = head < num_q;
  if (!is_q) head -= num_q;
  float* x = (is_q ? args.q : args.k).row(row) + head * dim;
  const float* weight = is_q ? args.q_norm : args.k_norm;
  float squares = 0;
  for (int i = lane; i < dim; i += kWarpLanes) squares = fmaf(x[i], x[i], squares);
  const float scale = 1.0f / sqrtf(WarpSum(squares) / dim + args.norm_eps);
  const Place place(args.keys, args.spans, args.row_span, row);
  for (int i = 2 * lane; i < dim; i += 2 * kWarpLanes) {
    const bool has_two = i + 1 < dim;
    float2 y = {x[i] * scale * weight[i], has_two ? x[i + 1] * scale * weight[i + 1] : 0.0f};
    if (args.half > 0) y = Rotated(args, row, i / 2, y.x, y.y);
    x[i] = y.x;
    if (has_two) x[i + 1] = y.y;
    if (is_q) continue;
    StoreAt(args.keys, place, head * dim + i, y.x);
    if (has_two) StoreAt(args.keys, place, head * dim + i + 1, y.y);
  }
}

// Grid: a block for each row.
__global__ void __launch_bounds__(kThreads)
    AppendKernel(const int32_t* live, Matrix x, const int32_t* rows, const Span* spans,
                 const int32_t* row_span, PagedVectors to) {
  BeginKernel();
  if (static_cast<int>(blockIdx.x) >= LiveRows(live, gridDim.x)) return;
  const int row = rows[blockIdx.x];
  const Place place(to, spans, row_span, row);
  for (int i = threadIdx.x; i < x.cols; i += kThreads) StoreAt(to, place, i, x.row(row)[i]);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    ReadBackKernel(PagedVectors from, const int32_t* pages, int columns, float* y) {
  BeginKernel();
  const int position = blockIdx.x, page = pages[position / from.page_size] - from.first_page;
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    y[static_cast<int64_t>(position) * columns + i] = ToFloat(static_cast<const T*>(
        from.data)[Offset(from, page, i / from.dim, position % from.page_size) + i % from.dim]);
  }
}

}  // namespace

void AppendRows(RowLaunch on, const AppendArgs& given) {
  AppendArgs args = given;
  if (args.rows == 0) return;
  if (args.q_norm != nullptr && args.q.cols + args.k.cols > 0) {
    const int heads = (args.q.cols + 2 * args.k.cols) / args.keys.dim;
    Launch(on.stream, dim3(args.rows, CeilDiv(heads, kThreads / kWarpLanes)), kThreads, 0, AppendHeadsKernel,
           on.live, args);
    args.q.cols = args.k.cols = args.v.cols = 0;
  }
  int pairs = 0;
  for (const Matrix& x : {args.q, args.k, args.v, args.k_b}) pairs += (x.cols + 1) / 2;
  if (pairs == 0 && args.u.cols == 0) return;
  Launch(on.stream, dim3(args.rows, 1 + CeilDiv(pairs, kThreads)), kThreads, 0, AppendRowsKernel, on.live,
         args);
}

void Append(RowLaunch on, Matrix x, const int32_t* rows, int num_rows, const Span* spans,
            const int32_t* row_span, PagedVectors to) {
  if (num_rows == 0) return;
  Launch(on.stream, dim3(num_rows), kThreads, 0, AppendKernel, on.live, x, rows, spans, row_span, to);
}

void ReadBack(cudaStream_t stream, PagedVectors from, const int32_t* pages, int n, float* y) {
  if (n == 0) return;
  const auto kernel = from.dtype == DType::kF32 ? ReadBackKernel<float> : ReadBackKernel<Bf16>;
  Launch(stream, dim3(n), kThreads, 0, kernel, from, pages, from.num_heads * from.dim, y);
}

}  // namespace sessa::cuda
