#include "engine/prefill_budget.h"

#include <algorithm>

#include "kernels/tile.h"  // where the kernels cut blocks of rows

namespace sessa {
namespace {

constexpr double kDear = 1.05;    // a chunk's rows cost this many times those of an efficient one: stretch
constexpr double kAligned = .75;  // of the rows that fit, given up to end a chunk where a tile does

}  // namespace

void PrefillBudget::BeginStep(const StepFeatures& decodes) {
  has_decodes_ = decodes.rows > 0;
  decode_time_ = model_.Predict(decodes);
  limit_ = std::max(target_, kDecodeLimit * decode_time_);
  if (!has_decodes_) debt_ = absl::ZeroDuration();  // nobody felt it
}

int PrefillBudget::Fit(const StepFeatures& planned, int start, int room, absl::Duration limit) const {
  return model_.MaxPrefillRows(planned, start, room, limit);
}

absl::Duration PrefillBudget::ChunkTime(const StepFeatures& planned, int start, int rows) const {
  StepFeatures with = planned;
  with.AddPrefill(start, rows);
  return model_.Predict(with) - model_.Predict(planned);
}

int PrefillBudget::Rows(const StepFeatures& planned, int start, int remaining, int room, bool first) const {
  room = std::min(room, remaining);
  const absl::Duration limit = first && !has_decodes_ ? kAlone * target_ : limit_;
  int rows = Fit(planned, start, room, limit);
  if (rows < room) {  // a chunk that ends inside a tile makes the next one read the past once more
    const int aligned = (start + rows) / kTileTokens * kTileTokens - start;
    if (aligned >= kAligned * rows) rows = aligned;
  }
  if (!first) return rows >= std::min(remaining, kLeastRows) ? rows : 0;
  const int efficient = std::min(room, kEfficientRows);
  if (rows >= efficient) return rows;
  if (rows >= std::min(room, kLeastRows) &&
      ChunkTime(planned, start, rows) / rows < kDear * ChunkTime(planned, start, efficient) / efficient)
    return rows;
  if (debt_ > absl::ZeroDuration()) return 0;
  const absl::Duration one_row = model_.Predict(planned) + ChunkTime(planned, start, 1);
  return std::max(1, Fit(planned, start, efficient, std::max({limit, kStretch * limit_, 2 * one_row})));
}

void PrefillBudget::EndStep(const StepFeatures& planned) {
  if (!has_decodes_) return;
  debt_ = std::max(absl::ZeroDuration(), debt_ + model_.Predict(planned) - limit_);
}

}  // namespace sessa
