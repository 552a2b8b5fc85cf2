#include "kernels/cuda/scan.h"

#include "absl/strings/str_cat.h"

namespace sessa::cuda {

void StateScan::Scan(const ScanCall& call) {
  const ScanShape& shape = call.shape;
  if (shape.state_size > kMaxScanStates) {
    return context_->Fail(
        absl::UnimplementedError(absl::StrCat("the CUDA backend scans states of at most ", kMaxScanStates,
                                              " columns, the model has ", shape.state_size)));
  }
  const ScanWeights& w = call.weights;
  ScanArgs args = {};
  args.z = call.z, args.xbc = call.xbc, args.dt = call.dt, args.out = call.out;
  queue_->Pad(&args.z, &args.xbc, &args.dt, &args.out);
  args.num_heads = shape.num_heads, args.head_dim = shape.head_dim;
  args.num_groups = shape.num_groups, args.state_size = shape.state_size;
  args.conv_kernel = shape.conv_kernel;
  args.head_group = step_->HeadGroups(shape.head_group);
  args.conv_weight = w.conv_weight->floats();
  if (w.conv_bias != nullptr) args.conv_bias = w.conv_bias->floats();
  args.a_log = w.a_log->floats(), args.d = w.d->floats(), args.dt_bias = w.dt_bias->floats();
  args.conv = {call.conv->data.floats(), call.conv->floats};
  args.ssm = {call.ssm->data.floats(), call.ssm->floats};
  args.spans = step_->slot_spans();
  args.num_spans = step_->num_spans();
  queue_->Enqueue(&ScanRows, context_->stream(), args);
}

}  // namespace sessa::cuda
