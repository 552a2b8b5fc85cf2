// An engine that hangs in a step: whoever waits for it is told and counted, once, though it never says a word
// again.
#include "server/core/watchdog.h"

#include <condition_variable>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "server/core/service.h"
#include "tests/server/scripted_engine.h"

namespace sessa {
namespace {

// A reader as the front ends are: takes what there is, and more when it is notified.
class Reader {
 public:
  explicit Reader(std::unique_ptr<Generation> generation) : generation_(std::move(generation)) {
    generation_->SetNotify([news = news_] {
      MutexLock lock(&news->mutex);
      news->come = true;
      news->condition.notify_all();
    });
  }
  GenerationEnd WaitForEnd() {
    while (true) {
      while (std::optional<GenerationEvent> event = generation_->TryNext()) {
        if (auto* end = std::get_if<GenerationEnd>(&*event)) return *end;
      }
      MutexLock lock(&news_->mutex);
      while (!news_->come) news_->condition.wait(news_->mutex);
      news_->come = false;
    }
  }

 private:
  struct News {
    Mutex mutex;
    std::condition_variable_any condition;
    bool come ABSL_GUARDED_BY(mutex) = false;
  };
  const std::shared_ptr<News> news_ = std::make_shared<News>();
  const std::unique_ptr<Generation> generation_;
};

TEST(WatchdogTest, AnEngineThatHangsEndsItsRequests) {
  ServiceOptions options;
  options.watchdog = absl::Milliseconds(200);
  options.limits.max_requests_per_tenant = 3;
  Service service(options);
  ServedModel model;
  auto engine = std::make_shared<ScriptedEngine>();
  model.engine = engine;
  service.SetModel(model);
  const auto generate = [&](int num_prompts) {
    GenerationRequest request;
    request.prompts.assign(num_prompts, std::vector<int32_t>{ScriptedEngine::kHang});
    request.stream = true;
    request.n = 2;
    request.max_tokens = 5;
    return service.Generate(std::move(request), "tenant", service.Begin("rest"));
  };
  std::vector<std::unique_ptr<Reader>> readers;
  for (int num_prompts : {1, 3, 2})
    readers.push_back(std::make_unique<Reader>(generate(num_prompts).value()));
  EXPECT_FALSE(generate(1).ok());  // the tenant's limit
  EXPECT_TRUE(service.Live());

  engine->SetSilence(absl::Seconds(1));
  for (const auto& reader : readers) {
    const GenerationEnd end = reader->WaitForEnd();
    EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
    EXPECT_NE(end.status.message().find("has not turned"), std::string::npos) << end.status;
  }
  EXPECT_FALSE(service.Live());
  EXPECT_EQ(generate(1).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service.metrics().received(), 5);
  EXPECT_EQ(service.metrics().ended(), 5);
  EXPECT_EQ(service.metrics().outcome(Outcome::kUnavailable), 4);

  engine->SetSilence(absl::ZeroDuration());  // it was only stopped: requests are taken again, no slot is lost
  EXPECT_TRUE(service.Live());
  for (int i = 0; i < 3; ++i) readers.push_back(std::make_unique<Reader>(generate(1).value()));
  readers.clear();
  EXPECT_EQ(service.metrics().ended(), 8);
  EXPECT_EQ(service.metrics().outcome(Outcome::kCancelled), 3);
  engine->Stop();
}

}  // namespace
}  // namespace sessa
