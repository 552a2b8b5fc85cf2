// Reader of one safetensors file: 8 bytes of header length, a JSON header, then the tensors' bytes.
// Invariant: every StoredTensor handed out lies inside the file as it was when it was opened, and its byte
// count is that of its shape and dtype, whatever the file says. Errors name the file, the tensor and the
// field.
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

struct StoredTensor {
  FileDType dtype = FileDType::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // of its bytes in the file: row-major, little-endian
  size_t num_bytes = 0;
};

// Constant after opening, so thread-safe.
class SafetensorsFile {
 public:
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;

  // NOT_FOUND when there is no such file, another error when it cannot be read, INVALID_ARGUMENT when it is
  // malformed.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  // The same of a file of `file_bytes` bytes that begins with `head`, which holds the JSON; its tensors
  // cannot be read. `name` stands for the file in errors.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Parse(std::string name, absl::string_view head,
                                                                uint64_t file_bytes);

  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  // nullptr when there is none of that name.
  const StoredTensor* Find(absl::string_view name) const;
  // The bytes of a tensor of this file. OUT_OF_RANGE when the file has become too short, RESOURCE_EXHAUSTED
  // when there is no memory for them, the system's error when they cannot be read. Does not name the file.
  absl::StatusOr<std::shared_ptr<const char[]>> Read(const StoredTensor& tensor) const;

  const std::string& name() const { return name_; }
  const absl::flat_hash_map<std::string, StoredTensor>& tensors() const { return tensors_; }

 private:
  SafetensorsFile() = default;

  absl::flat_hash_map<std::string, StoredTensor> tensors_;
  std::string name_;
  int fd_ = -1;  // owned
};

}  // namespace sessa
