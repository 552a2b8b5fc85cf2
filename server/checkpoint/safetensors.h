// Reader of one safetensors file: 8 bytes of header length, a JSON header, then the tensors' bytes.
// Invariant: every TensorView handed out lies inside the mapped file and its byte count is that of its shape
// and dtype, whatever the file says. Errors name the file, the tensor and the field.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sessa {

enum class FileDType : uint8_t { kF32, kF16, kBF16, kI64 };

struct TensorView {
  FileDType dtype = FileDType::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;  // row-major, little-endian, maybe unaligned; lives as long as the file
  size_t num_bytes = 0;
};

// Constant after opening, so thread-safe.
class SafetensorsFile {
 public:
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;

  // Maps the file; it must not shrink while it is open. NOT_FOUND or FAILED_PRECONDITION when it cannot be
  // read, INVALID_ARGUMENT when it is malformed.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  // The same over bytes that the caller keeps alive; `name` stands for the file in errors.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Parse(std::string name, absl::string_view bytes);

  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  // nullptr when there is none of that name.
  const TensorView* Find(absl::string_view name) const;
  const absl::flat_hash_map<std::string, TensorView>& tensors() const { return tensors_; }

 private:
  SafetensorsFile() = default;

  absl::flat_hash_map<std::string, TensorView> tensors_;
  void* mapping_ = nullptr;  // owned when not null
  size_t mapping_bytes_ = 0;
};

}  // namespace sessa
