// KServe v2's view of a text model (the Open Inference Protocol, with Triton's extensions), apart from its
// two protocols: what goes in and comes out as tensors, and how these become a generation and are made of
// one.
//
//   in:  text_input BYTES [1], or input_ids INT64 or INT32 [n]; sampling as parameters of the request
//   out: text_output BYTES [1], output_ids INT64 [n], finish_reason BYTES [1]; where several answers come,
//   each has
//        what is new, and the finish reason is empty but in the last
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "boost/json/object.hpp"
#include "server/core/generation.h"
#include "server/core/generation_request.h"

namespace sessa {

inline constexpr char kKserveVersion[] = "1";  // of the model, the only one there is

struct KserveTensor {
  std::string name, datatype;
  std::vector<int64_t> shape;
  std::vector<std::string> texts = {};  // of BYTES
  std::vector<int64_t> ints = {};       // of INT32 and INT64
};

// A tensor of the model, as metadata and configuration list it.
struct KserveTensorSpec {
  const char* name;
  const char* datatype;
  const char* config_type;  // Triton's name of it
  int64_t dim;              // -1: any
};
absl::Span<const KserveTensorSpec> KserveInputs();
absl::Span<const KserveTensorSpec> KserveOutputs();
absl::Span<const char* const> KserveExtensions();

// The tensor's elements in the binary form that both protocols have: little endian, BYTES with 4 bytes of
// length before each. INVALID_ARGUMENT, naming the tensor, where they do not fit its datatype and shape.
absl::Status ReadRaw(absl::string_view raw, KserveTensor* tensor);
std::string WriteRaw(const KserveTensor& tensor);

struct KserveInfer {
  std::string id;
  std::vector<KserveTensor> inputs;
  std::vector<std::string> outputs;  // that are wanted; empty: all
  boost::json::object parameters;
};

// `stream`: its answers come as they are made.
absl::StatusOr<GenerationRequest> ToGeneration(const KserveInfer& infer, bool stream);

// What has come since the last answer.
class KserveAnswer {
 public:
  void Add(TextDelta delta);
  bool empty() const { return text_.empty() && ids_.empty() && finish_ == FinishReason::kNone; }
  bool finished() const { return finish_ != FinishReason::kNone; }
  // The tensors of `outputs`, or all; forgets them.
  std::vector<KserveTensor> Take(absl::Span<const std::string> outputs);

 private:
  std::string text_;
  std::vector<int64_t> ids_;
  FinishReason finish_ = FinishReason::kNone;
};

}  // namespace sessa
