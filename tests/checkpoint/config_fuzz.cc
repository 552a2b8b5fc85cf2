#include <cstdint>
#include <cstdlib>

#include "server/checkpoint/config_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = sessa::ParseConfigJson({reinterpret_cast<const char*>(data), size});
  if (config.ok() && !config->Validate().ok()) std::abort();
  return 0;
}
