// A Service over a scripted engine that answers at once, for fuzz targets: nothing in it depends on time or
// threads, so that an input does the same each time.
#pragma once

#include <memory>
#include <utility>

#include "server/core/service.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/scripted_engine.h"

namespace sessa {

inline std::unique_ptr<Service> MakeFuzzService() {
  ServiceOptions options;
  options.num_text_threads = 0;
  options.limits.max_total_tokens = 512;  // answers that are quickly made
  auto service = std::make_unique<Service>(std::move(options));
  auto engine = std::make_shared<ScriptedEngine>(1024, 256);
  engine->PlayAtOnce();
  ServedModel model;
  model.name = "scripted";
  model.engine = std::move(engine);
  model.tokenizer = *Tokenizer::Load(SESSA_DEMO_MODEL);
  model.chat_template = *ChatTemplate::Load(SESSA_DEMO_MODEL);
  service->SetModel(std::move(model));
  return service;
}

// Every request that was received has its outcome.
inline bool AllEnded(Service* service) { return service->metrics().ended() == service->metrics().received(); }

}  // namespace sessa
