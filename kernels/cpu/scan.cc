#include "kernels/cpu/scan.h"

#include <algorithm>
#include <cmath>

#include "absl/container/inlined_vector.h"
#include "kernels/cpu/scan_loops.h"

namespace sessa {
namespace {

// log(1 + e^x); beyond 20 it is x in float32.
float Softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

}  // namespace

void CpuScan::Scan(const ScanCall& call) {
  Convolve(call);
  KeepRows(call);
  const std::vector<RowSpan>& spans = step_->rows().spans;
  const int H = call.shape.num_heads, rows = call.xbc.rows;
  float* decay = Grown(&decay_, int64_t{rows} * H);
  float* dt = Grown(&dt_, int64_t{rows} * H);
  step_->ForRows(rows, [&](int r) {
    for (int h = 0; h < H; ++h) {
      const float step = Softplus(call.dt.row(r)[h] + call.weights.dt_bias->floats()[h]);
      dt[int64_t{r} * H + h] = step;
      decay[int64_t{r} * H + h] = std::exp(-std::exp(call.weights.a_log->floats()[h]) * step);
    }
  });
  step_->pool()->ParallelFor(static_cast<int>(spans.size()) * H,
                             [&](int i, int) { ScanHead(call, spans[i / H], i % H); });
}

void CpuScan::Convolve(const ScanCall& call) {
  const std::vector<RowSpan>& spans = step_->rows().spans;
  const int channels = call.shape.channels(), before = call.shape.conv_kernel - 1;
  const int64_t kept_size = int64_t{before} * channels;
  float* kept = Grown(&kept_, kept_size * std::ssize(spans));
  for (size_t i = 0; i < spans.size(); ++i) {
    float* rows = kept + static_cast<int64_t>(i) * kept_size;
    if (spans[i].start == 0) {
      std::fill_n(rows, kept_size, 0.0f);
    } else {
      std::copy_n(call.conv->slot(spans[i].state_from), kept_size, rows);
    }
  }
  float* mixed = Grown(&mixed_, int64_t{call.xbc.rows} * channels);
  const absl::Span<const int> first_rows = step_->FirstRows(spans);
  step_->ForRows(call.xbc.rows, [&](int row) {
    const auto i = std::upper_bound(first_rows.begin(), first_rows.end(), row) - first_rows.begin() - 1;
    const RowSpan& span = spans[i];
    const int r = row - first_rows[i];
    absl::InlinedVector<const float*, 8> taps(before + 1);
    for (int k = 0; k <= before; ++k) {
      const int from = r - before + k;
      taps[k] = from >= 0 ? call.xbc.row(span.first_row + from)
                          : kept + i * kept_size + int64_t{from + before} * channels;
    }
    cpu::ConvRow(taps.data(), before + 1, call.weights.conv_weight->floats(), channels,
                 call.weights.conv_bias == nullptr ? nullptr : call.weights.conv_bias->floats(), channels,
                 mixed + int64_t{span.first_row + r} * channels);
  });
}

// The last rows of xbc into the sequences' slots and snapshots.
void CpuScan::KeepRows(const ScanCall& call) {
  const std::vector<RowSpan>& spans = step_->rows().spans;
  const int channels = call.shape.channels(), before = call.shape.conv_kernel - 1;
  for (size_t i = 0; i < spans.size(); ++i) {
    const RowSpan& span = spans[i];
    const float* kept = kept_.data() + static_cast<int64_t>(i) * before * channels;
    const auto keep = [&](int last, int32_t slot) {
      for (int k = 0; k < before; ++k) {
        const int from = last - before + 1 + k;
        std::copy_n(
            from >= 0 ? call.xbc.row(span.first_row + from) : kept + int64_t{from + before} * channels,
            channels, call.conv->slot(slot) + int64_t{k} * channels);
      }
    };
    for (const Snapshot& snapshot : span.snapshots) keep(snapshot.row, snapshot.slot);
    keep(span.num_rows - 1, span.slot);
  }
}

void CpuScan::ScanHead(const ScanCall& call, const RowSpan& span, int head) {
  const ScanShape& shape = call.shape;
  const int P = shape.head_dim, N = shape.state_size, H = shape.num_heads, channels = shape.channels();
  const int64_t size = int64_t{N} * P;
  const auto state_in = [&](int32_t slot) { return call.ssm->slot(slot) + head * size; };
  float* state = state_in(span.slot);
  if (span.start == 0) {
    std::fill_n(state, size, 0.0f);
  } else if (span.state_from != span.slot) {
    std::copy_n(state_in(span.state_from), size, state);
  }
  const auto run = [&](int begin, int end) {
    if (begin == end) return;
    const int row = span.first_row + begin;
    const float* mixed = mixed_.data() + int64_t{row} * channels;
    const float* b = mixed + shape.inner() + int64_t{shape.head_group[head]} * N;
    cpu::Scan({end - begin, P, N, mixed + head * P, b, b + int64_t{shape.num_groups} * N,
               call.z.row(row) + head * P, channels, channels, call.z.stride,
               &decay_[int64_t{row} * H + head], &dt_[int64_t{row} * H + head], H,
               call.weights.d->floats()[head], call.out.row(row) + head * P, call.out.stride},
              state);
  };
  int done = 0;
  for (const Snapshot& snapshot : span.snapshots) {
    run(done, snapshot.row + 1);
    done = snapshot.row + 1;
    std::copy_n(state, size, state_in(snapshot.slot));
  }
  run(done, span.num_rows);
}

}  // namespace sessa
