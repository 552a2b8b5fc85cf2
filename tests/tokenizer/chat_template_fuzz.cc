#include <cstdint>
#include <string_view>

#include "server/tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto chat =
      sessa::ChatTemplate::FromSource({reinterpret_cast<const char*>(data), size}, "<s>", "</s>");
  if (chat.ok()) (void)(*chat)->Render({{"user", "Hi"}, {"assistant", "Yo"}}, true);
  return 0;
}
