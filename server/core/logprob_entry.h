// From the engine's log-probabilities of a token to what clients see.
#pragma once

#include <cstdint>

#include "engine/request.h"
#include "server/core/generation.h"

namespace sessa {

class Tokenizer;

// `tokenizer` null: token ids alone. `logprobs` null: the first token of a prompt has none. Of its rivals the
// best `max_top` are kept.
LogprobEntry MakeLogprobEntry(const Tokenizer* tokenizer, int32_t id, const TokenLogprobs* logprobs,
                              int64_t max_top, int64_t text_offset);

}  // namespace sessa
