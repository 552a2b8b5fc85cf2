// What GET /tokenizer_info says: the checkpoint's tokenizer_config.json, as vLLM serves it.
#pragma once

#include <string>

namespace sessa {

// JSON of an object: the file's members, tokenizer_class in any case, and as chat template that of
// `chat_template_file` (--chat_template; empty: none is given) or chat_template.jinja where there is one.
// What cannot be read is left out: loading has judged these files.
std::string TokenizerInfo(const std::string& model_dir, const std::string& chat_template_file);

}  // namespace sessa
