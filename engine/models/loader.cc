#include "engine/models/loader.h"

#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sessa {
namespace {

// The rows of each head of a half-split tensor as even/odd pairs: new[2 i] = old[i], new[2 i + 1] = old[i + d
// / 2]. So the kernels know one kind of rope alone.
TensorView Interleaved(const TensorView& view, int head_dim) {
  const int64_t rows = view.shape[0],
                row_bytes = view.num_values() / rows * static_cast<int64_t>(SizeOf(view.dtype));
  std::shared_ptr<char[]> copy(new char[rows * row_bytes]);
  const char* from = static_cast<const char*>(view.data);
  for (int64_t head = 0; head < rows; head += head_dim) {
    for (int i = 0; i < head_dim; ++i) {
      const int64_t source = head + i / 2 + i % 2 * (head_dim / 2);
      std::memcpy(copy.get() + (head + i) * row_bytes, from + source * row_bytes, row_bytes);
    }
  }
  return {view.dtype, view.shape, copy.get(), copy};
}

}  // namespace

TensorView Loader::View(const std::string& name, const std::vector<int64_t>& shape) {
  if (!status_.ok()) return {};
  auto view = source_.Get(name);
  if (!view.ok()) {
    status_ = view.status();
    return {};
  }
  if (view->shape != shape) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(view->shape, ", "),
                     "], config.json asks for [", absl::StrJoin(shape, ", "), "]"));
    return {};
  }
  return *std::move(view);
}

LinearWeights Loader::Linear(const std::string& name, const Rows& rows) {
  const TensorView w = View(absl::StrCat(name, ".weight"), {rows.n, rows.k});
  const TensorView b = rows.has_bias ? View(absl::StrCat(name, ".bias"), {rows.n}) : TensorView{};
  if (!status_.ok()) return {};
  const auto part = [&](const TensorView& view) {
    const TensorView own = view.Rows(rows.begin, rows.end);
    return rows.head_dim > 0 && rows.begin < rows.end ? Interleaved(own, rows.head_dim) : own;
  };
  const TensorView bias = rows.has_bias ? part(b) : TensorView{};
  auto linear = backend_->MakeLinear(part(w), rows.has_bias ? &bias : nullptr, dtype_);
  if (absl::IsInvalidArgument(linear.status())) {
    linear =
        absl::InvalidArgumentError(absl::StrCat("tensor ", name, ".weight: ", linear.status().message()));
  }
  return Take(std::move(linear));
}

Buffer Loader::Vector(const std::string& name, const std::vector<int64_t>& shape, int begin, int end) {
  const TensorView v = View(name, shape);
  if (!status_.ok()) return {};
  return Take(backend_->MakeTable(end < 0 ? v : v.Rows(begin, end), DType::kF32));
}

Buffer Loader::HeadVector(const std::string& name, int head_dim) {
  const TensorView v = View(name, {head_dim});
  if (!status_.ok()) return {};
  return Take(backend_->MakeTable(Interleaved(v, head_dim), DType::kF32));
}

Buffer Loader::Table(const std::string& name, int64_t rows, int64_t columns, DType* dtype) {
  const TensorView v = View(name, {rows, columns});
  if (!status_.ok()) return {};
  *dtype = v.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  return Take(backend_->MakeTable(v, *dtype));
}

Buffer Loader::Floats(const std::vector<float>& values) {
  if (!status_.ok()) return {};
  return Take(
      backend_->MakeTable({DType::kF32, {static_cast<int64_t>(values.size())}, values.data()}, DType::kF32));
}

}  // namespace sessa
