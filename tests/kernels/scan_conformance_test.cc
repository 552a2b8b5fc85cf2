// Mamba-2's convolution and scan on every backend: against double precision, the same bits in every cut and
// batch, and from every snapshot.
#include "tests/kernels/conformance.h"

namespace sessa {
namespace {

struct Shape {
  int H, P, G, N, K;
  bool has_bias = true;
  int inner() const { return H * P; }
  int channels() const { return inner() + 2 * G * N; }
};

class ScanTest : public ConformanceTest {
 protected:
  static constexpr int kSlots = 8;
  struct Sequence {
    std::vector<float> z, xbc, dt;  // by position
    std::vector<float> out;
    int num_tokens, num_done = 0;
    int slot, from = -1;              // from: -1, the slot itself
    std::vector<Snapshot> snapshots;  // of the next step
  };

  void SetUp() override {
    ConformanceTest::SetUp();
    if (!IsSkipped() && backend_->scan() == nullptr) GTEST_SKIP() << "no scan on this device";
  }

  // Slots hold what a sequence before may have left.
  void Start(const Shape& shape, const std::vector<int>& lengths) {
    shape_ = shape;
    random_.seed(shape.H * 1000 + shape.N);
    conv_weight_ = Random(shape.K * shape.channels(), 0.5f), conv_bias_ = Random(shape.channels(), 0.3f);
    a_log_ = Random(shape.H), d_ = Random(shape.H), dt_bias_ = Random(shape.H);
    const int64_t kept = (shape.K - 1) * shape.channels(), state = int64_t{shape.inner()} * shape.N;
    conv_ = {kept, Allocate(sizeof(float) * kSlots * kept)};
    ssm_ = {state, Allocate(sizeof(float) * kSlots * state)};
    for (SlotTensor* t : {&conv_, &ssm_}) {
      const auto garbage = Random(kSlots * t->floats);
      backend_->CopyIn(garbage.data(), garbage.size() * sizeof(float), t->data.data());
      ASSERT_TRUE(backend_->Synchronize().ok());
    }
    sequences_.clear();
    for (int n : lengths) {
      Sequence& s = sequences_.emplace_back();
      s.num_tokens = n, s.slot = static_cast<int>(sequences_.size()) - 1;
      s.z = Random(n * shape.inner()), s.xbc = Random(n * shape.channels()), s.dt = Random(n * shape.H, 2);
      if (n > 3) s.dt[3 * shape.H] = 40;  // beyond where softplus is the identity
    }
  }

  void Step(const std::vector<int>& rows) {
    StepRows step;
    std::vector<float> z, xbc, dt;
    int n = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      Sequence& s = sequences_[i];
      if (rows[i] == 0) continue;
      step.spans.push_back({n, rows[i], s.num_done, {}, s.slot, s.from < 0 ? s.slot : s.from, s.snapshots});
      n += rows[i];
      const auto add = [&](const std::vector<float>& from, int width, std::vector<float>* to) {
        to->insert(to->end(), from.begin() + s.num_done * width,
                   from.begin() + (s.num_done + rows[i]) * width);
      };
      add(s.z, shape_.inner(), &z), add(s.xbc, shape_.channels(), &xbc), add(s.dt, shape_.H, &dt);
    }
    step.token_ids.resize(n), step.positions.resize(n), step.logit_rows.resize(n);
    std::vector<int> head_group;
    for (int h = 0; h < shape_.H; ++h) head_group.push_back(h / (shape_.H / shape_.G));
    const Buffer weight = Table(conv_weight_), bias = Table(conv_bias_), a_log = Table(a_log_), d = Table(d_),
                 dt_bias = Table(dt_bias_);
    const Device dz = Put(z, n, shape_.inner(), 3), dxbc = Put(xbc, n, shape_.channels()),
                 ddt = Put(dt, n, shape_.H, 1), out = Empty(n, shape_.inner(), 5);
    backend_->BeginStep(step);
    backend_->scan()->Scan({dz.matrix,
                            dxbc.matrix,
                            ddt.matrix,
                            out.matrix,
                            {shape_.H, shape_.P, shape_.G, shape_.N, shape_.K, head_group},
                            {&weight, shape_.has_bias ? &bias : nullptr, &a_log, &d, &dt_bias},
                            &conv_,
                            &ssm_});
    const auto all = Get(out);
    for (size_t i = 0, row = 0; i < rows.size(); ++i) {
      Sequence& s = sequences_[i];
      s.out.insert(s.out.end(), all.begin() + row * shape_.inner(),
                   all.begin() + (row + rows[i]) * shape_.inner());
      row += rows[i];
      s.num_done += rows[i];
      s.from = -1;
      s.snapshots.clear();
    }
  }
  // One sequence to its end.
  void Run(int sequence, int chunk) {
    Sequence& s = sequences_[sequence];
    while (s.num_done < s.num_tokens) {
      std::vector<int> rows(sequences_.size());
      rows[sequence] = std::min(chunk, s.num_tokens - s.num_done);
      Step(rows);
    }
  }

  std::vector<double> Expected(const Sequence& in) const {
    const auto [H, P, G, N, K, has_bias] = shape_;
    const int channels = shape_.channels(), inner = shape_.inner();
    const auto silu = [](double x) { return x / (1 + std::exp(-x)); };
    std::vector<double> state(inner * N), out;
    for (int t = 0; t < in.num_tokens; ++t) {
      std::vector<double> mixed(channels);
      for (int c = 0; c < channels; ++c) {
        double sum = has_bias ? conv_bias_[c] : 0;
        for (int k = 0; k < K; ++k) {
          if (const int from = t - K + 1 + k; from >= 0)
            sum += double{conv_weight_[k * channels + c]} * in.xbc[from * channels + c];
        }
        mixed[c] = silu(sum);
      }
      for (int i = 0; i < inner; ++i) {
        const int h = i / P, g = h / (H / G);
        const double dt = std::log1p(std::exp(double{in.dt[t * H + h]} + dt_bias_[h]));
        const double decay = std::exp(-std::exp(double{a_log_[h]}) * dt);
        double y = d_[h] * mixed[i];
        for (int n = 0; n < N; ++n) {
          double& s = state[i * N + n];
          s = decay * s + dt * mixed[i] * mixed[inner + g * N + n];
          y += s * mixed[inner + (G + g) * N + n];
        }
        out.push_back(y * silu(in.z[t * inner + i]));
      }
    }
    return out;
  }
  void ExpectResults() {
    for (const Sequence& s : sequences_) ExpectNear(Expected(s), s.out, 2e-6, 0, {"scan", shape_.inner()});
  }

  Shape shape_;
  std::vector<float> conv_weight_, conv_bias_, a_log_, d_, dt_bias_;
  SlotTensor conv_, ssm_;
  std::vector<Sequence> sequences_;
};

TEST_P(ScanTest, EveryShape) {
  for (const Shape& shape :
       {Shape{1, 1, 1, 1, 1}, Shape{3, 5, 1, 7, 4}, Shape{2, 64, 1, 128, 4}, Shape{4, 33, 2, 36, 2, false},
        Shape{6, 8, 3, 16, 5}, Shape{1, 40, 1, 200, 4}, Shape{2, 32, 2, 64, 3}}) {
    SCOPED_TRACE(testing::Message() << "H " << shape.H << " P " << shape.P << " N " << shape.N);
    Start(shape, {19, 2, 34});
    Step({17, 2, 1});
    Step({1, 0, 33});
    Step({1, 0, 0});
    ExpectResults();
  }
}

TEST_P(ScanTest, EveryCutAndBatchIsTheSameBits) {
  std::vector<float> whole;
  for (int chunk : {50, 1, 2, 3, 4, 16, 17, 49}) {
    SCOPED_TRACE(chunk);
    Start({4, 12, 2, 20, 4}, {50, 9});
    if (chunk % 2 == 0) Step({0, 5});
    Run(0, chunk);
    if (whole.empty()) whole = sequences_[0].out;
    EXPECT_EQ(whole, sequences_[0].out);
    Start({4, 12, 2, 20, 4}, {50, 9});
    Step({chunk, 9});  // beside another one
    Run(0, chunk);
    EXPECT_EQ(whole, sequences_[0].out);
  }
}

// What follows a snapshot is the same from it as without it, also when it is near the beginning, or after a
// step of one row; and it stays as it was.
TEST_P(ScanTest, SnapshotsContinue) {
  const Shape shape{2, 6, 1, 10, 4};
  Start(shape, {30});
  sequences_[0].snapshots = {{0, 3}, {1, 4}, {16, 5}};
  Step({18});
  sequences_[0].snapshots = {{0, 6}};
  Step({1});
  Run(0, 30);
  const std::vector<float> whole = sequences_[0].out;
  for (auto [tokens, slot] : {std::pair{1, 3}, {2, 4}, {17, 5}, {19, 6}}) {
    for (int time = 0; time < 2; ++time) {
      SCOPED_TRACE(testing::Message() << "snapshot after " << tokens << ", time " << time);
      Sequence& s = sequences_[0];
      s.out.clear(), s.num_done = tokens, s.slot = 7, s.from = slot;
      Run(0, time == 0 ? 30 : 2);
      EXPECT_EQ(s.out, std::vector<float>(whole.begin() + tokens * shape.inner(), whole.end()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ScanTest, testing::ValuesIn(TestDevices()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sessa
