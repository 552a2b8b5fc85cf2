// Input: the scheduler's options, then what happens to it, an operation after the other: arrivals, cancels,
// choices that stop, time that passes, steps, a device that fails. Checks after each that its bookkeeping and
// the pages are intact (no page lost, or held by two that should not), in each step that the fake model finds
// the state of each prefix where its pages and slots say, and at the end that each request had one end, that
// who was left alone has the tokens that it would have alone, that no page is held, and that the work was
// bounded (nobody starves or loops). With two tenants that always want more, that they are served by their
// weights.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>

#include "tests/engine/scheduler_harness.h"
#include "tests/fuzz_check.h"
#include "tests/fuzz_input.h"

namespace sessa {
namespace {

StateSize State(FuzzInput* in) {
  StateSize s;
  s.page_size = 16 << in->Between(0, 2);
  s.num_ranks = in->Between(1, 4);
  s.num_pages = s.num_ranks * in->Between(1, 16);
  if (in->Chance(128)) s.num_slots = in->Between(1, 24);
  return s;
}

SchedulerOptions Options(FuzzInput* in) {
  SchedulerOptions o;
  o.max_num_seqs = in->Between(1, 12);
  o.max_step_tokens = in->Between(1, 128);
  o.max_model_len = in->Between(2, 200);
  o.enable_prefix_caching = !in->Chance(64);
  o.max_preemptions = in->Between(0, 4);
  o.num_speculative_tokens = in->Between(0, kMaxDrafts);
  return o;
}

class Game {
 public:
  Game(FuzzInput* in, const StateSize& state, const SchedulerOptions& options)
      : in_(*in), h_(state, options) {
    if (in_.Chance(64)) h_.scheduler_.mutable_pool_for_testing()->SetHashMaskForTesting(in_.Byte());
    h_.plans_ahead_ = in_.Chance(128);
  }

  void Play() {
    for (int i = 0; i < 400 && !in_.empty(); ++i) {
      Operation();
      CheckIntact();
    }
    Finish();
  }

 private:
  void CheckIntact() { Check(h_.scheduler_.CheckInvariants().ok()); }

  void Operation() {
    switch (in_.Between(0, 9)) {
      case 0:
      case 1:
      case 2: return Arrive();
      case 3: {
        const RequestId id = AnyId();
        h_.scheduler_.Cancel(id, h_.now_, &h_.events_);
        return Disturb(id);
      }
      case 4: {
        const RequestId id = AnyId();
        h_.scheduler_.StopChoice(id, in_.Between(0, 3), h_.now_, &h_.events_);
        return Disturb(id);
      }
      case 5:
        h_.now_ += absl::Milliseconds(in_.Between(0, 500));
        h_.scheduler_.Expire(h_.now_, &h_.events_);
        return h_.Collect();
      case 6:
        if (!in_.Chance(16)) return Step();
        for (auto& [id, record] : h_.records_) disturbed_[id] |= !record.ended;
        if (in_.Chance(128) && h_.under_way_.empty()) h_.scheduler_.Schedule(h_.now_);  // amid a step
        h_.Abort(absl::InternalError("the device failed"));
        return Check(!h_.scheduler_.has_work());
      case 7:
        for (int n = in_.Between(1, 20); n > 0; --n) Step();
        return;
      default: return Step();
    }
  }

  void Step() {
    h_.Step();
    num_rows_ += h_.last_.num_rows();
    CheckIntact();
  }

  RequestId AnyId() { return static_cast<RequestId>(in_.Between(0, static_cast<int>(next_))); }
  void Disturb(RequestId id) {
    const auto it = h_.records_.find(id);
    if (it != h_.records_.end() && !it->second.ended) disturbed_[id] = true;
    h_.Collect();
  }

  void Arrive() {
    auto prompt = RandomPrompt(in_.Between(0, 120), in_.Between(0, 3));  // of four shared beginnings
    for (int tail = in_.Between(0, 20); tail >= 0; --tail)
      prompt.push_back(in_.Between(0, FakeModel::kVocab - 2));
    Request request;
    const uint8_t kind = in_.Byte();
    request.n = 1 + kind % 4 * (kind % 3 == 0);
    request.sampling.ignore_eos = kind & 4;
    request.sampling.prompt_logprobs = (kind & 0x18) == 0x18;
    request.sampling.num_logprobs = request.sampling.prompt_logprobs ? 1 : -1;
    if (request.sampling.prompt_logprobs)
      request.sampling.prompt_logprobs_start = in_.Between(1, static_cast<int>(prompt.size()));
    request.tenant = (kind & 0x20) != 0 ? "b" : "a";
    request.tenant_weight = (kind & 0x20) != 0 ? 3 : 1;
    request.priority = (kind & 0x40) != 0 ? in_.Between(-2, 2) : 0;
    if ((kind & 0x80) != 0) request.deadline = h_.now_ + absl::Milliseconds(in_.Between(0, 1000));
    request.sampling.seed = in_.Byte();
    request.sampling.temperature = in_.Chance(128) ? 0 : 1;
    request.sampling.presence_penalty = in_.Chance(16) ? 1 : 0;
    if (in_.Chance(64)) request.num_speculative_tokens = in_.Between(0, kMaxDrafts);
    const bool timed = request.deadline != absl::InfiniteFuture();
    const int num_tokens = in_.Between(1, 60), num_prompt = static_cast<int>(prompt.size()), n = request.n;
    const RequestId id = next_++;
    if (!h_.Add(id, std::move(prompt), num_tokens, std::move(request)).ok()) return;
    disturbed_[id] = timed;
    max_rows_ +=
        int64_t{n} * (num_prompt + num_tokens * (1 + kMaxDrafts)) * (h_.options_.max_preemptions + 1);
  }

  // Everything that is left ends, and no row was computed more often than preemptions allow.
  void Finish() {
    while (h_.scheduler_.has_work() || !h_.under_way_.empty()) {
      Check(num_rows_ <= max_rows_);
      Step();
    }
    Check(num_rows_ <= max_rows_);
    for (const auto& [id, record] : h_.records_) {
      Check(record.ended);
      Check(record.end.num_preemptions <= h_.options_.max_preemptions * record.request.n);
      if (!disturbed_[id]) h_.ExpectUndisturbed(id);
      if (record.prompted && record.request.sampling.prompt_logprobs) CheckLogprobs(record);
    }
    const SchedulerStats stats = h_.scheduler_.Stats();
    Check(stats.num_used_pages == 0 && stats.num_used_slots == 0 && stats.num_running == 0 &&
          stats.num_waiting == 0);
    Check(stats.accepted_draft_tokens <= stats.draft_tokens);
    Check(stats.waiting_tokens == 0);
  }

  static void CheckLogprobs(const SchedulerHarness::Record& record) {
    int position = record.request.sampling.prompt_logprobs_start;
    for (const TokenLogprobs& logprobs : record.prompt.logprobs) Check(logprobs.logprob == position++ - 1);
    Check(position == record.prompt.num_tokens);
  }

  FuzzInput& in_;
  SchedulerHarness h_;
  RequestId next_ = 1;
  std::map<RequestId, bool> disturbed_;
  int64_t num_rows_ = 0, max_rows_ = 0;  // computed; and what the requests so far may take
};

// Two tenants whose queues never run dry, requests of up to 60 tokens: what each was served, by its weight,
// stays within what the slots hold.
void PlayFair(FuzzInput* in) {
  constexpr int kPrompt = 30, kAnswer = 30;
  const int slots = in->Between(1, 4);
  const int weights[2] = {in->Between(1, 4), in->Between(1, 4)};
  SchedulerHarness h({.page_size = 16, .num_pages = slots * 8}, {.max_num_seqs = slots,
                                                                 .max_step_tokens = in->Between(8, 64),
                                                                 .max_model_len = kPrompt + kAnswer + 1,
                                                                 .enable_prefix_caching = false});
  RequestId next = 1;
  int64_t sent[2] = {};
  for (int step = 0; step < 300 && !in->empty(); ++step) {
    int64_t served[2] = {}, ended[2] = {};
    for (const auto& [id, r] : h.records_) {
      const int t = r.request.tenant == "b";
      served[t] += (r.prompted ? r.prompt.num_tokens : 0) + static_cast<int64_t>(r.tokens[0].size());
      ended[t] += r.ended;
    }
    for (int t = 0; t < 2; ++t) {
      for (; sent[t] - ended[t] < slots + 3; ++sent[t]) {
        Request request = NoEos();
        request.tenant = t == 0 ? "a" : "b";
        request.tenant_weight = weights[t];
        const RequestId id = next++;
        Check(h.Add(id, RandomPrompt(in->Between(1, kPrompt), static_cast<int>(id)), in->Between(1, kAnswer),
                    request)
                  .ok());
      }
    }
    const double difference =
        static_cast<double>(served[0]) / weights[0] - static_cast<double>(served[1]) / weights[1];
    Check(std::abs(difference) <= (slots + 2) * (kPrompt + kAnswer) * (1.0 / weights[0] + 1.0 / weights[1]));
    h.Step();
    Check(h.scheduler_.CheckInvariants().ok());
  }
}

}  // namespace
}  // namespace sessa

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  GTEST_FLAG_SET(break_on_failure, true);  // the harness's expectations end the program
  sessa::FuzzInput in(data, size);
  if (in.Chance(32)) {
    sessa::PlayFair(&in);
  } else {
    const sessa::StateSize state = sessa::State(&in);
    const sessa::SchedulerOptions options = sessa::Options(&in);
    sessa::Game(&in, state, options).Play();
  }
  return 0;
}
