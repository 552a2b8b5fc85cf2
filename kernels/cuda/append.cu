// Rows into pages and, for tests, back. Grid: a block of threads for each row.
#include "kernels/cuda/device.cuh"

namespace sessa::cuda {
namespace {

// The element offset of token `slot` of head `head` in page `page` (counted from the first page that is
// here).
__device__ int64_t Offset(const PagedVectors& v, int64_t page, int head, int slot) {
  return ((page * v.num_heads + head) * v.page_size + slot) * Padded(v.dim);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    AppendKernel(const int32_t* live, Matrix x, const int32_t* rows, const Span* spans,
                 const int32_t* row_span, PagedVectors to) {
  BeginKernel();
  if (static_cast<int>(blockIdx.x) >= LiveRows(live, gridDim.x)) return;
  const int row = rows != nullptr ? rows[blockIdx.x] : static_cast<int>(blockIdx.x);
  const Span span = spans[row_span[row]];
  const int position = span.start + row - span.first_row,
            page = span.pages[position / to.page_size] - to.first_page;
  if (page < 0 || page >= to.num_pages) return;
  for (int i = threadIdx.x; i < x.cols; i += kThreads) {
    Store(x.row(row)[i],
          static_cast<T*>(to.data) + Offset(to, page, i / to.dim, position % to.page_size) + i % to.dim);
  }
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

void Append(RowLaunch on, Matrix x, const int32_t* rows, int num_rows, const Span* spans,
            const int32_t* row_span, PagedVectors to) {
  if (num_rows == 0) return;
  const auto kernel = to.dtype == DType::kF32 ? AppendKernel<float> : AppendKernel<Bf16>;
  Launch(on.stream, dim3(num_rows), kThreads, 0, kernel, on.live, x, rows, spans, row_span, to);
}

void ReadBack(cudaStream_t stream, PagedVectors from, const int32_t* pages, int n, float* y) {
  if (n == 0) return;
  const auto kernel = from.dtype == DType::kF32 ? ReadBackKernel<float> : ReadBackKernel<Bf16>;
  Launch(stream, dim3(n), kThreads, 0, kernel, from, pages, from.num_heads * from.dim, y);
}

}  // namespace sessa::cuda
