// See convert.h.
#include "server/grpc/convert.h"

#include "server/core/errors.h"

namespace sessa {
namespace {

namespace pb = sessa::v1;

void FromProto(const pb::Sampling& sampling, GenerationRequest* request) {
  if (sampling.has_max_tokens()) request->max_tokens = sampling.max_tokens();
  request->min_tokens = sampling.min_tokens();
  if (sampling.has_n()) request->n = sampling.n();
  if (sampling.has_temperature()) request->temperature = sampling.temperature();
  if (sampling.has_top_p()) request->top_p = sampling.top_p();
  if (sampling.has_min_p()) request->min_p = sampling.min_p();
  if (sampling.has_top_k()) request->top_k = sampling.top_k();
  request->presence_penalty = sampling.presence_penalty();
  request->frequency_penalty = sampling.frequency_penalty();
  if (sampling.has_repetition_penalty()) request->repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_seed()) request->seed = sampling.seed();
  request->stop.assign(sampling.stop().begin(), sampling.stop().end());
  request->stop_token_ids.assign(sampling.stop_token_ids().begin(), sampling.stop_token_ids().end());
  request->allowed_token_ids.assign(sampling.allowed_token_ids().begin(), sampling.allowed_token_ids().end());
  for (const pb::LogitBias& bias : sampling.logit_bias()) {
    request->logit_bias.emplace_back(bias.token_id(), bias.bias());
  }
  request->include_stop_str_in_output = sampling.include_stop_str_in_output();
  request->ignore_eos = sampling.ignore_eos();
  if (sampling.has_logprobs()) {
    // Core writes "none" as -1; a client that sends a negative number must hear that it is wrong, not get
    // none.
    request->logprobs = sampling.logprobs() < 0 ? INT64_MIN : sampling.logprobs();
  }
  if (sampling.has_prompt_logprobs()) {
    request->prompt_logprobs = sampling.prompt_logprobs() < 0 ? INT64_MIN : sampling.prompt_logprobs();
  }
}

}  // namespace

Chat FromProto(const pb::Chat& chat) {
  Chat out;
  out.messages.reserve(chat.messages_size());
  for (const pb::ChatMessage& message : chat.messages())
    out.messages.push_back({message.role(), message.content()});
  if (chat.has_add_generation_prompt()) out.add_generation_prompt = chat.add_generation_prompt();
  return out;
}

absl::StatusOr<GenerationRequest> FromProto(const pb::GenerateRequest& message) {
  GenerationRequest request;
  request.model = message.model();
  switch (message.prompt_case()) {
    case pb::GenerateRequest::kText: request.prompts.emplace_back(message.text()); break;
    case pb::GenerateRequest::kTokenIds: {
      const auto& ids = message.token_ids().ids();
      request.prompts.emplace_back(std::vector<int32_t>(ids.begin(), ids.end()));
      break;
    }
    case pb::GenerateRequest::kChat:
      request.is_chat = true;
      request.prompt_name = "messages";
      request.chat = FromProto(message.chat());
      break;
    case pb::GenerateRequest::PROMPT_NOT_SET:
      return FieldError("prompt", "one of text, token_ids and chat must be set");
  }
  FromProto(message.sampling(), &request);
  request.stream = true;
  request.include_usage = true;
  request.return_token_ids = true;
  request.echo = message.echo();
  if (message.has_truncate_prompt_tokens()) request.truncate_prompt_tokens = message.truncate_prompt_tokens();
  if (message.has_add_special_tokens()) request.add_special_tokens = message.add_special_tokens();
  if (message.has_skip_special_tokens()) request.skip_special_tokens = message.skip_special_tokens();
  request.priority = message.priority();
  request.user = message.user();
  return request;
}

}  // namespace sessa
