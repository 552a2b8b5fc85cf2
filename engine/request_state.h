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

  // The log-probabilities of prompt tokens come from rows, so a cache hit would lose them.
  bool NeedsPromptRows() const { return request.sampling.prompt_logprobs && !prompt_done; }
};

}  // namespace sessa
