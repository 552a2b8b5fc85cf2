// See responses_answer.h.
#include "server/rest/responses_answer.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/core/errors.h"
#include "server/rest/answer_json.h"

namespace sessa {
namespace {

absl::Cord Join(std::initializer_list<absl::Cord> pieces) {
  absl::Cord all;
  for (const absl::Cord& piece : pieces) all.Append(piece);
  return all;
}

std::string UsageMember(const Usage& usage) {
  return absl::StrCat(R"("usage":{"input_tokens":)", usage.prompt_tokens,
                      R"(,"input_tokens_details":{"cached_tokens":)", usage.cached_tokens,
                      R"(},"output_tokens":)", usage.completion_tokens,
                      R"(,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":)",
                      usage.prompt_tokens + usage.completion_tokens, "}");
}

}  // namespace

ResponsesAnswer::ResponsesAnswer(AnswerOptions options, bool stream)
    : options_(std::move(options)),
      stream_(stream),
      item_id_(absl::StrCat("msg_", absl::StripPrefix(options_.id, "resp_"))) {}

void ResponsesAnswer::Add(const GenerationEvent& event, std::string* out) {
  if (std::holds_alternative<PromptEvent>(event)) return Begin(out);
  if (const auto* delta = std::get_if<TextDelta>(&event)) {
    const ChoiceParts<std::string> parts = RenderDelta(options_, *delta);
    sessa::Join(parts, &parts_);
    if (delta->finish != FinishReason::kNone) finish_ = delta->finish;
    if (parts.text.empty() && parts.entries.empty()) return;
    return Event("response.output_text.delta",
                 Join({Place(), absl::Cord(absl::StrCat(R"(,"delta":")", parts.text, R"(","logprobs":[)",
                                                        parts.entries, "]"))}),
                 out);
  }
  if (const auto* end = std::get_if<GenerationEnd>(&event)) {
    usage_ = end->usage;
    status_ = end->status;
    End(out);
  }
}

void ResponsesAnswer::Fail(absl::Status status, std::string* out) {
  status_ = std::move(status);
  parts_ = {};
  End(out);
}

void ResponsesAnswer::Begin(std::string* out) {
  if (std::exchange(begun_, true)) return;
  const absl::Cord response = Join({absl::Cord(R"("response":)"), Response()});
  Event("response.created", response, out);
  Event("response.in_progress", response, out);
  Event("response.output_item.added",
        absl::Cord(
            absl::StrCat(R"("output_index":0,"item":{"id":")", item_id_,
                         R"(","type":"message","status":"in_progress","role":"assistant","content":[]})")),
        out);
  Event("response.content_part.added", Join({Place(), absl::Cord(R"(,"part":)"), Part()}), out);
}

void ResponsesAnswer::End(std::string* out) {
  Begin(out);
  ended_ = true;
  if (status_.ok()) {
    Event("response.output_text.done",
          Join({Place(), absl::Cord(R"(,"text":")"), parts_.text, absl::Cord(R"(","logprobs":[)"),
                parts_.entries, absl::Cord("]")}),
          out);
    Event("response.content_part.done", Join({Place(), absl::Cord(R"(,"part":)"), Part()}), out);
    Event("response.output_item.done", Join({absl::Cord(R"("output_index":0,"item":)"), Item()}), out);
  }
  Event(absl::StrCat("response.", Status()).c_str(), Join({absl::Cord(R"("response":)"), Response()}), out);
}

void ResponsesAnswer::Event(const char* type, const absl::Cord& members, std::string* out) {
  if (!stream_) return;
  absl::StrAppend(out, "event: ", type, "\ndata: {\"type\":\"", type,
                  "\",\"sequence_number\":", num_events_++, ",");
  for (const absl::string_view chunk : members.Chunks()) out->append(chunk.data(), chunk.size());
  absl::StrAppend(out, "}\n\n");
}

absl::Cord ResponsesAnswer::Place() const {
  return absl::Cord(absl::StrCat(R"("item_id":")", item_id_, R"(","output_index":0,"content_index":0)"));
}

absl::Cord ResponsesAnswer::Part() const {
  return Join({absl::Cord(R"({"type":"output_text","text":")"), parts_.text,
               absl::Cord(R"(","annotations":[],"logprobs":[)"), parts_.entries, absl::Cord("]}")});
}

absl::Cord ResponsesAnswer::Item() const {
  return Join({absl::Cord(absl::StrCat(R"({"id":")", item_id_, R"(","type":"message","status":")", Status(),
                                       R"(","role":"assistant","content":[)")),
               Part(), absl::Cord("]}")});
}

const char* ResponsesAnswer::Status() const {
  if (!ended_) return "in_progress";
  if (!status_.ok()) return "failed";
  return finish_ == FinishReason::kLength ? "incomplete" : "completed";
}

absl::Cord ResponsesAnswer::Response() const {
  std::string head;
  JsonWriter json(&head);
  json.BeginObject().Key("id").String(options_.id).Key("object").String("response");
  json.Key("created_at").Int(options_.created).Key("model").String(options_.model);
  json.Key("status").String(Status()).Key("error");
  if (ended_ && !status_.ok()) {
    json.BeginObject().Key("code").String("server_error");
    json.Key("message").String(Describe(status_).message).EndObject();
  } else {
    json.Null();
  }
  json.Key("incomplete_details");
  if (ended_ && status_.ok() && finish_ == FinishReason::kLength) {
    json.BeginObject().Key("reason").String("max_output_tokens").EndObject();
  } else {
    json.Null();
  }
  absl::Cord response(head);
  response.Append(absl::StrCat(",", options_.settings, R"(,"output":[)"));
  if (ended_ && status_.ok()) response.Append(Item());
  response.Append(absl::StrCat("],", ended_ ? UsageMember(usage_) : R"("usage":null)", "}"));
  return response;
}

}  // namespace sessa
