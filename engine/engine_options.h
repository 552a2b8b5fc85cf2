#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/engine.h"

namespace sessa {

// The options with zeros replaced by their defaults on this machine, but for state_cache_bytes, which Workers
// knows once the weights are loaded. INVALID_ARGUMENT, naming the option. own_process: each rank has one, and
// so all cores of its machine or container.
absl::StatusOr<EngineOptions> CompleteOptions(EngineOptions options, const ModelConfig& config,
                                              bool own_process = false);

// What linears round their input to when nobody said: bf16 where the weights are of bf16 and this CPU
// multiplies these faster than floats, else f32. Reads the weights' dtype, the device and `amx`.
DType AutoActivationDType(const EngineOptions& options);

// What of the cache does not work as its operator will think, with what to do; empty when all does. `options`
// are the engine's, num_slots its EngineStats'.
std::string PrefixCacheWarning(const EngineOptions& options, int num_slots);

// Without prefix caching more pages than these could never be used: all sequences at their longest.
int MaxUsefulPages(const EngineOptions& options);

// The context must fit the cache, or a request within it could wait for ever: one that was asked for is
// refused (INVALID_ARGUMENT), the model's own is cut.
absl::Status FitMaxModelLen(bool asked_for, int num_pages, EngineOptions* options);

// No more sequences run than there are slots. By default a quarter of the slots is left for snapshots: each
// sequence keeps up to two, and one alone is what the next turn of its conversation starts from; more slots
// for them would take sequences from the step, which decoding pays for.
void FitMaxNumSeqs(bool asked_for, int num_slots, EngineOptions* options);

// The cores that a line of cgroup v2's cpu.max ("QUOTA PERIOD") pays for, rounded up; 0: no limit, or not
// such a line.
int CoresOfQuota(absl::string_view cpu_max);

}  // namespace sessa
