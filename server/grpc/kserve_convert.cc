// See kserve_convert.h.
#include "server/grpc/kserve_convert.h"

#include "server/core/errors.h"

namespace sessa {
namespace {

namespace pb = inference;

boost::json::value FromProto(const pb::InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case pb::InferParameter::kBoolParam: return parameter.bool_param();
    case pb::InferParameter::kInt64Param: return parameter.int64_param();
    case pb::InferParameter::kStringParam: return boost::json::string(parameter.string_param());
    case pb::InferParameter::kDoubleParam: return parameter.double_param();
    case pb::InferParameter::kUint64Param: return parameter.uint64_param();
    case pb::InferParameter::PARAMETER_CHOICE_NOT_SET: break;
  }
  return nullptr;
}

absl::Status ReadContents(const pb::InferTensorContents& contents, KserveTensor* tensor) {
  if (tensor->datatype == "BYTES") {
    tensor->texts.assign(contents.bytes_contents().begin(), contents.bytes_contents().end());
  } else if (tensor->datatype == "INT64") {
    tensor->ints.assign(contents.int64_contents().begin(), contents.int64_contents().end());
  } else if (tensor->datatype == "INT32") {
    tensor->ints.assign(contents.int_contents().begin(), contents.int_contents().end());
  } else {
    return FieldError(tensor->name, "must be BYTES, INT64 or INT32");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KserveInfer> FromProto(const pb::ModelInferRequest& message) {
  KserveInfer infer;
  infer.id = message.id();
  const bool raw = message.raw_input_contents_size() > 0;
  if (raw && message.raw_input_contents_size() != message.inputs_size())
    return FieldError("raw_input_contents", "must have one element for each input");
  for (int i = 0; i < message.inputs_size(); ++i) {
    const pb::ModelInferRequest::InferInputTensor& input = message.inputs(i);
    KserveTensor& tensor = infer.inputs.emplace_back();
    tensor.name = input.name();
    tensor.datatype = input.datatype();
    tensor.shape.assign(input.shape().begin(), input.shape().end());
    absl::Status read =
        raw ? ReadRaw(message.raw_input_contents(i), &tensor) : ReadContents(input.contents(), &tensor);
    if (!read.ok()) return read;
  }
  for (const auto& output : message.outputs()) infer.outputs.push_back(output.name());
  for (const auto& [name, parameter] : message.parameters()) infer.parameters[name] = FromProto(parameter);
  return infer;
}

pb::ModelInferResponse ToProto(const std::string& model, const std::string& id,
                               const std::vector<KserveTensor>& outputs) {
  pb::ModelInferResponse message;
  message.set_model_name(model);
  message.set_model_version(kKserveVersion);
  message.set_id(id);
  for (const KserveTensor& tensor : outputs) {
    pb::ModelInferResponse::InferOutputTensor* output = message.add_outputs();
    output->set_name(tensor.name);
    output->set_datatype(tensor.datatype);
    output->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    message.add_raw_output_contents(WriteRaw(tensor));
  }
  return message;
}

}  // namespace sessa
