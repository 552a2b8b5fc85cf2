// See workload.h. Random streams: (seed, conversation, turn) for a request; (seed, kPrefixStream, part and
// number) for a shared prefix; (seed, kTraceStream, hash id) for a block of a trace.
#include "loadtest/workload.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sessa::loadtest {
namespace {

constexpr uint64_t kPrefixStream = uint64_t{1} << 60;
constexpr uint64_t kTraceStream = uint64_t{2} << 60;
constexpr uint64_t kProbeStream = uint64_t{3} << 60;

int CountTokens(const std::vector<Segment>& prompt) {
  size_t count = 0;
  for (const Segment& segment : prompt) count += segment.ids.size();
  return static_cast<int>(count);
}

}  // namespace

int64_t WorkloadPart::MaxContext() const {
  return int64_t{input.high()} + (turns.high() - 1) * int64_t{output.high() + turn_input.high()} +
         output.high();
}

WorkloadPart WorkloadPart::Scaled(double factor) const {
  WorkloadPart scaled = *this;
  scaled.input = input.Scaled(factor);
  scaled.output = output.Scaled(factor);
  scaled.turn_input = turn_input.Scaled(factor);
  scaled.prefix_tokens = static_cast<int>(prefix_tokens * factor);
  return scaled;
}

Workload::Workload(WorkloadOptions options) : options_(std::move(options)) {
  for (const WorkloadPart& part : options_.parts) total_weight_ += part.weight;
  for (const Tenant& tenant : options_.tenants) total_share_ += tenant.share;
}

std::unique_ptr<Call> Workload::Next() {
  const int64_t conversation = next_++;
  if (options_.trace.empty()) return FromPart(conversation);
  if (conversation >= static_cast<int64_t>(options_.trace.size())) return nullptr;
  return FromTrace(conversation);
}

std::vector<int32_t> Workload::Tokens(int count, Random random) const {
  Random of_run(random(), options_.run);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(of_run.Between(1, options_.vocab_size - 1));
  return ids;
}

int Workload::DrawTenant(Random* random) const {
  double left = random->Uniform() * total_share_;
  for (size_t i = 0; i + 1 < options_.tenants.size(); ++i) {
    if ((left -= options_.tenants[i].share) < 0) return static_cast<int>(i);
  }
  return static_cast<int>(options_.tenants.size()) - 1;
}

void Workload::Complete(int output_tokens, Random* random, Call* call) const {
  RequestRecord& record = call->record;
  record.tenant = options_.tenants[call->tenant].name;
  record.input_tokens = CountTokens(call->prompt);
  record.output_tokens = output_tokens;
  // A request of one token would have ended before it could be cancelled.
  if (random->Uniform() < options_.cancel_share && output_tokens > 1)
    call->cancel_after = static_cast<int>(random->Between(1, output_tokens - 1));
  call->keep_answer = record.turn + 1 < call->num_turns;
}

std::unique_ptr<Call> Workload::FromPart(int64_t conversation) const {
  Random random(options_.seed, conversation, 0);
  size_t index = 0;
  double left = random.Uniform() * total_weight_;
  while (index + 1 < options_.parts.size() && (left -= options_.parts[index].weight) >= 0) ++index;
  const WorkloadPart& part = options_.parts[index];

  auto call = std::make_unique<Call>();
  call->workload_part = static_cast<int>(index);
  call->tenant = DrawTenant(&random);
  call->num_turns = part.turns.Draw(&random);
  call->record.kind = part.kind;
  if (part.turns.high() > 1) call->record.conversation = conversation;
  const int input = part.input.Draw(&random);
  const int output = part.output.Draw(&random);
  int prefix = 0;
  if (part.num_prefixes > 0 && random.Uniform() < part.prefix_share) {
    prefix = std::min(part.prefix_tokens, input - 1);  // something is left to be computed
    const uint64_t number = (index << 32) + random.Between(0, part.num_prefixes - 1);
    if (prefix > 0) {
      Random prefix_random(options_.seed, kPrefixStream, number);
      call->prompt.push_back({Segment::Role::kSystem, Tokens(prefix, prefix_random), ""});
    }
  }
  call->prompt.push_back({Segment::Role::kUser, Tokens(input - prefix, Random(random())), ""});
  Complete(output, &random, call.get());
  return call;
}

std::unique_ptr<Call> Workload::FromTrace(int64_t conversation) const {
  Random random(options_.seed, conversation, 0);
  const TraceEntry& entry = options_.trace[conversation];
  auto call = std::make_unique<Call>();
  call->tenant = DrawTenant(&random);
  call->record.kind = "trace";
  Segment segment;
  segment.ids.reserve(entry.input_length + options_.trace_block_tokens);
  for (const int64_t id : entry.hash_ids) {
    const auto block = Tokens(options_.trace_block_tokens, Random(options_.seed, kTraceStream, id));
    segment.ids.insert(segment.ids.end(), block.begin(), block.end());
  }
  segment.ids.resize(entry.input_length);
  call->prompt.push_back(std::move(segment));
  Complete(entry.output_length, &random, call.get());
  return call;
}

std::unique_ptr<Call> Workload::NextTurn(const Call& ended) const {
  const RequestRecord& before = ended.record;
  if (before.turn + 1 >= ended.num_turns || before.outcome != Outcome::kOk) return nullptr;
  const WorkloadPart& part = options_.parts[ended.workload_part];
  Random random(options_.seed, before.conversation, before.turn + 1);
  auto call = std::make_unique<Call>();
  call->workload_part = ended.workload_part;
  call->tenant = ended.tenant;
  call->num_turns = ended.num_turns;
  call->record.kind = before.kind;
  call->record.conversation = before.conversation;
  call->record.turn = before.turn + 1;
  call->prompt = ended.prompt;
  Segment answer = ended.answer;
  answer.role = Segment::Role::kAssistant;
  // A server that gives no ids: as many of our own as were asked for. Its cache can't know them.
  if (answer.ids.empty() && answer.text.empty()) answer.ids = Tokens(before.output_tokens, Random(random()));
  call->prompt.push_back(std::move(answer));
  const int input = part.turn_input.Draw(&random);
  call->prompt.push_back({Segment::Role::kUser, Tokens(input, Random(random())), ""});
  Complete(part.output.Draw(&random), &random, call.get());
  return call;
}

std::unique_ptr<Call> Workload::Probe(int64_t i, int input_tokens) const {
  Random random(options_.seed, kProbeStream, i);
  auto call = std::make_unique<Call>();
  call->record.kind = "probe";
  call->record.is_probe = true;
  call->record.tenant = options_.tenants[0].name;
  call->prompt.push_back({Segment::Role::kUser, Tokens(input_tokens, random), ""});
  call->record.input_tokens = input_tokens;
  call->record.output_tokens = 1;
  return call;
}

}  // namespace sessa::loadtest
