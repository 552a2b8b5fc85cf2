// See mixes.h.
#include "loadtest/mixes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sessa::loadtest {
namespace {

constexpr int K = 1024;

// The fields that a mix sets, in the order of WorkloadPart.
WorkloadPart Part(const char* kind, double weight, Lengths input, Lengths output) {
  WorkloadPart part;
  part.kind = kind;
  part.weight = weight;
  part.input = input;
  part.output = output;
  return part;
}

WorkloadPart WithPrefix(WorkloadPart part, int num_prefixes, int prefix_tokens) {
  part.num_prefixes = num_prefixes;
  part.prefix_tokens = prefix_tokens;
  return part;
}

WorkloadPart WithTurns(WorkloadPart part, Lengths turns, Lengths turn_input) {
  part.turns = turns;
  part.turn_input = turn_input;
  return part;
}

int64_t LongestOf(const std::vector<WorkloadPart>& parts) {
  int64_t longest = 0;
  for (const WorkloadPart& part : parts) longest = std::max(longest, part.MaxContext());
  return longest;
}

}  // namespace

const std::vector<Mix>& Mixes() {
  static const auto* const mixes = new std::vector<Mix>{
      {"chat",
       "Conversations of 2 to 8 turns that begin with one of 4 system prompts of 512 tokens: short "
       "questions, answers "
       "of 32 to 768 tokens, contexts that may grow to 13K.",
       {WithTurns(WithPrefix(Part("chat", 1, Lengths::LogNormal(768, 0.4, 544, 2 * K),
                                  Lengths::LogNormal(192, 0.7, 32, 768)),
                             4, 512),
                  Lengths::Uniform(2, 8), Lengths::LogNormal(96, 0.8, 8, 768))}},
      {"documents",
       "One question each about a document of its own of 8K, 16K, 32K or 64K tokens, shorter ones more "
       "often: prefill "
       "is nearly all of the work.",
       {Part("documents 8K", 8, Lengths::Fixed(8 * K), Lengths::Uniform(64, 256)),
        Part("documents 16K", 4, Lengths::Fixed(16 * K), Lengths::Uniform(64, 256)),
        Part("documents 32K", 2, Lengths::Fixed(32 * K), Lengths::Uniform(64, 256)),
        Part("documents 64K", 1, Lengths::Fixed(64 * K), Lengths::Uniform(64, 256))}},
      {"agents",
       "Agents whose prompts begin with the same 4K of instructions and tools, and take 4 to 12 steps: each "
       "adds a "
       "tool's output to the context and gets a short call as its answer.",
       {WithTurns(WithPrefix(Part("agents", 1, Lengths::Uniform(4 * K + 128, 5 * K),
                                  Lengths::LogNormal(96, 0.6, 16, 512)),
                             1, 4 * K),
                  Lengths::Uniform(4, 12), Lengths::LogNormal(256, 0.9, 16, 2 * K))}},
      {"one-huge",
       "Short chats of 256 to 1K tokens, and one request in fifty with 64K: what a huge prompt does to the "
       "others.",
       {Part("small", 49, Lengths::Uniform(256, 1 * K), Lengths::Uniform(64, 256)),
        Part("huge", 1, Lengths::Fixed(64 * K), Lengths::Fixed(128))}},
  };
  return *mixes;
}

absl::StatusOr<std::vector<WorkloadPart>> FindMix(absl::string_view name) {
  std::string names;
  for (const Mix& mix : Mixes()) {
    if (name == mix.name) return mix.parts;
    absl::StrAppend(&names, names.empty() ? "" : ", ", mix.name);
  }
  return absl::InvalidArgumentError(absl::StrCat("there is no mix '", name, "', but ", names));
}

std::string MixList() {
  std::string list;
  for (const Mix& mix : Mixes()) {
    absl::StrAppend(&list, mix.name, "  (longest request: ", LongestOf(mix.parts), " tokens)\n  ",
                    mix.description, "\n");
  }
  return list;
}

absl::StatusOr<std::vector<WorkloadPart>> FitMix(std::vector<WorkloadPart> parts, int max_context) {
  double factor = std::min(1.0, static_cast<double>(max_context) / static_cast<double>(LongestOf(parts)));
  if (factor == 1) return parts;
  // Rounding may add a token to each length: a few steps down make up for it.
  for (int i = 0; i < 100; ++i, factor *= 0.99) {
    std::vector<WorkloadPart> scaled;
    for (const WorkloadPart& part : parts) scaled.push_back(part.Scaled(factor));
    if (LongestOf(scaled) <= max_context) return scaled;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      max_context, " tokens are too few for a request of this work, which has up to ", LongestOf(parts)));
}

}  // namespace sessa::loadtest
