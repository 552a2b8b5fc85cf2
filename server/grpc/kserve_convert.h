// Messages of KServe's gRPC to what both of its protocols share (server/kserve), and back.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/inference.pb.h"
#include "server/kserve/tensors.h"

namespace sessa {

// INVALID_ARGUMENT, naming the tensor, where a tensor's contents are not of its datatype.
absl::StatusOr<KserveInfer> FromProto(const inference::ModelInferRequest& message);

// The tensors, as raw_output_contents.
inference::ModelInferResponse ToProto(const std::string& model, const std::string& id,
                                      const std::vector<KserveTensor>& outputs);

}  // namespace sessa
