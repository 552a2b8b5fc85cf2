// See tensors.h.
#include "server/kserve/tensors.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/rest/request_json.h"
#include "server/tokenizer/utf8.h"

namespace sessa {
namespace {

constexpr KserveTensorSpec kInputs[] = {{"text_input", "BYTES", "TYPE_STRING", 1},
                                        {"input_ids", "INT64", "TYPE_INT64", -1}};
constexpr KserveTensorSpec kOutputs[] = {{"text_output", "BYTES", "TYPE_STRING", 1},
                                         {"output_ids", "INT64", "TYPE_INT64", -1},
                                         {"finish_reason", "BYTES", "TYPE_STRING", 1}};
// What of Triton's extensions there is.
constexpr const char* kExtensions[] = {"binary_tensor_data", "generate",   "model_configuration",
                                       "model_repository",   "statistics", "parameters"};

uint64_t LoadLittleEndian(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

void AppendLittleEndian(uint64_t value, int num_bytes, std::string* out) {
  for (; num_bytes > 0; --num_bytes, value >>= 8) out->push_back(static_cast<char>(value));
}

bool IsInt(const std::string& datatype) { return datatype == "INT64" || datatype == "INT32"; }

// Of the elements that a shape has; none when it has a negative dimension or more than fit.
std::optional<int64_t> NumElements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) {
    if (dim < 0 || (dim > 0 && count > std::numeric_limits<int32_t>::max() / dim)) return std::nullopt;
    count *= dim;
  }
  return count;
}

absl::Status CheckTensor(const KserveTensor& tensor) {
  const std::optional<int64_t> count = NumElements(tensor.shape);
  const auto held =
      static_cast<int64_t>(tensor.datatype == "BYTES" ? tensor.texts.size() : tensor.ints.size());
  if (!count.has_value() || *count != held)
    return FieldError(tensor.name, absl::StrCat("has ", held, " elements, which is not what its shape says"));
  return absl::OkStatus();
}

absl::Status ReadPrompt(const KserveTensor& tensor, GenerationRequest* request) {
  if (absl::Status form = CheckTensor(tensor); !form.ok()) return form;
  request->prompt_name = tensor.name;
  if (tensor.name == "text_input") {
    if (tensor.datatype != "BYTES") return FieldError(tensor.name, "must be BYTES");
    if (tensor.texts.size() != 1) return FieldError(tensor.name, "must have one element: one text");
    if (FindInvalidUtf8(tensor.texts[0]) != std::string_view::npos)
      return FieldError(tensor.name, "must be UTF-8");
    request->prompts.emplace_back(tensor.texts[0]);
    return absl::OkStatus();
  }
  if (tensor.name != "input_ids")
    return FieldError(tensor.name, "is no input of this model, which has text_input and input_ids");
  if (!IsInt(tensor.datatype)) return FieldError(tensor.name, "must be INT64 or INT32");
  std::vector<int32_t> ids;
  ids.reserve(tensor.ints.size());
  for (const int64_t id : tensor.ints) {
    if (id < 0 || id > std::numeric_limits<int32_t>::max())
      return FieldError(tensor.name, absl::StrCat("token id ", id, " is out of range"));
    ids.push_back(static_cast<int32_t>(id));
  }
  request->prompts.emplace_back(std::move(ids));
  return absl::OkStatus();
}

const char* FinishName(FinishReason finish) {
  switch (finish) {
    case FinishReason::kNone: return "";
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
  }
  return "";
}

}  // namespace

absl::Span<const KserveTensorSpec> KserveInputs() { return kInputs; }
absl::Span<const KserveTensorSpec> KserveOutputs() { return kOutputs; }
absl::Span<const char* const> KserveExtensions() { return kExtensions; }

absl::Status ReadRaw(absl::string_view raw, KserveTensor* tensor) {
  if (tensor->datatype == "BYTES") {
    while (!raw.empty()) {
      if (raw.size() < 4) return FieldError(tensor->name, "its bytes end inside an element");
      const uint64_t size = LoadLittleEndian(raw.substr(0, 4));
      raw.remove_prefix(4);
      if (raw.size() < size) return FieldError(tensor->name, "its bytes end inside an element");
      tensor->texts.emplace_back(raw.substr(0, size));
      raw.remove_prefix(size);
    }
    return absl::OkStatus();
  }
  if (!IsInt(tensor->datatype)) return FieldError(tensor->name, "must be BYTES, INT64 or INT32");
  const size_t size = tensor->datatype == "INT64" ? 8 : 4;
  if (raw.size() % size != 0) return FieldError(tensor->name, "its bytes end inside an element");
  tensor->ints.reserve(raw.size() / size);
  for (; !raw.empty(); raw.remove_prefix(size)) {
    const uint64_t bits = LoadLittleEndian(raw.substr(0, size));
    tensor->ints.push_back(size == 8 ? static_cast<int64_t>(bits) : static_cast<int32_t>(bits));
  }
  return absl::OkStatus();
}

std::string WriteRaw(const KserveTensor& tensor) {
  std::string raw;
  for (const std::string& text : tensor.texts) {
    AppendLittleEndian(text.size(), 4, &raw);
    raw += text;
  }
  for (const int64_t number : tensor.ints) AppendLittleEndian(static_cast<uint64_t>(number), 8, &raw);
  return raw;
}

absl::StatusOr<GenerationRequest> ToGeneration(const KserveInfer& infer, bool stream) {
  for (const std::string& output : infer.outputs) {
    if (std::none_of(std::begin(kOutputs), std::end(kOutputs),
                     [&](const KserveTensorSpec& spec) { return output == spec.name; }))
      return FieldError("outputs", absl::StrCat("this model has no output '", output, "'"));
  }
  boost::json::object parameters = infer.parameters;
  // Triton's is in microseconds.
  if (boost::json::value* timeout = parameters.if_contains("timeout");
      timeout != nullptr && timeout->is_number())
    *timeout = timeout->to_number<double>() * 1e-6;
  ParsedGeneration parsed;
  if (absl::Status read = ReadKserveParameters(parameters, &parsed); !read.ok()) return read;
  GenerationRequest& request = parsed.request;
  request.stream = stream;
  request.return_token_ids = true;
  request.prompts.clear();
  if (infer.inputs.size() != 1)
    return FieldError("inputs", "one of text_input and input_ids is needed", "missing_field");
  if (absl::Status prompt = ReadPrompt(infer.inputs[0], &request); !prompt.ok()) return prompt;
  return std::move(request);
}

void KserveAnswer::Add(TextDelta delta) {
  text_ += delta.text;
  ids_.insert(ids_.end(), delta.token_ids.begin(), delta.token_ids.end());
  if (delta.finish != FinishReason::kNone) finish_ = delta.finish;
}

std::vector<KserveTensor> KserveAnswer::Take(absl::Span<const std::string> outputs) {
  std::vector<KserveTensor> all;
  all.push_back({"text_output", "BYTES", {1}, {std::exchange(text_, std::string())}});
  const auto num_ids = static_cast<int64_t>(ids_.size());
  all.push_back({"output_ids", "INT64", {num_ids}, {}, std::exchange(ids_, {})});
  all.push_back({"finish_reason", "BYTES", {1}, {FinishName(finish_)}});
  if (outputs.empty()) return all;
  std::vector<KserveTensor> wanted;
  for (const std::string& name : outputs) {
    for (const KserveTensor& tensor : all) {
      if (tensor.name == name) wanted.push_back(tensor);
    }
  }
  return wanted;
}

}  // namespace sessa
