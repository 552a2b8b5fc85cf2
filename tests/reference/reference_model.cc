// The equations of the model in the paper's order and letters. See reference_model.h.
#include "tests/reference/reference_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sessa {
namespace {

using Vec = std::vector<double>;

double HalfToDouble(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  double x = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 31) x = mantissa != 0 ? NAN : INFINITY;
  return h & 0x8000 ? -x : x;
}

// Reads weights and keeps the first error, so that the equations below read as such.
struct Weights {
  const WeightSource& source;
  absl::Status status;
  Vec operator()(const std::string& name, const std::vector<int64_t>& shape) {
    auto w = ReadWeight(source, name, shape);
    status.Update(w.status());
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return w.ok() ? *std::move(w) : Vec(n);
  }
};

// x [T, in], W [out, in], b [out] or empty -> [T, out]
Vec Linear(const Vec& x, int in, const Vec& W, const Vec& b) {
  const int T = x.size() / in, out = W.size() / in;
  Vec y(static_cast<size_t>(T) * out);
  for (int t = 0; t < T; ++t) {
    for (int o = 0; o < out; ++o) {
      double sum = b.empty() ? 0 : b[o];
      for (int i = 0; i < in; ++i) sum += x[t * in + i] * W[o * in + i];
      y[t * out + o] = sum;
    }
  }
  return y;
}

Vec LayerNorm(const Vec& x, int D, const Vec& weight, const Vec& bias, double eps) {
  Vec y(x.size());
  for (size_t row = 0; row < x.size(); row += D) {
    double mean = 0, var = 0;
    for (int i = 0; i < D; ++i) mean += x[row + i] / D;
    for (int i = 0; i < D; ++i) var += (x[row + i] - mean) * (x[row + i] - mean) / D;
    for (int i = 0; i < D; ++i) y[row + i] = (x[row + i] - mean) / std::sqrt(var + eps) * weight[i] + bias[i];
  }
  return y;
}

// Turns the even/odd pairs of each head of x [T, heads, d]; the angles are float32, as published.
void Rope(Vec& x, int heads, int d, float theta) {
  const int T = x.size() / (heads * d);
  for (int t = 0; t < T; ++t) {
    for (int h = 0; h < heads; ++h) {
      double* v = &x[(t * heads + h) * d];
      for (int i = 0; i < d / 2; ++i) {
        const float inv_freq = 1.0f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(d));
        const float angle = static_cast<float>(t) * inv_freq;
        const double c = std::cos(angle), s = std::sin(angle), even = v[2 * i], odd = v[2 * i + 1];
        v[2 * i] = even * c - odd * s;
        v[2 * i + 1] = even * s + odd * c;
      }
    }
  }
}

// softmax over j < n of q . k_j * scale, where k_j starts at k + j * stride.
Vec Softmax(const double* q, const double* k, int n, int width, int stride, double scale) {
  Vec p(n);
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < width; ++i) p[j] += q[i] * k[j * stride + i];
    p[j] *= scale;
  }
  const double max = n > 0 ? *std::max_element(p.begin(), p.end()) : 0;
  double sum = 0;
  for (double& e : p) sum += e = std::exp(e - max);
  for (double& e : p) e /= sum;
  return p;
}

// Columns [begin, begin + D) of x [T, 2 D].
Vec Half(const Vec& x, int D, int begin) {
  Vec y;
  for (size_t row = 0; row < x.size(); row += 2 * D) y.insert(y.end(), &x[row] + begin, &x[row] + begin + D);
  return y;
}

}  // namespace

absl::StatusOr<Vec> ReadWeight(const WeightSource& weights, const std::string& name,
                               const std::vector<int64_t>& shape) {
  auto view = weights.Get(name);
  if (!view.ok()) return view.status();
  if (view->shape != shape) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": wrong shape"));
  size_t n = 1;
  for (int64_t size : shape) n *= size;
  Vec out(n);
  const char* data = static_cast<const char*>(view->data);
  for (size_t i = 0; i < n; ++i) {
    uint16_t half = 0;
    float value = 0;
    if (view->dtype == DType::kF32) {
      std::memcpy(&value, data + 4 * i, 4);
    } else {
      std::memcpy(&half, data + 2 * i, 2);
      value = view->dtype == DType::kBF16 ? std::bit_cast<float>(uint32_t{half} << 16) : HalfToDouble(half);
    }
    out[i] = value;
  }
  return out;
}

absl::StatusOr<ReferenceOutput> ReferenceModel::Forward(const std::vector<int32_t>& token_ids) const {
  const int T = token_ids.size(), D = config_.hidden_size, V = config_.vocab_size;
  const int H = config_.num_heads, K = config_.num_kv_heads, d = D / H, kv = K * d;
  Weights weight{weights_, {}};
  ReferenceOutput output;

  const Vec embed = weight("embed.weight", {V, D});
  Vec x;
  for (int32_t id : token_ids) x.insert(x.end(), embed.begin() + id * D, embed.begin() + (id + 1) * D);

  for (int n = 0; n < config_.num_layers; ++n) {
    const std::string layer = absl::StrCat("layers.", n, "."), mixer = layer + "mixer.";
    ReferenceLayer out;
    const Vec h =
        LayerNorm(x, D, weight(layer + "ln.weight", {D}), weight(layer + "ln.bias", {D}), config_.norm_eps);
    const Vec ag =
        Linear(h, D, weight(layer + "W_in.weight", {2 * D, D}), weight(layer + "W_in.bias", {2 * D}));
    Vec u = Half(ag, D, 0);
    const Vec g = Half(ag, D, D);
    for (double& a : u) a = 0.5 * a * (1 + std::erf(a / std::sqrt(2.0)));

    Vec q_f = Linear(u, D, weight(mixer + "q_proj.weight", {D, D}), weight(mixer + "q_proj.bias", {D}));
    out.k_f = Linear(u, D, weight(mixer + "k_proj.weight", {kv, D}), weight(mixer + "k_proj.bias", {kv}));
    out.v_f = Linear(u, D, weight(mixer + "v_proj.weight", {kv, D}), weight(mixer + "v_proj.bias", {kv}));
    if (config_.use_forward_rope) {
      Rope(q_f, H, d, config_.rope_theta);
      Rope(out.k_f, K, d, config_.rope_theta);
    }
    Vec f(static_cast<size_t>(T) * D);
    for (int t = 0; t < T; ++t) {
      for (int head = 0; head < H; ++head) {
        const int group = head / (H / K);
        const Vec p =
            Softmax(&q_f[t * D + head * d], &out.k_f[group * d], t + 1, d, kv, 1 / std::sqrt(1.0 * d));
        for (int j = 0; j <= t; ++j) {
          for (int i = 0; i < d; ++i) f[t * D + head * d + i] += p[j] * out.v_f[j * kv + group * d + i];
        }
      }
    }
    if (H > 1) f = Linear(f, D, weight(mixer + "out_proj.weight", {D, D}), {});

    const Vec qk =
        Linear(u, D, weight(mixer + "proj_fb.weight", {2 * D, D}), weight(mixer + "proj_fb.bias", {2 * D}));
    const Vec q_b = Half(qk, D, 0);
    out.k_b = Half(qk, D, D);
    Vec gamma = Linear(u, D, weight(mixer + "gamma_ctx.weight", {1, D}), weight(mixer + "gamma_bias", {1}));
    for (double& value : gamma) value = std::get<SessaConfig>(config_.family).gamma_max * std::tanh(value);
    out.s = f;
    for (int t = 1; t < T; ++t) {
      const Vec alpha = Softmax(&q_b[t * D], out.k_b.data(), t, D, D, 1 / std::sqrt(1.0 * D));
      for (int j = 0; j < t; ++j) {
        for (int i = 0; i < D; ++i) out.s[t * D + i] += gamma[t] * alpha[j] * out.s[j * D + i];
      }
    }

    Vec gated = out.s;
    for (size_t i = 0; i < gated.size(); ++i) gated[i] *= g[i];
    const Vec delta =
        Linear(gated, D, weight(layer + "W_out.weight", {D, D}), weight(layer + "W_out.bias", {D}));
    for (size_t i = 0; i < x.size(); ++i) x[i] += delta[i];
    out.hidden = x;
    output.layers.push_back(std::move(out));
  }
  const Vec last = LayerNorm(x, D, weight("norm.weight", {D}), weight("norm.bias", {D}), config_.norm_eps);
  output.logits = Linear(last, D, config_.tie_word_embeddings ? embed : weight("lm_head.weight", {V, D}), {});
  if (!weight.status.ok()) return weight.status;
  return output;
}

}  // namespace sessa
