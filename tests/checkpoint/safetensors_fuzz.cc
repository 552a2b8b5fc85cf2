#include <cstdint>
#include <cstdlib>

#include "server/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto file = sessa::SafetensorsFile::Parse("fuzz", bytes, size);
  if (!file.ok()) return 0;
  for (const auto& [name, view] : (*file)->tensors()) {
    if (view.offset > size || view.num_bytes > size - view.offset) std::abort();
  }
  return 0;
}
