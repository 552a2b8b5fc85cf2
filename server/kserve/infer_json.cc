// See infer_json.h.
#include "server/kserve/infer_json.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/core/json_writer.h"
#include "server/rest/fields.h"
#include "server/rest/json_parse.h"

namespace sessa {
namespace {

namespace json = boost::json;

// "data", flat or nested as the shape is; depth is the JSON's own bound.
absl::Status ReadData(const json::value& value, const std::string& path, KserveTensor* tensor) {
  if (value.is_array()) {
    for (const json::value& item : value.get_array()) {
      if (absl::Status read = ReadData(item, path, tensor); !read.ok()) return read;
    }
    return absl::OkStatus();
  }
  return tensor->datatype == "BYTES" ? ReadValue(value, path, &tensor->texts.emplace_back())
                                     : ReadValue(value, path, &tensor->ints.emplace_back());
}

// Takes the tensor's bytes from the front of `binary`, where it has some.
void ReadInput(const json::value& value, const std::string& path, absl::string_view* binary, ReadLog* log,
               KserveTensor* tensor) {
  if (!value.is_object()) return log->Fail(TypeError(path, "an object", value));
  Fields fields(value.get_object(), path, log);
  fields.Read("name", &tensor->name);
  fields.Read("datatype", &tensor->datatype);
  fields.Read("shape", &tensor->shape);
  std::optional<int64_t> num_bytes;
  if (const json::value* parameters = fields.Find("parameters");
      parameters != nullptr && parameters->is_object())
    Fields(parameters->get_object(), fields.Path("parameters"), log).Read("binary_data_size", &num_bytes);
  if (tensor->datatype != "BYTES" && tensor->datatype != "INT64" && tensor->datatype != "INT32")
    return log->Fail(FieldError(fields.Path("datatype"), "must be BYTES, INT64 or INT32"));
  if (num_bytes.has_value()) {
    if (*num_bytes < 0 || *num_bytes > static_cast<int64_t>(binary->size()))
      return log->Fail(FieldError(path, "its binary_data_size is not what follows the JSON"));
    log->Fail(ReadRaw(binary->substr(0, *num_bytes), tensor));
    binary->remove_prefix(*num_bytes);
  } else if (const json::value* data = fields.Find("data")) {
    log->Fail(ReadData(*data, fields.Path("data"), tensor));
  } else {
    log->Fail(FieldError(fields.Path("data"), "is needed", "missing_field"));
  }
}

void ReadOutput(const json::value& value, const std::string& path, ReadLog* log, ParsedInfer* out) {
  if (!value.is_object()) return log->Fail(TypeError(path, "an object", value));
  Fields fields(value.get_object(), path, log);
  std::string& name = out->infer.outputs.emplace_back();
  fields.Read("name", &name);
  std::optional<bool> binary;
  if (const json::value* parameters = fields.Find("parameters");
      parameters != nullptr && parameters->is_object())
    Fields(parameters->get_object(), fields.Path("parameters"), log).Read("binary_data", &binary);
  if (binary.has_value()) (*binary ? out->binary : out->text).insert(name);
}

// Calls `read(value, path)` for each element of the array.
template <typename Read>
void ReadEach(Fields& fields, const char* name, ReadLog* log, const Read& read) {
  const json::value* value = fields.Find(name);
  if (value == nullptr) return;
  if (!value->is_array()) return log->Fail(TypeError(name, "an array of objects", *value));
  for (size_t i = 0; i < value->get_array().size() && log->status.ok(); ++i)
    read(value->get_array()[i], absl::StrCat(name, "[", i, "]"));
}

void WriteData(const KserveTensor& tensor, JsonWriter* json) {
  json->Key("data").BeginArray();
  for (const std::string& text : tensor.texts) json->String(text);
  for (const int64_t number : tensor.ints) json->Int(number);
  json->EndArray();
}

}  // namespace

absl::StatusOr<ParsedInfer> ParseInfer(const std::string& body, int64_t header_length, const Limits& limits) {
  absl::string_view binary;
  std::string head = body;
  if (header_length >= 0) {
    if (header_length > static_cast<int64_t>(body.size()))
      return FieldError("Inference-Header-Content-Length", "is more than the body has");
    head = body.substr(0, header_length);
    binary = absl::string_view(body).substr(header_length);
  }
  absl::StatusOr<json::value> value = ParseJson(head, limits.max_json_depth);
  if (!value.ok()) return value.status();
  if (!value->is_object()) return TypeError("body", "an object", *value);
  ParsedInfer parsed;
  ReadLog log;
  Fields fields(value->get_object(), "", &log);
  fields.Read("id", &parsed.infer.id);
  ReadEach(fields, "inputs", &log, [&](const json::value& input, const std::string& path) {
    ReadInput(input, path, &binary, &log, &parsed.infer.inputs.emplace_back());
  });
  ReadEach(fields, "outputs", &log, [&](const json::value& output, const std::string& path) {
    ReadOutput(output, path, &log, &parsed);
  });
  if (const json::value* parameters = fields.Find("parameters")) {
    if (!parameters->is_object()) return TypeError("parameters", "an object", *parameters);
    parsed.infer.parameters = parameters->get_object();
    Fields(parameters->get_object(), "parameters", &log).Read("binary_data_output", &parsed.binary_output);
    parsed.infer.parameters.erase("binary_data_output");
  }
  if (log.status.ok() && !binary.empty()) log.Fail(FieldError("inputs", "more bytes follow than they have"));
  if (!log.status.ok()) return log.status;
  return parsed;
}

InferReply InferJson(const ParsedInfer& asked, const std::string& model, std::vector<KserveTensor> outputs) {
  InferReply reply;
  std::string binary;
  JsonWriter json(&reply.body);
  json.BeginObject().Key("model_name").String(model).Key("model_version").String(kKserveVersion);
  if (!asked.infer.id.empty()) json.Key("id").String(asked.infer.id);
  json.Key("outputs").BeginArray();
  for (const KserveTensor& tensor : outputs) {
    json.BeginObject().Key("name").String(tensor.name).Key("datatype").String(tensor.datatype);
    json.Key("shape").BeginArray();
    for (const int64_t dim : tensor.shape) json.Int(dim);
    json.EndArray();
    const bool as_bytes =
        asked.binary_output ? asked.text.count(tensor.name) == 0 : asked.binary.count(tensor.name) > 0;
    if (as_bytes) {
      const std::string raw = WriteRaw(tensor);
      json.Key("parameters").BeginObject().Key("binary_data_size").Int(static_cast<int64_t>(raw.size()));
      json.EndObject();
      binary += raw;
      reply.header_length = 0;
    } else {
      WriteData(tensor, &json);
    }
    json.EndObject();
  }
  json.EndArray().EndObject();
  if (reply.header_length == 0) reply.header_length = static_cast<int64_t>(reply.body.size());
  reply.body += binary;
  return reply;
}

}  // namespace sessa
