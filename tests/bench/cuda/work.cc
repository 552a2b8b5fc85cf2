#include "tests/bench/cuda/work.h"

namespace sessa {
namespace {

double LayerWeights(const ModelConfig& c) {
  const double D = c.hidden_size;
  return 7 * D * D + 2 * D * c.kv_size();
}
double HeadWeights(const ModelConfig& c) { return static_cast<double>(c.vocab_size) * c.hidden_size; }
// Of one token in one layer.
double StateValues(const ModelConfig& c) { return 2.0 * c.hidden_size + 2.0 * c.kv_size(); }

}  // namespace

ModelConfig ConfigOf(Shape shape) {
  ModelConfig c;
  c.hidden_size = shape == Shape::kA ? 1024 : shape == Shape::kB ? 2048 : 4096;
  c.num_layers = shape == Shape::kC ? 32 : 24;
  c.num_heads = c.hidden_size / (shape == Shape::kA ? 64 : 128);
  c.num_kv_heads = c.num_heads / 4;
  c.vocab_size = 32000;
  c.max_position_embeddings = 1 << 20;
  return c;
}

Work LinearWork(int rows, int n, int k) { return {2.0 * n * k + 4.0 * rows * (n + k), 2.0 * rows * n * k}; }

Work FeedbackReadWork(const ModelConfig& c, int batch, int rows, int context) {
  const double D = c.hidden_size;
  const double own = rows * (rows - 1.0) / 2;  // pairs of a row and one before it: their scores alone
  return {batch * (4 * D * context + 8 * D * rows), batch * (4 * D * rows * context + 2 * D * own)};
}

Work AttendWork(const ModelConfig& c, int batch, int rows, int context) {
  const double D = c.hidden_size, seen = context + (rows + 1) / 2.0;  // by a row, on average
  return {batch * (4.0 * c.kv_size() * (context + rows) + 8 * D * rows), 4 * D * batch * rows * seen};
}

Work StrsmWork(int rows, int D) {
  const double pairs = rows * (rows - 1.0) / 2;
  return {4 * pairs + 8.0 * rows * D, 2 * D * pairs};
}

Work StepWork(const ModelConfig& c, int batch, int rows, int context) {
  const double seen = context + rows / 2.0, attention = 8.0 * c.hidden_size;
  return {2 * (c.num_layers * LayerWeights(c) + HeadWeights(c)) +
              2.0 * c.num_layers * batch * (context + rows) * StateValues(c),
          batch * (rows * (2 * c.num_layers * LayerWeights(c) + c.num_layers * seen * attention) +
                   2 * HeadWeights(c))};
}

}  // namespace sessa
