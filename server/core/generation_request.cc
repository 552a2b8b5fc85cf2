// The one judge of a request's values; see generation_request.h.
#include "server/core/generation_request.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/check_request.h"
#include "server/core/errors.h"

namespace sessa {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();

absl::Status CheckInt(absl::string_view param, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return FieldError(param, absl::StrCat("must be between ", low, " and ", high, ", got ", value));
}

absl::Status CheckReal(const std::string& param, double value, double low, double high,
                       bool low_open = false) {
  if (std::isfinite(value) && (low_open ? value > low : value >= low) && value <= high)
    return absl::OkStatus();
  return FieldError(
      param, absl::StrCat("must be a number in ", low_open ? "(" : "[", low, ", ", high, "], got ", value));
}

absl::Status CheckIds(const char* param, const std::vector<int64_t>& ids, int64_t max_count, int vocab_size) {
  if (static_cast<int64_t>(ids.size()) > max_count) {
    return FieldError(param, absl::StrCat("at most ", max_count, " token ids, got ", ids.size()));
  }
  for (int64_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return FieldError(param, absl::StrCat("token id ", id, " is not in [0, ", vocab_size, ")"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPrompts(const GenerationRequest& r, const ModelFacts& model, const Limits& limits) {
  if (r.is_chat) {
    if (!model.has_tokenizer) {
      return FieldError(r.prompt_name, "this model has no tokenizer; send token ids to /v1/completions");
    }
    if (r.chat.messages.empty())
      return FieldError(r.prompt_name, "must hold at least one message", "missing_field");
    if (r.chat.messages.size() > limits.max_messages) {
      return FieldError(r.prompt_name, absl::StrCat("at most ", limits.max_messages, " messages"));
    }
    for (size_t i = 0; i < r.chat.messages.size(); ++i) {
      if (r.chat.messages[i].role.empty())
        return FieldError(absl::StrCat(r.prompt_name, "[", i, "].role"), "must not be empty");
    }
    return absl::OkStatus();
  }
  if (r.prompts.empty()) return FieldError(r.prompt_name, "must hold at least one prompt", "missing_field");
  if (r.prompts.size() > limits.max_prompts) {
    return FieldError(r.prompt_name,
                      absl::StrCat("at most ", limits.max_prompts, " prompts, got ", r.prompts.size()));
  }
  for (const PromptInput& prompt : r.prompts) {
    if (std::holds_alternative<std::string>(prompt)) {
      if (!model.has_tokenizer) {
        return FieldError(r.prompt_name, "this model has no tokenizer; send the prompt as token ids");
      }
      continue;
    }
    const auto& ids = std::get<std::vector<int32_t>>(prompt);
    if (ids.empty()) return FieldError(r.prompt_name, "a prompt of token ids must not be empty");
    for (int32_t id : ids) {
      if (id < 0 || id >= model.vocab_size) {
        return FieldError(r.prompt_name,
                          absl::StrCat("token id ", id, " is not in [0, ", model.vocab_size, ")"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStops(const GenerationRequest& r, const ModelFacts& model, const Limits& limits) {
  if (r.stop.size() > limits.max_stop) {
    return FieldError("stop",
                      absl::StrCat("at most ", limits.max_stop, " stop strings, got ", r.stop.size()));
  }
  if (!r.stop.empty() && !model.has_tokenizer) {
    return FieldError("stop", "this model has no tokenizer; use stop_token_ids");
  }
  for (const std::string& stop : r.stop) {
    if (stop.empty()) return FieldError("stop", "a stop string must not be empty");
    if (stop.size() > limits.max_stop_bytes) {
      return FieldError("stop", absl::StrCat("a stop string has at most ", limits.max_stop_bytes, " bytes"));
    }
  }
  return CheckIds("stop_token_ids", r.stop_token_ids, limits.max_stop_token_ids, model.vocab_size);
}

#define SESSA_RETURN_IF_ERROR(expr)         \
  if (absl::Status s_ = (expr); !s_.ok()) { \
    return s_;                              \
  }

absl::Status CheckSampling(const GenerationRequest& r, const ModelFacts& model, const Limits& limits) {
  SESSA_RETURN_IF_ERROR(
      CheckSamplingValues({r.temperature, r.top_p, r.min_p, r.repetition_penalty, r.top_k, std::nullopt}));
  SESSA_RETURN_IF_ERROR(CheckReal("presence_penalty", r.presence_penalty, -2, 2));
  SESSA_RETURN_IF_ERROR(CheckReal("frequency_penalty", r.frequency_penalty, -2, 2));
  if (r.logprobs != -1) {
    SESSA_RETURN_IF_ERROR(CheckInt(r.logprobs_name, r.logprobs, 0, limits.max_logprobs));
  }
  if (r.prompt_logprobs != -1) {
    SESSA_RETURN_IF_ERROR(CheckInt("prompt_logprobs", r.prompt_logprobs, 0, limits.max_logprobs));
  }
  if (r.logit_bias.size() > limits.max_logit_bias) {
    return FieldError("logit_bias", absl::StrCat("at most ", limits.max_logit_bias, " entries"));
  }
  for (const auto& [id, bias] : r.logit_bias) {
    if (id < 0 || id >= model.vocab_size) {
      return FieldError("logit_bias",
                        absl::StrCat("token id ", id, " is not in [0, ", model.vocab_size, ")"));
    }
    SESSA_RETURN_IF_ERROR(CheckReal("logit_bias", bias, -100, 100));
  }
  return CheckIds("allowed_token_ids", r.allowed_token_ids, limits.max_allowed_token_ids, model.vocab_size);
}

}  // namespace

absl::Status CheckSamplingValues(const SamplingDefaults& values) {
  SESSA_RETURN_IF_ERROR(CheckReal("temperature", values.temperature.value_or(1), 0, 2));
  SESSA_RETURN_IF_ERROR(CheckReal("top_p", values.top_p.value_or(1), 0, 1, true));
  SESSA_RETURN_IF_ERROR(CheckReal("min_p", values.min_p.value_or(0), 0, 1));
  SESSA_RETURN_IF_ERROR(CheckInt("top_k", values.top_k.value_or(0), -1, kMaxInt));
  SESSA_RETURN_IF_ERROR(CheckReal("repetition_penalty", values.repetition_penalty.value_or(1), 0, 10, true));
  // The engine takes floats: a value that is positive as a double but not as a float is out of range too.
  if (static_cast<float>(values.top_p.value_or(1)) <= 0) return FieldError("top_p", "is too small");
  if (static_cast<float>(values.repetition_penalty.value_or(1)) <= 0)
    return FieldError("repetition_penalty", "is too small");
  return absl::OkStatus();
}

absl::Status ValidateRequest(const GenerationRequest& r, const ModelFacts& model, const Limits& limits) {
  if (!r.model.empty() && r.model != model.name) return ModelNotFoundError(r.model);
  if (r.has_suffix)
    return FieldError("suffix", "is not supported: the model only continues text", "unsupported_field");
  SESSA_RETURN_IF_ERROR(CheckPrompts(r, model, limits));
  SESSA_RETURN_IF_ERROR(CheckInt("n", r.n, 1, limits.max_n));
  if (r.best_of.has_value() && *r.best_of != r.n) {
    return FieldError("best_of", "is only served when it equals n", "unsupported_field");
  }
  if (r.is_chat && r.echo) return FieldError("echo", "is for /v1/completions only", "unsupported_field");
  if (r.max_tokens.has_value()) {
    const std::string& max_tokens_name = r.max_tokens_name;
    const bool may_be_none = r.echo || r.prompt_logprobs >= 0;
    SESSA_RETURN_IF_ERROR(CheckInt(max_tokens_name, *r.max_tokens, may_be_none ? 0 : 1, kMaxInt));
    if (*r.max_tokens >= model.max_model_len) {
      return ContextLengthError(max_tokens_name,
                                absl::StrCat("This model's context is ", model.max_model_len, " tokens; ",
                                             max_tokens_name, " asks for ", *r.max_tokens, "."));
    }
    const int64_t choices = r.n * std::max<int64_t>(1, r.prompts.size());
    if (*r.max_tokens > limits.max_total_tokens / choices) {
      return FieldError(max_tokens_name, absl::StrCat("prompts * n * ", max_tokens_name, " is at most ",
                                                      limits.max_total_tokens));
    }
  }
  SESSA_RETURN_IF_ERROR(CheckInt("min_tokens", r.min_tokens, 0, kMaxInt));
  if (r.max_tokens.has_value() && *r.max_tokens > 0 && r.min_tokens > *r.max_tokens) {
    return FieldError("min_tokens", absl::StrCat("must not exceed ", r.max_tokens_name));
  }
  SESSA_RETURN_IF_ERROR(CheckStops(r, model, limits));
  SESSA_RETURN_IF_ERROR(CheckSampling(r, model, limits));
  if (r.truncate_prompt_tokens.has_value()) {
    SESSA_RETURN_IF_ERROR(
        CheckInt("truncate_prompt_tokens", *r.truncate_prompt_tokens, 1, model.max_model_len));
  }
  SESSA_RETURN_IF_ERROR(CheckInt("priority", r.priority, -1000, 1000));
  const int64_t drafts = r.num_speculative_tokens.value_or(0);
  SESSA_RETURN_IF_ERROR(CheckInt("num_speculative_tokens", drafts, 0, kMaxDrafts));
  if (drafts > 0 && !model.takes_drafts)
    return FieldError("num_speculative_tokens", kNoWayBack, "unsupported_field");
  if (r.timeout.has_value() && (*r.timeout <= absl::ZeroDuration() || *r.timeout > limits.max_timeout)) {
    return FieldError("timeout",
                      absl::StrCat("must be above 0 and at most ", absl::FormatDuration(limits.max_timeout)));
  }
  return absl::OkStatus();
}

absl::Status ToSampling(const GenerationRequest& r, const ModelFacts& model, int num_prompt_tokens,
                        uint64_t default_seed, SamplingParams* s) {
  const int64_t room = static_cast<int64_t>(model.max_model_len) - num_prompt_tokens;
  const SamplingDefaults& defaults = model.defaults;
  int64_t max_tokens = r.max_tokens.value_or(std::min<int64_t>(r.is_chat ? room : 16, room));
  max_tokens = std::min(max_tokens, defaults.max_tokens.value_or(kMaxInt));
  max_tokens = std::max<int64_t>(max_tokens, 1);  // 0: only the prompt matters; one is drawn and dropped
  if (max_tokens > room) {
    return ContextLengthError(r.prompt_name, absl::StrCat("This model's context is ", model.max_model_len,
                                                          " tokens; the prompt has ", num_prompt_tokens,
                                                          " and ", max_tokens, " are to be generated."));
  }
  if (r.min_tokens > max_tokens)
    return FieldError("min_tokens", "exceeds the tokens that fit after the prompt");
  s->max_tokens = static_cast<int>(max_tokens);
  s->min_tokens = static_cast<int>(r.min_tokens);
  const auto real = [](std::optional<double> asked, std::optional<double> unasked, double fallback) {
    return static_cast<float>(asked.value_or(unasked.value_or(fallback)));
  };
  s->temperature = real(r.temperature, defaults.temperature, 1);
  s->top_p = real(r.top_p, defaults.top_p, 1);
  s->min_p = real(r.min_p, defaults.min_p, 0);
  const int64_t top_k = r.top_k.value_or(defaults.top_k.value_or(0));
  s->top_k = top_k >= model.vocab_size ? 0 : static_cast<int>(std::max<int64_t>(top_k, 0));
  s->presence_penalty = static_cast<float>(r.presence_penalty);
  s->frequency_penalty = static_cast<float>(r.frequency_penalty);
  s->repetition_penalty = real(r.repetition_penalty, defaults.repetition_penalty, 1);
  s->seed = r.seed.value_or(default_seed);
  s->ignore_eos = r.ignore_eos;
  s->stop_token_ids.assign(r.stop_token_ids.begin(), r.stop_token_ids.end());
  s->allowed_token_ids.assign(r.allowed_token_ids.begin(), r.allowed_token_ids.end());
  for (const auto& [id, bias] : r.logit_bias) {
    s->logit_bias.emplace_back(static_cast<int32_t>(id), static_cast<float>(bias));
  }
  s->num_logprobs =
      static_cast<int>(std::min<int64_t>(std::max(r.logprobs, r.prompt_logprobs), model.vocab_size));
  s->prompt_logprobs = (r.echo && r.logprobs >= 0) || r.prompt_logprobs >= 0;
  return absl::OkStatus();
}

#undef SESSA_RETURN_IF_ERROR

}  // namespace sessa
