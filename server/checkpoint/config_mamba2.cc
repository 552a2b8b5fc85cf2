// mamba2 of transformers. Keys of its initialisation (time_step_min, time_step_rank,
// rescale_prenorm_residual), its chunk_size and norm_before_gate, which stands in published files and which
// it does not read, change nothing.
#include <string>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/config_families.h"

namespace sessa {
namespace {

// A sequence may be as long as anything else allows: Mamba has no positions.
constexpr int kMaxPositions = 1 << 20;

// dt is not clamped: softplus is above 0, so that only an upper limit would matter.
void RequireNoTimeStepLimit(JsonFields* json) {
  const boost::json::value* v = json->Find("time_step_limit");
  if (v == nullptr) return;
  const boost::json::array* limits = v->if_array();
  if (limits != nullptr && limits->size() == 2 && (*limits)[0].is_number() &&
      (*limits)[0].to_number<double>() <= 0) {
    const boost::json::object* upper = (*limits)[1].if_object();
    const boost::json::value* tag = upper == nullptr ? nullptr : upper->if_contains("__float__");
    if (tag != nullptr && *tag == "Infinity") return;
  }
  json->Fail("time_step_limit", "must be [0, Infinity]: a limit on the time steps is not supported");
}

}  // namespace

void ReadMamba2Mixer(JsonFields* json, Mamba2Mixer* mixer) {
  json->Read("num_heads", &mixer->num_heads);
  json->Read("head_dim", &mixer->head_dim);
  json->Read("state_size", &mixer->state_size);
  json->Read("n_groups", &mixer->num_groups);
  json->Read("conv_kernel", &mixer->conv_kernel);
  json->Read("use_bias", &mixer->use_bias);
  json->Read("use_conv_bias", &mixer->use_conv_bias);
}

void ReadMamba2Config(JsonFields* json, ModelConfig* config) {
  Mamba2Mixer& mixer = config->family.emplace<Mamba2Config>().mixer;
  RefuseOtherModels(json);
  RequireSilu(json);
  RequireNoTimeStepLimit(json);
  if (!json->Bool("rms_norm", true)) json->Fail("rms_norm", "must be true: the gated norm is always there");
  config->vocab_size = json->Int("vocab_size", 32768);
  config->hidden_size = json->Int("hidden_size", 4096);
  config->num_layers = json->Int("num_hidden_layers", 64);
  config->norm_eps = 1e-5f;
  json->Read("layer_norm_epsilon", &config->norm_eps);
  config->tie_word_embeddings = json->Bool("tie_word_embeddings", false);
  config->max_position_embeddings = json->Int("max_position_embeddings", kMaxPositions);
  if (!json->Has("bos_token_id")) config->bos_token_id = 0;
  json->Read("bos_token_id", &config->bos_token_id);
  ReadEndTokens(json, {2}, config);
  mixer = {
      .num_heads = 128, .head_dim = 64, .state_size = 128, .num_groups = 8, .norm_eps = config->norm_eps};
  ReadMamba2Mixer(json, &mixer);
  const int64_t inner = int64_t{json->Int("expand", 2)} * config->hidden_size;
  if (inner != int64_t{mixer.num_heads} * mixer.head_dim) {
    json->Fail("expand", absl::StrCat("times hidden_size is ", inner, ", must be num_heads * head_dim, ",
                                      int64_t{mixer.num_heads} * mixer.head_dim));
  }
}

}  // namespace sessa
