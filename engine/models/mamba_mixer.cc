#include "engine/models/mamba_mixer.h"

#include "kernels/convert.h"

namespace sessa {

MambaMixer::MambaMixer(const ModelRank& rank)
    : rank_(rank),
      config_(*rank.config->mamba()),
      heads_(config_.num_heads, 1, *rank.communicator),
      inner_(heads_.Times(config_.head_dim)) {
  for (int h = heads_.begin(); h < heads_.end(); ++h)
    head_group_.push_back(h / (config_.num_heads / config_.num_groups));
}

ScanShape MambaMixer::ShapeOfScan() const {
  return {heads_.size(),      config_.head_dim,    config_.num_groups,
          config_.state_size, config_.conv_kernel, head_group_};
}

StateShape MambaMixer::Shape() const {
  const int64_t channels = ShapeOfScan().channels();
  return {{}, {(config_.conv_kernel - 1) * channels, int64_t{inner_.size()} * config_.state_size}};
}

Buffer MambaMixer::LoadConv(const std::string& name, int taps, Loader* load) const {
  const int inner = config_.inner_size(), all = config_.conv_size();
  const TensorView view = taps > 0 ? load->View(name, {all, 1, taps}) : load->View(name, {all});
  if (!load->status().ok()) return {};
  std::vector<float> values;
  for (int i = 0; i < std::max(1, taps); ++i) {
    for (int c = 0; c < all; ++c) {
      if (c < inner && (c < inner_.begin() || c >= inner_.end())) continue;
      values.push_back(ToFloat(view.data, int64_t{c} * std::max(1, taps) + i, view.dtype));
    }
  }
  return load->Floats(values);
}

void MambaMixer::Load(const std::string& prefix, Loader* load) {
  const int D = rank_.config->hidden_size, I = config_.inner_size(), H = config_.num_heads;
  const int mixed = I + config_.conv_size();  // columns of in_proj before dt
  const bool bias = config_.use_bias;
  const auto in = [&](int begin, int end) {
    return load->Linear(prefix + "in_proj", {mixed + H, D, begin, end, bias});
  };
  Layer& l = layers_.emplace_back();
  l.z = in(inner_.begin(), inner_.end());
  l.x = in(I + inner_.begin(), I + inner_.end());
  l.bc = in(2 * I, mixed);
  l.dt = in(mixed + heads_.begin(), mixed + heads_.end());
  l.conv_weight = LoadConv(prefix + "conv1d.weight", config_.conv_kernel, load);
  if (config_.use_conv_bias) l.conv_bias = LoadConv(prefix + "conv1d.bias", 0, load);
  l.a_log = load->Vector(prefix + "A_log", {H}, heads_.begin(), heads_.end());
  l.d = load->Vector(prefix + "D", {H}, heads_.begin(), heads_.end());
  l.dt_bias = load->Vector(prefix + "dt_bias", {H}, heads_.begin(), heads_.end());
  l.norm = load->Vector(prefix + "norm.weight", {I});
  l.out = load->Linear(prefix + "out_proj", {D, I, rank_.columns.begin(), rank_.columns.end(), bias});
}

absl::Status MambaMixer::AllocateActivations() {
  const size_t rows = rank_.options.max_rows;
  return AllocateFloats(rank_.backend, {{&z_, rows * inner_.size()},
                                        {&xbc_, rows * ShapeOfScan().channels()},
                                        {&dt_, rows * heads_.size()},
                                        {&y_, rows * config_.inner_size()}});
}

void MambaMixer::Run(int layer, Matrix in, const Norm& norm, Matrix out, Epilogue epilogue,
                     LayerState* state) {
  const Layer& l = layers_[layer];
  const ScanShape shape = ShapeOfScan();
  const int rows = in.rows, own = inner_.size();
  const Matrix z = RowsOf(z_, rows, own), xbc = RowsOf(xbc_, rows, shape.channels()),
               dt = RowsOf(dt_, rows, heads_.size()), y = RowsOf(y_, rows, config_.inner_size());

  rank_.backend->Linear(
      in, norm,
      {{&l.z, z}, {&l.x, xbc.Columns(0, own)}, {&l.bc, xbc.Columns(own, shape.channels())}, {&l.dt, dt}});
  const Buffer* conv_bias = config_.use_conv_bias ? &l.conv_bias : nullptr;
  rank_.backend->scan()->Scan({z,
                               xbc,
                               dt,
                               inner_.Of(y),
                               shape,
                               {&l.conv_weight, conv_bias, &l.a_log, &l.d, &l.dt_bias},
                               &state->slots[0],
                               &state->slots[1]});
  rank_.communicator->AllGather({{y, inner_.bounds()}});
  const LinearCall call{&l.out, out, epilogue};
  rank_.backend->Linear(y, {Norm::Kind::kRms, &l.norm, nullptr, config_.norm_eps, config_.num_groups},
                        {&call, 1});
}

}  // namespace sessa
