// Input: a template, and after a zero byte what the user says. Checks that whatever the template does stays
// within its budget: no crash, no hang, errors that are short, and every byte given back (an assertion of the
// budget's tests; here AddressSanitizer's leaks).
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view source = input.substr(0, input.find('\0'));
  const std::string_view said = source.size() < size ? input.substr(source.size() + 1) : "Hi";
  const auto chat = sessa::ChatTemplate::FromSource(source, "<s>", "</s>");
  if (!chat.ok()) return 0;
  const auto text =
      (*chat)->Render({{"user", std::string(said)}, {"assistant", "Yo"}, {"user", "And?"}}, true);
  if (!text.ok() && text.status().message().size() > 600) std::abort();
  return 0;
}
