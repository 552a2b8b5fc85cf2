// A process whose rank is not 0; see join_group.h.
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/group_engine.h"
#include "engine/mutex.h"
#include "kernels/notice.h"
#include "server/core/log.h"
#include "server/core/service.h"
#include "server/main/admin_server.h"
#include "server/main/join_group.h"
#include "server/main/load_model.h"
#include "server/main/signals.h"
#include "server/main/summary.h"

namespace sessa {
namespace {

constexpr absl::Duration kLogFlush = absl::Seconds(1);

// What the main thread waits for.
struct News {
  Mutex mutex;
  std::condition_variable_any wake;
  std::shared_ptr<ProcessGroup> group ABSL_GUARDED_BY(mutex);
  std::optional<absl::Status> end ABSL_GUARDED_BY(mutex);  // the rank's, or why the group is lost
  int num_signals ABSL_GUARDED_BY(mutex) = 0;

  void End(const absl::Status& status) {
    MutexLock lock(&mutex);
    if (!end.has_value()) end = status;
    wake.notify_all();
  }
};

absl::Status ServeRankOf(const MainOptions& options, const std::string& admin, News* news) {
  auto checkpoint = Checkpoint::Open(options.model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  const EngineOptions engine = WithFormats(options, **checkpoint);
  GroupEvents events;
  events.on_lost = [news](const absl::Status& why) { news->End(why); };
  auto group = JoinGroup(options, engine, **checkpoint, std::move(events));
  if (!group.ok()) return group.status();
  {
    MutexLock lock(&news->mutex);
    news->group = *group;
  }
  Log("loading weights");
  return ServeRank(engine, RanksOf(*group), (*checkpoint)->config(), **checkpoint, [&] {
    Log(absl::StrCat("rank ", options.group->rank, " is ready"));
    StderrLog().Flush(kLogFlush);
    LineWriter out(STDOUT_FILENO);
    out.Write(absl::StrCat("ready rank=", options.group->rank, admin));
    out.Flush(kLogFlush);
  });
}

// The end by something else than the leader's; the thread that serves may be in the middle of a step or of a
// read.
[[noreturn]] void Exit(int code) {
  StderrLog().Flush(kLogFlush);
  std::_Exit(code);
}

// What ServeRankOf has come to, or why the group is lost. Signals are answered meanwhile.
absl::Status AwaitEnd(News* news) {
  MutexLock lock(&news->mutex);
  for (int seen = 0;; seen = news->num_signals) {
    while (!news->end.has_value() && news->num_signals == seen) news->wake.wait(news->mutex);
    if (news->end.has_value()) return *news->end;
    if (news->num_signals > 1) {
      Log("second signal: stopped");
      Exit(1);
    }
    if (news->group == nullptr) {
      Log("stopped before the group was complete");
      Exit(0);
    }
    Log("asking the leader to drain and end the group; a second signal ends this rank");
    news->group->AskToStop();
  }
}

}  // namespace

absl::Status RunMember(const MainOptions& options) {
  SetLogOptions(options.log);
  SetNotice([](absl::string_view text) { Log(text, LogLevel::kWarning); });
  ServiceOptions service_options;
  service_options.model_name = options.served_model_name;
  Service service(std::move(service_options));
  auto admin = StartAdmin(options, &service);
  if (!admin.ok()) return admin.status();
  const std::string admin_word =
      *admin == nullptr ? "" : absl::StrCat(" admin=", Address(options.admin_host, (*admin)->port()));
  News news;
  SignalThread signals(
      [&news](int count) {
        MutexLock lock(&news.mutex);
        news.num_signals = count;
        news.wake.notify_all();
      },
      [] {});
  std::thread serving([&] { news.End(ServeRankOf(options, admin_word, &news)); });
  const absl::Status end = AwaitEnd(&news);
  std::shared_ptr<ProcessGroup> group;
  {
    MutexLock lock(&news.mutex);
    group.swap(news.group);
  }
  if (!end.ok()) {
    if (group != nullptr) group->Fail(end);
    Log(absl::StrCat("sessa-server: ", end.message()), LogLevel::kError);
    Exit(1);
  }
  serving.join();
  group.reset();  // it may call News until then
  Log("stopped, as the leader has ended the group");
  return absl::OkStatus();
}

}  // namespace sessa
