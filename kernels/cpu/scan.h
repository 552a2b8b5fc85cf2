// Mamba-2's convolution and scan on the CPU: the plain recurrence over tokens, parallel over heads, for
// prompts too. So a chunk, a whole prompt and single steps give the same bits. See kernels/scan.h.
#pragma once

#include <vector>

#include "kernels/cpu/step.h"
#include "kernels/scan.h"

namespace sessa {

// The state of a head is [N][P], transposed, since vectors run along P.
class CpuScan final : public ScanOps {
 public:
  explicit CpuScan(CpuStep* step) : step_(step) {}  // which must outlive this
  void Scan(const ScanCall& call) override;

 private:
  void Convolve(const ScanCall& call);
  void KeepRows(const ScanCall& call);
  void ScanHead(const ScanCall& call, const RowSpan& span, int head);

  CpuStep* const step_;
  std::vector<float> mixed_;       // [rows][channels], x, B and C after the convolution
  std::vector<float> decay_, dt_;  // [rows][H]
  std::vector<float> kept_;        // [spans][K - 1][channels], the rows before the step's
};

}  // namespace sessa
