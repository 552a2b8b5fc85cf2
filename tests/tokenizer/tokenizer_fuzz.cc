// Input: a text, and after a zero byte a tokenizer.json. The text also goes through the demo's tokenizer.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/tokenizer/detokenizer.h"
#include "server/tokenizer/tokenizer.h"

namespace {

void Check(const sessa::Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.Encode(text, true);
  if (!ids.ok()) return;
  for (bool skip : {false, true}) {
    sessa::Detokenizer detokenizer(&tokenizer, skip);
    std::string streamed;
    for (int32_t id : *ids) streamed += detokenizer.Push(id);
    streamed += detokenizer.Flush();
    if (streamed != *tokenizer.Decode(*ids, skip)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* demo = new auto(sessa::Tokenizer::Load(SESSA_DEMO_MODEL));
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view text = input.substr(0, input.find('\0'));
  Check(***demo, text);
  if (text.size() < input.size()) {
    const auto tokenizer = sessa::Tokenizer::FromJson(input.substr(text.size() + 1), "");
    if (tokenizer.ok()) Check(**tokenizer, text);
  }
  return 0;
}
