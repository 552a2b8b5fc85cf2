// Input: a template, and after a zero byte what the user says. Checks that whatever the template does stays
// within its budget (a small one, so that many inputs are tried): no crash, no hang, errors that are short,
// and every byte given back.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/jinja/evaluator.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sessa::jinja::Value;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view source = input.substr(0, input.find('\0'));
  const std::string_view said = source.size() < size ? input.substr(source.size() + 1) : "Hi";
  const auto parsed = sessa::jinja::Parse(source);
  if (!parsed.ok()) return 0;
  sessa::jinja::RenderLimits limits;
  limits.max_steps = 20000;
  limits.max_bytes = 1 << 20;
  sessa::jinja::Budget budget(limits);
  {
    sessa::jinja::DictBuilder message(&budget);
    message.Add("role", budget.Text("user"));
    message.Add("content", budget.Text(said));
    const Value user = message.Finish();
    const auto text = sessa::jinja::Render(**parsed,
                                           {{"messages", budget.MakeList({user, user})},
                                            {"add_generation_prompt", Value(true)},
                                            {"bos_token", budget.Text("<s>")},
                                            {"eos_token", budget.Text("</s>")}},
                                           &budget);
    if (!text.ok() && text.status().message().size() > 600) std::abort();
    if (text.ok() && text->size() > static_cast<size_t>(limits.max_bytes)) std::abort();
  }
  if (budget.num_bytes() != 0) std::abort();
  return 0;
}
