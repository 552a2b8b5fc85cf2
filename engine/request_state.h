// What the Scheduler knows of a live request beside its sequences. Only scheduler*.cc include this.
#pragma once

#include <memory>
#include <vector>

#include "engine/scheduler.h"

namespace sessa {

struct Scheduler::RequestState {
  RequestId id = 0;
  Request request;
  Tenant* tenant = nullptr;
  std::vector<std::unique_ptr<Sequence>> choices;  // null once ended
  int num_live = 0;
  int num_running = 0;       // sequences
  bool looked_up = false;    // its first look-up in the prefix index is counted
  bool prompt_done = false;  // PromptInfo was sent
  PromptInfo prompt;
  RequestEnd end;  // filled as it goes

  bool NeedsPromptRows() const { return request.sampling.prompt_logprobs && !prompt_done; }
  // The first row whose log-probability is still wanted: what comes from a row, a cache hit would lose.
  int FirstLogprobRow() const {
    return request.sampling.prompt_logprobs_start - 1 + static_cast<int>(prompt.logprobs.size());
  }
};

}  // namespace sessa
