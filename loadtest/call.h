// One request from when it is made to when it has ended. It has one owner at a time: the workload makes it, a
// client encodes it ahead of its time, the runner sends it, the client owns it until it calls back, then the
// runner looks at the answer and keeps the record.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loadtest/record.h"

namespace sessa::loadtest {

// Whose words a stretch of a prompt is. Prompts of token ids are the stretches joined; as text a token id
// stands for a word; as chat a stretch is a message.
struct Segment {
  enum class Role { kSystem, kUser, kAssistant } role = Role::kUser;
  std::vector<int32_t> ids;
  std::string text;  // an assistant's, when ids are not known
};

// What a client makes of a call ahead of its time; each kind of client has its own.
struct Payload {
  virtual ~Payload() = default;
};

struct Call {
  RequestRecord record;
  std::vector<Segment> prompt;
  int tenant = 0;            // index of its key
  int cancel_after = 0;      // tokens after which this client cancels it; 0: it doesn't
  bool keep_answer = false;  // a later turn needs it
  int workload_part = 0;     // the workload's own
  int num_turns = 1;         // of the conversation, this one included

  std::unique_ptr<Payload> payload;
  Segment answer;  // with keep_answer
};

}  // namespace sessa::loadtest
