// Input: a serialized GenerateRequest, as gRPC hands it over, or (when it begins with a zero byte, which no
// message does) choices of one's fields. Checks that every refusal is an error of the API, that what the
// service takes is answered to its end, and that each request has its outcome.
#include <cmath>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>

#include "google/protobuf/stubs/logging.h"
#include "server/core/generation.h"
#include "server/grpc/convert.h"
#include "tests/fuzz_check.h"
#include "tests/fuzz_input.h"
#include "tests/server/fuzz_service.h"

namespace {

using sessa::Check;

void CheckError(const absl::Status& error) {
  const sessa::ErrorInfo info = sessa::Describe(error);
  Check(info.http_status == 400 || info.http_status == 404);
  Check(!info.message.empty() && !info.type.empty());
}

double Number(sessa::FuzzInput* in) {
  constexpr double kNumbers[] = {0,    1,    -1,     0.5,    2,      2.0001, 1e-40,
                                 1e39, -100, 100.01, 0.0625, 1e-300, NAN,    INFINITY};
  return kNumbers[in->Between(0, std::size(kNumbers) - 1)];
}

int64_t Integer(sessa::FuzzInput* in) {
  constexpr int64_t kLimits[] = {INT64_MIN, INT64_MAX, INT32_MAX, int64_t{1} << 32, -1, 255, 256,
                                 1023,      1024,      65536};
  return in->Chance(64) ? kLimits[in->Between(0, std::size(kLimits) - 1)] : in->Between(0, 40);
}

std::string Text(sessa::FuzzInput* in) {
  std::string text;
  for (int n = in->Between(0, 40); n > 0; --n) text += static_cast<char>(in->Between(1, 127));
  return text;
}

// Each field is there or not, as the next byte says.
sessa::v1::GenerateRequest Choose(sessa::FuzzInput* in) {
  sessa::v1::GenerateRequest m;
  const auto maybe = [in] { return in->Chance(100); };
  if (in->Chance(16)) m.set_model(Text(in));
  switch (in->Between(0, 3)) {
    case 0: m.set_text(Text(in)); break;
    case 1:
      m.mutable_token_ids();
      for (int n = in->Between(0, 40); n > 0; --n)
        m.mutable_token_ids()->add_ids(static_cast<int32_t>(Integer(in)));
      break;
    case 2:
      m.mutable_chat();
      for (int n = in->Between(0, 4); n > 0; --n) {
        sessa::v1::ChatMessage* message = m.mutable_chat()->add_messages();
        message->set_role(in->Chance(200) ? "user" : Text(in));
        if (in->Chance(200)) message->set_content(Text(in));
        if (maybe()) message->set_tool_call_id(Text(in));
        for (int n = maybe() ? in->Between(0, 2) : 0; n > 0; --n) {
          message->add_tool_calls()->set_name(Text(in));
          message->mutable_tool_calls()->rbegin()->set_arguments(in->Chance(128) ? "{\"a\": 1}" : Text(in));
        }
        if (maybe()) message->set_more(in->Chance(128) ? "{\"thinking\": []}" : Text(in));
      }
      if (maybe())
        m.mutable_chat()->set_tools(in->Chance(128) ? "[{\"function\": {\"name\": \"f\"}}]" : Text(in));
      if (maybe()) m.mutable_chat()->set_documents(in->Chance(128) ? "[{}]" : Text(in));
      if (maybe()) m.mutable_chat()->set_chat_template_kwargs(in->Chance(128) ? "{\"x\": null}" : Text(in));
      if (maybe()) m.mutable_chat()->set_add_generation_prompt(in->Chance(128));
      break;
    default: break;
  }
  sessa::v1::Sampling* s = m.mutable_sampling();
  if (maybe()) s->set_max_tokens(Integer(in));
  if (maybe()) s->set_min_tokens(Integer(in));
  if (maybe()) s->set_n(Integer(in));
  if (maybe()) s->set_temperature(Number(in));
  if (maybe()) s->set_top_p(Number(in));
  if (maybe()) s->set_min_p(Number(in));
  if (maybe()) s->set_top_k(Integer(in));
  if (maybe()) s->set_presence_penalty(Number(in));
  if (maybe()) s->set_frequency_penalty(Number(in));
  if (maybe()) s->set_repetition_penalty(Number(in));
  if (maybe()) s->set_seed(static_cast<uint64_t>(Integer(in)));
  for (int n = maybe() ? in->Between(0, 5) : 0; n > 0; --n) s->add_stop(Text(in));
  for (int n = maybe() ? in->Between(0, 70) : 0; n > 0; --n) s->add_stop_token_ids(Integer(in));
  for (int n = maybe() ? in->Between(0, 10) : 0; n > 0; --n) s->add_allowed_token_ids(Integer(in));
  for (int n = maybe() ? in->Between(0, 10) : 0; n > 0; --n) {
    s->add_logit_bias()->set_token_id(Integer(in));
    s->mutable_logit_bias()->rbegin()->set_bias(Number(in));
  }
  s->set_include_stop_str_in_output(maybe());
  s->set_ignore_eos(maybe());
  if (maybe()) s->set_logprobs(Integer(in));
  if (maybe()) s->set_prompt_logprobs(Integer(in));
  if (maybe()) s->set_num_speculative_tokens(Integer(in));
  m.set_echo(maybe());
  if (maybe()) m.set_truncate_prompt_tokens(Integer(in));
  if (maybe()) m.set_add_special_tokens(in->Chance(128));
  if (maybe()) m.set_skip_special_tokens(in->Chance(128));
  if (maybe()) m.set_priority(Integer(in));
  return m;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static sessa::Service* const service = sessa::MakeFuzzService().release();
  google::protobuf::SetLogHandler(nullptr);  // it would say each time that a string is no UTF-8
  sessa::v1::GenerateRequest message;
  if (size > 0 && data[0] == 0) {
    sessa::FuzzInput in(data + 1, size - 1);
    message = Choose(&in);
  } else if (!message.ParseFromArray(data, static_cast<int>(size))) {
    return 0;
  }
  absl::StatusOr<sessa::GenerationRequest> request = sessa::FromProto(message, service->limits());
  if (!request.ok()) return CheckError(request.status()), 0;
  bool ended = false;
  auto generation = service->Generate(*std::move(request), "", service->Begin("grpc"));
  if (!generation.ok()) {
    CheckError(generation.status());
  } else {
    while (auto event = (*generation)->TryNext()) {
      if (auto* end = std::get_if<sessa::GenerationEnd>(&*event))
        ended = end->status.ok() || absl::IsResourceExhausted(end->status);
    }
    Check(ended);
  }
  Check(sessa::AllEnded(service));
  return 0;
}
