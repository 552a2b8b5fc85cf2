// Within server/checkpoint: how each family's config.json is read. The published ones have, for a key that is
// left out, what the transformers package (5.24) takes for their model_type
// (tests/checkpoint/transformers_test.py compares them), and refuse what it would compute otherwise: rotary
// angles that depend on a text's length, limits on Mamba's steps, quantised weights. A key's wrong type is an
// error of `json`; ranges are ModelConfig::Validate's.
#pragma once

#include "engine/config.h"
#include "server/file/json_fields.h"

namespace sessa {

void ReadSessaConfig(JsonFields* json, ModelConfig* config);
void ReadLlamaConfig(JsonFields* json, ModelConfig* config);  // mistral, qwen2 and qwen3 too
void ReadMamba2Config(JsonFields* json, ModelConfig* config);

// For more than one of them.
// rope_theta and rope_scaling, as transformers 4 writes them, or rope_parameters, as 5 does.
void ReadRope(JsonFields* json, ModelConfig* config);
// The sizes and biases that Mamba-2 mixers of all families have; what is absent leaves `mixer` as it is.
void ReadMamba2Mixer(JsonFields* json, Mamba2Mixer* mixer);
// Refuses quantised checkpoints, encoders, classifiers and what else has this family's model_type and yet is
// none of its decoders.
void RefuseOtherModels(JsonFields* json);
// One token id, several, or null for none.
void ReadEndTokens(JsonFields* json, std::vector<int32_t> fallback, ModelConfig* config);
void RequireSilu(JsonFields* json);

}  // namespace sessa
