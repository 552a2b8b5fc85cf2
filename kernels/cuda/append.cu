// Rows into pages and, for tests, back. A warp takes a group of a head's columns (kStateGroup), two a lane:
// what shares an exponent where state is int8. Grid of the way back: a block for each token.
#include "kernels/cuda/state.cuh"

namespace sessa::cuda {
namespace {

static_assert(kStateGroup == 2 * kWarpLanes);
constexpr int kWarps = kThreads / kWarpLanes;

// Where the vectors of a batch row go: the page, and its slot.
struct Place {
  __device__ Place(const PagedVectors& to, const Span* spans, const int32_t* row_span, int row) {
    const Span span = spans[row_span[row]];
    const int position = span.start + row - span.first_row;
    page = span.pages[position / to.page_size];
    slot = position % to.page_size;
  }
  int page, slot;
};

// All lanes of a warp call it, of one group; this one has the columns `column` and, if there is one, the next
// (else a zero).
__device__ void StoreGroup(const PagedVectors& to, const Place& place, int head, int column, float2 y) {
  if (place.page < to.first_page || place.page >= to.first_page + to.num_pages) return;
  const bool exists = column < to.dim;
  if (to.dtype == DType::kI8) {
    const unsigned largest = WarpLargest(exists ? max(MagnitudeBits(y.x), MagnitudeBits(y.y)) : 0u);
    const int exponent = ExponentOf(largest);
    if (!exists) return;
    Int8* vector = VectorInPage<Int8>(to, place.page, head, place.slot);
    vector[column] = Quantize(y.x, exponent), vector[column + 1] = Quantize(y.y, exponent);
    if (column % kStateGroup == 0) vector[ToExponent(to, place.slot, column)] = static_cast<Int8>(exponent);
  } else if (!exists) {
    return;
  } else if (to.dtype == DType::kF32) {
    float* vector = VectorInPage<float>(to, place.page, head, place.slot);
    *reinterpret_cast<float2*>(vector + column) = y;
  } else {
    Bf16* vector = VectorInPage<Bf16>(to, place.page, head, place.slot);
    vector[column] = RoundToBf16(y.x), vector[column + 1] = RoundToBf16(y.y);
  }
}

// A pair of neighbours of a head, turned by the row's angle of that pair.
__device__ float2 Rotated(const AppendArgs& args, int row, int pair, float2 x) {
  const int64_t i = static_cast<int64_t>(row) * args.half + pair;
  const float c = args.cos[i], s = args.sin[i];
  return {fmaf(x.x, c, -(x.y * s)), fmaf(x.x, s, x.y * c)};
}
__device__ __forceinline__ float2 LoadPair(const float* x, int column, int dim) {
  return {column < dim ? x[column] : 0.0f, column + 1 < dim ? x[column + 1] : 0.0f};
}
__device__ __forceinline__ void StorePair(float2 y, int column, int dim, float* x) {
  if (column < dim) x[column] = y.x;
  if (column + 1 < dim) x[column + 1] = y.y;
}

// Groups of a matrix of heads.
__host__ __device__ constexpr int NumGroups(int columns, int dim) {
  return columns == 0 ? 0 : columns / dim * StateGroups(dim);
}

// Grid: rows x (gamma, then the row's groups, a warp each: of q, k, v and k_b one after another).
__global__ void __launch_bounds__(kThreads) AppendRowsKernel(const int32_t* live, const AppendArgs args) {
  BeginKernel();
  const int row = blockIdx.x, lane = threadIdx.x % kWarpLanes;
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
  int group = static_cast<int>((blockIdx.y - 1) * kWarps + threadIdx.x / kWarpLanes);
  // Whether the group is of x; else goes on to those of the next matrix.
  const auto is_of = [&](const Matrix& x, int dim) {
    const int count = NumGroups(x.cols, dim);
    if (group < count) return true;
    group -= count;
    return false;
  };
  const auto handle = [&](const Matrix& x, bool rotates, const PagedVectors& like, bool stores) {
    const int groups = StateGroups(like.dim), head = group / groups,
              column = group % groups * kStateGroup + 2 * lane;
    float* of_head = x.row(row) + head * like.dim;
    float2 y = LoadPair(of_head, column, like.dim);
    if (rotates && args.half > 0 && column < like.dim) {  // in place
      y = Rotated(args, row, column / 2, y);
      StorePair(y, column, like.dim, of_head);
    }
    if (stores) StoreGroup(like, Place(like, args.spans, args.row_span, row), head, column, y);
  };
  if (is_of(args.q, args.keys.dim)) {
    handle(args.q, true, args.keys, false);
  } else if (is_of(args.k, args.keys.dim)) {
    handle(args.k, true, args.keys, true);
  } else if (is_of(args.v, args.values.dim)) {
    handle(args.v, false, args.values, true);
  } else if (is_of(args.k_b, args.feedback_keys.dim)) {
    handle(args.k_b, false, args.feedback_keys, true);
  }
}

// q, k and v where q and k have norms: a warp a head. Grid: rows x parts of the heads of q, k and v.
__global__ void __launch_bounds__(kThreads) AppendHeadsKernel(const int32_t* live, const AppendArgs args) {
  BeginKernel();
  const int row = blockIdx.x, lane = threadIdx.x % kWarpLanes, dim = args.keys.dim;
  int head = static_cast<int>(blockIdx.y * kWarps + threadIdx.x / kWarpLanes);
  if (row >= LiveRows(live, gridDim.x)) return;
  const int num_q = args.q.cols / dim, num_kv = args.k.cols / dim;
  if (head >= num_q + num_kv) {
    head -= num_q + num_kv;
    if (head >= num_kv) return;
    const Place place(args.values, args.spans, args.row_span, row);
    const float* v = args.v.row(row) + head * dim;
    for (int first = 0; first < dim; first += kStateGroup)
      StoreGroup(args.values, place, head, first + 2 * lane, LoadPair(v, first + 2 * lane, dim));
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
  for (int first = 0; first < dim; first += kStateGroup) {
    const int column = first + 2 * lane;
    const float2 from = LoadPair(x, column, dim), by = LoadPair(weight, column, dim);
    float2 y = {from.x * scale * by.x, from.y * scale * by.y};
    if (args.half > 0 && column < dim) y = Rotated(args, row, column / 2, y);
    StorePair(y, column, dim, x);
    if (!is_q) StoreGroup(args.keys, place, head, column, y);
  }
}

// Grid: a block for each row.
__global__ void __launch_bounds__(kThreads)
    AppendKernel(const int32_t* live, Matrix x, const int32_t* rows, const Span* spans,
                 const int32_t* row_span, PagedVectors to) {
  BeginKernel();
  if (static_cast<int>(blockIdx.x) >= LiveRows(live, gridDim.x)) return;
  const int row = rows[blockIdx.x], groups = StateGroups(to.dim);
  const Place place(to, spans, row_span, row);
  for (int group = threadIdx.x / kWarpLanes; group < NumGroups(x.cols, to.dim); group += kWarps) {
    const int head = group / groups, column = group % groups * kStateGroup + 2 * (threadIdx.x % kWarpLanes);
    StoreGroup(to, place, head, column, LoadPair(x.row(row) + head * to.dim, column, to.dim));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    ReadBackKernel(PagedVectors from, const int32_t* pages, int columns, float* y) {
  BeginKernel();
  const int position = blockIdx.x;
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    const int column = i % from.dim;
    const T* vector = VectorAt<T>(from, pages, i / from.dim, position);
    float x = ToFloat(vector[column]);
    if constexpr (kIsInt8<T>) x *= ScaleOf(vector[ToExponent(from, position, column)]);
    y[static_cast<int64_t>(position) * columns + i] = x;
  }
}

}  // namespace

void AppendRows(RowLaunch on, const AppendArgs& given) {
  AppendArgs args = given;
  if (args.rows == 0) return;
  if (args.q_norm != nullptr && args.q.cols + args.k.cols > 0) {
    const int heads = (args.q.cols + 2 * args.k.cols) / args.keys.dim;
    Launch(on.stream, dim3(args.rows, CeilDiv(heads, kWarps)), kThreads, 0, AppendHeadsKernel, on.live, args);
    args.q.cols = args.k.cols = args.v.cols = 0;
  }
  const int groups = NumGroups(args.q.cols, args.keys.dim) + NumGroups(args.k.cols, args.keys.dim) +
                     NumGroups(args.v.cols, args.values.dim) +
                     NumGroups(args.k_b.cols, args.feedback_keys.dim);
  if (groups == 0 && args.u.cols == 0) return;
  Launch(on.stream, dim3(args.rows, 1 + CeilDiv(groups, kWarps)), kThreads, 0, AppendRowsKernel, on.live,
         args);
}

void Append(RowLaunch on, Matrix x, const int32_t* rows, int num_rows, const Span* spans,
            const int32_t* row_span, PagedVectors to) {
  if (num_rows == 0) return;
  Launch(on.stream, dim3(num_rows), kThreads, 0, AppendKernel, on.live, x, rows, spans, row_span, to);
}

void ReadBack(cudaStream_t stream, PagedVectors from, const int32_t* pages, int n, float* y) {
  if (n == 0) return;
  const auto kernel = from.dtype == DType::kF32  ? ReadBackKernel<float>
                      : from.dtype == DType::kI8 ? ReadBackKernel<Int8>
                                                 : ReadBackKernel<Bf16>;
  Launch(stream, dim3(n), kThreads, 0, kernel, from, pages, from.num_heads * from.dim, y);
}

}  // namespace sessa::cuda
